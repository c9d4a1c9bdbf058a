from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from xml.sax.saxutils import quoteattr

import numpy as np
from tqdm import tqdm

from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.data.mesh_files.cell_arrays import identifier
from pyg_stmamba.data.mesh_files.vtu_file import as_vectors, node_type_array
from pyg_stmamba.data.mesh_files.xdmf_series import MIXED_CELLS
from pyg_stmamba.data.whole_file import written_whole

# What XDMF calls cells.
TOPOLOGIES = {
    "triangle": "Triangle",
    "quad": "Quadrilateral",
    "tetra": "Tetrahedron",
    "pyramid": "Pyramid",
    "wedge": "Wedge",
    "hexahedron": "Hexahedron",
}
_SHAPES = {1: "Scalar", 3: "Vector", 6: "Tensor6", 9: "Tensor"}

# Puts an array somewhere and returns the text of the element that says where.
Store = Callable[[str, np.ndarray], str]


def write_xdmf(
    path: str | os.PathLike[str],
    trajectory: MeshTrajectory,
    *,
    fields: Sequence[str] | None = None,
    data: Literal["hdf5", "binary"] = "hdf5",
    progress: bool = False,
) -> None:
    r"""Writes a trajectory as an XDMF file, which ParaView opens, with its numbers in a file beside
    it.

    The mesh and what does not change are written once. Vectors of the plane get a third
    component of 0. The types of the nodes are written as :func:`node_type_array` says; lines,
    which only mark borders, are not written.

    Args:
        path (str): The XDMF file; the file of numbers is called alike.
        trajectory (MeshTrajectory): What to write.
        fields (Sequence[str], optional): Which fields. (default: :obj:`None`, all, and the static
            ones)
        data (str, optional): Where numbers go, :obj:`"hdf5"`, or :obj:`"binary"` for a file of raw
            numbers, which needs no h5py. (default: :obj:`"hdf5"`)
        progress (bool, optional): Shows a progress bar. (default: :obj:`False`)

    Raises:
        ValueError: If a field is not there or holds NaN, or :obj:`data` is unknown.
    """
    if data not in _STORES:
        raise ValueError(f"unknown data {data!r}; choose from {', '.join(_STORES)}")
    path = Path(path)
    names = list(trajectory.fields) if fields is None else list(fields)
    for name in names:
        trajectory.field(name)
    still = dict(trajectory.static) if fields is None else {}
    still |= node_type_array(trajectory.mesh)
    # A description that is there already must not stay beside numbers that are being replaced.
    path.unlink(missing_ok=True)
    suffix, opened = _STORES[data]
    with opened(path.with_suffix(suffix)) as store:
        lines = _described(trajectory, names, still, store, progress)
    with written_whole(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _described(
    trajectory: MeshTrajectory,
    names: Sequence[str],
    still: Mapping[str, np.ndarray],
    store: Store,
    progress: bool,
) -> list[str]:
    """Stores all arrays and returns the lines of the file that describes them."""
    mesh = trajectory.mesh
    # Every frame names the same arrays; references by xi:include are not understood everywhere.
    shared = [
        *_mesh_lines(mesh, store),
        *[
            _attribute(name, values, mesh.dim, store, f"static/{place}_{identifier(name)}")
            for place, (name, values) in enumerate(still.items())
        ],
    ]
    lines = [
        '<?xml version="1.0"?>',
        '<Xdmf Version="3.0">',
        "<Domain>",
        '<Grid Name="trajectory" GridType="Collection" CollectionType="Temporal">',
    ]
    for frame in tqdm(range(trajectory.num_frames), desc="Writing", disable=not progress):
        lines += [
            f'<Grid Name="frame_{frame}" GridType="Uniform">',
            f'<Time Value="{float(trajectory.times[frame])!r}"/>',
            *shared,
        ]
        for place, name in enumerate(names):
            values = trajectory.frames(name, frame, frame + 1)[:, 0]
            where = f"fields/{place}_{identifier(name)}/{frame}"
            lines.append(_attribute(name, values, mesh.dim, store, where))
        lines.append("</Grid>")
    return [*lines, "</Grid>", "</Domain>", "</Xdmf>"]


def _mesh_lines(mesh: Mesh, store: Store) -> list[str]:
    cells = {kind: block for kind, block in mesh.cells.items() if kind != "line" and len(block)}
    if len(cells) == 1:
        ((kind, numbers),) = cells.items()
        name = TOPOLOGIES[kind]
    else:
        name = "Mixed"
        codes = {kind: code for code, kind in MIXED_CELLS.items()}
        numbers = np.concatenate(
            [np.insert(block, 0, codes[kind], axis=1).ravel() for kind, block in cells.items()]
        )
    pos = as_vectors(mesh.pos)
    return [
        f'<Topology TopologyType="{name}" NumberOfElements="{mesh.num_cells}">'
        f"{store('mesh/cells', numbers)}</Topology>",
        f'<Geometry GeometryType="XYZ">{store("mesh/points", pos)}</Geometry>',
    ]


def _attribute(name: str, values: np.ndarray, dim: int, store: Store, place: str) -> str:
    values = as_vectors(values.reshape(len(values), -1), dim)
    shape = _SHAPES.get(values.shape[1], "Matrix")
    return (
        f'<Attribute Name={quoteattr(name)} AttributeType="{shape}" Center="Node">'
        f"{store(place, values)}</Attribute>"
    )


def _item(values: np.ndarray, form: str, text: str, place: str = "") -> str:
    kind = {"f": "Float", "i": "Int", "u": "UInt"}[values.dtype.kind]
    shape = " ".join(str(size) for size in values.shape)
    return (
        f'<DataItem Dimensions="{shape}" NumberType="{kind}" Precision="{values.dtype.itemsize}" '
        f'Format="{form}"{place}>{text}</DataItem>'
    )


@contextmanager
def _in_binary(path: Path) -> Iterator[Store]:
    with written_whole(path) as temporary, temporary.open("wb") as file:

        def store(place: str, values: np.ndarray) -> str:
            start = file.tell()
            file.write(values.astype(values.dtype.newbyteorder("<")).tobytes())
            return _item(values, "Binary", path.name, f' Endian="Little" Seek="{start}"')

        yield store


@contextmanager
def _in_hdf5(path: Path) -> Iterator[Store]:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "writing HDF5 needs h5py: pip install 'pyg-stmamba[train]', or write data='binary'"
        ) from error
    with written_whole(path) as temporary, h5py.File(temporary, "w") as file:

        def store(place: str, values: np.ndarray) -> str:
            file.create_dataset(place, data=values)
            return _item(values, "HDF", f"{path.name}:/{place}")

        yield store


_STORES = {"hdf5": (".h5", _in_hdf5), "binary": (".bin", _in_binary)}
