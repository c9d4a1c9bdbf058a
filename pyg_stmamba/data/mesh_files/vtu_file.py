from __future__ import annotations

import base64
import os
import zlib
from collections.abc import Mapping
from typing import Literal
from xml.sax.saxutils import quoteattr

import numpy as np

from pyg_stmamba.data.mesh.mesh import CELL_TYPES, Mesh
from pyg_stmamba.data.mesh.node_types import NODE_TYPES
from pyg_stmamba.data.whole_file import written_whole

# The numbers that VTK gives to the cell types of CELL_TYPES.
VTK_CELLS = {
    "line": 3,
    "triangle": 5,
    "quad": 9,
    "tetra": 10,
    "hexahedron": 12,
    "wedge": 13,
    "pyramid": 14,
}
ENCODINGS = ("inline", "appended")


def write_vtu(
    path: str | os.PathLike[str],
    points: np.ndarray,
    cells: Mapping[str, np.ndarray],
    point_data: Mapping[str, np.ndarray] | None = None,
    *,
    encoding: Literal["inline", "appended"] = "inline",
    compress: bool = False,
) -> None:
    r"""Writes one unstructured grid as a VTU file, which ParaView opens.

    Two-dimensional points and vectors get a third component of 0, as VTK knows no others.

    Args:
        path (str): The file.
        points (numpy.ndarray): Positions of the nodes.
        cells (dict[str, numpy.ndarray]): Cells by type, as :class:`Mesh` holds them.
        point_data (dict[str, numpy.ndarray], optional): Arrays on the nodes by name, floating
            point or whole numbers. (default: :obj:`None`)
        encoding (str, optional): :obj:`"inline"` for base64 where the array stands, which all
            readers know, or :obj:`"appended"` for raw bytes at the end of the file, which is a
            quarter smaller, but which meshio 5.3.5 at times reads wrongly.
            (default: :obj:`"inline"`)
        compress (bool, optional): Compresses with zlib. (default: :obj:`False`)

    Shapes:
        - **points:** :math:`(|\mathcal{V}|, D)`
        - **cells:** :math:`(M, k)`
        - **point_data:** :math:`(|\mathcal{V}|)` or :math:`(|\mathcal{V}|, C)`

    Raises:
        ValueError: If the encoding or a cell type is unknown, a shape does not fit, or an array
            holds something other than numbers.
    """
    check_encoding(encoding)
    points = np.asarray(points, dtype=np.float64)
    data = _Arrays(encoding == "appended", compress)
    body = [
        '<?xml version="1.0"?>',
        '<VTKFile type="UnstructuredGrid" version="1.0" byte_order="LittleEndian" '
        'header_type="UInt64"' + (' compressor="vtkZLibDataCompressor"' if compress else "") + ">",
        "<UnstructuredGrid>",
        f'<Piece NumberOfPoints="{len(points)}" '
        f'NumberOfCells="{sum(len(block) for block in cells.values())}">',
        "<Points>",
        data.add("Points", as_vectors(points)),
        "</Points>",
        "<Cells>",
        *[data.add(name, array) for name, array in _cell_arrays(cells).items()],
        "</Cells>",
        "<PointData>",
        *[
            data.add(name, as_vectors(_checked(name, array, len(points)), points.shape[1]))
            for name, array in (point_data or {}).items()
        ],
        "</PointData>",
        "</Piece>",
        "</UnstructuredGrid>",
    ]
    with written_whole(path) as temporary, temporary.open("wb") as file:
        file.write("\n".join(body).encode())
        if encoding == "appended":
            file.write(b'\n<AppendedData encoding="raw">\n_')
            file.writelines(data.appended)
            file.write(b"\n</AppendedData>")
        file.write(b"\n</VTKFile>\n")


def check_encoding(encoding: str) -> None:
    r"""Raises a :class:`ValueError` if there is no such encoding.

    Args:
        encoding (str): As :func:`write_vtu` takes it.
    """
    if encoding not in ENCODINGS:
        raise ValueError(f"unknown encoding {encoding!r}; choose from {', '.join(ENCODINGS)}")


def as_vectors(values: np.ndarray, dim: int = 2) -> np.ndarray:
    r"""Adds a third component of 0 to vectors of the plane; leaves all else as it is.

    Args:
        values (numpy.ndarray): Values :math:`(|\mathcal{V}|, C)` on nodes.
        dim (int, optional): The dimension of space. (default: :obj:`2`)
    """
    if dim == 2 and values.ndim == 2 and values.shape[1] == 2:
        return np.pad(values, ((0, 0), (0, 1)))
    return values


def node_type_array(mesh: Mesh) -> dict[str, np.ndarray]:
    r"""Returns what nodes are as an array to be written, under its name: :obj:`"node_type"` with
    the numbers of :obj:`NODE_TYPES`, or :obj:`"own_node_type"` where there are other types.

    Args:
        mesh (Mesh): The mesh.
    """
    names = mesh.node_type_names
    if not set(names) <= set(NODE_TYPES):
        return {"own_node_type": mesh.node_type}
    return {"node_type": np.array([NODE_TYPES.index(name) for name in names])[mesh.node_type]}


class _Arrays:
    """Writes arrays as elements of the file, in place or at its end."""

    def __init__(self, append: bool, compress: bool) -> None:
        self.append, self.compress = append, compress
        self.appended: list[bytes] = []
        self.offset = 0

    def add(self, name: str, array: np.ndarray) -> str:
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        kind = {"f": "Float", "i": "Int", "u": "UInt"}[array.dtype.kind]
        components = 1 if array.ndim == 1 else array.shape[1]
        head = (
            f'<DataArray type="{kind}{8 * array.dtype.itemsize}" Name={quoteattr(name)} '
            f'NumberOfComponents="{components}" '
        )
        header, payload = self._packed(array.tobytes())
        if self.append:
            place, self.offset = self.offset, self.offset + len(header) + len(payload)
            self.appended += [header, payload]
            return f'{head}format="appended" offset="{place}"/>'
        # The two parts of a compressed array are encoded one by one, an uncompressed one at once.
        parts = [header, payload] if self.compress else [header + payload]
        text = "".join(base64.b64encode(part).decode() for part in parts)
        return f'{head}format="binary">{text}</DataArray>'

    def _packed(self, raw: bytes) -> tuple[bytes, bytes]:
        if not self.compress:
            return np.array([len(raw)], dtype="<u8").tobytes(), raw
        packed = zlib.compress(raw)
        # One block: how many, its size, the size of a last shorter one, and its size packed.
        return np.array([1, len(raw), 0, len(packed)], dtype="<u8").tobytes(), packed


def _cell_arrays(cells: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    unknown = [kind for kind in cells if kind not in VTK_CELLS]
    if unknown:
        raise ValueError(f"unknown cell type {unknown[0]!r}; choose from {', '.join(CELL_TYPES)}")
    counts = [len(block) for block in cells.values()]
    corners = np.repeat([CELL_TYPES[kind][0] for kind in cells], counts)
    return {
        "connectivity": np.concatenate(
            [np.zeros(0, np.int64), *[np.asarray(block).ravel() for block in cells.values()]]
        ).astype(np.int64),
        "offsets": np.cumsum(corners, dtype=np.int64),
        "types": np.repeat([VTK_CELLS[kind] for kind in cells], counts).astype(np.uint8),
    }


def _checked(name: str, array: np.ndarray, num_points: int) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8 or array.dtype == np.float16:
        raise ValueError(f"{name} must hold float32, float64 or whole numbers, got {array.dtype}")
    if array.ndim not in (1, 2) or len(array) != num_points:
        raise ValueError(
            f"{name} must be [{num_points}] or [{num_points}, C], got {list(array.shape)}"
        )
    return array
