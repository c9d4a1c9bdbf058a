from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from tqdm import tqdm

from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.data.mesh_files.vtu_file import check_encoding, node_type_array, write_vtu
from pyg_stmamba.data.mesh_files.vtu_series import VtuSeries
from pyg_stmamba.data.whole_file import written_whole


def read_pvd(path: str | os.PathLike[str]) -> VtuSeries:
    r"""Reads a PVD collection: the files of a series and their times, not yet what is in them.

    Args:
        path (str): The PVD file.

    Returns:
        VtuSeries: Its files, which may be VTU or PVTU.

    Raises:
        OSError: If it or a file that it names is not there.
        ValueError: If it is no PVD file, names no files, a time is no number, or a time has
            several parts.
    """
    path = Path(path)
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is not a PVD file: {error}") from error
    if root.tag != "VTKFile" or root.get("type") != "Collection":
        raise ValueError(
            f"{path} is not a PVD file: expected a VTKFile of type Collection, got a {root.tag} "
            f"of type {root.get('type')}"
        )
    sets = root.findall("Collection/DataSet")
    stamps = [_stamp(element, place, path) for place, element in enumerate(sets)]
    files = [path.parent / element.get("file", "") for element in sets]
    if not files:
        raise ValueError(f"{path} names no files")
    if any(element.get("part", "0") != "0" for element in sets):
        raise ValueError(
            f"{path} has several parts at a time; merge them to one file a time, in ParaView with "
            "the filter Append Datasets, or let the solver write PVTU files"
        )
    return VtuSeries(files, stamps, path.stem)


def write_pvd(
    path: str | os.PathLike[str],
    trajectory: MeshTrajectory,
    *,
    fields: Sequence[str] | None = None,
    encoding: Literal["inline", "appended"] = "inline",
    compress: bool = False,
    progress: bool = False,
) -> None:
    r"""Writes a trajectory as a PVD collection, which ParaView opens, and one VTU file a frame in
    a folder beside it.

    Vectors of the plane get a third component of 0. The types of the nodes are written as
    :func:`node_type_array` says.

    .. code-block:: python

        write_pvd("prediction.pvd", trajectory)  # and prediction/prediction_000000.vtu, ...

    Args:
        path (str): The PVD file.
        trajectory (MeshTrajectory): What to write.
        fields (Sequence[str], optional): Which fields. (default: :obj:`None`, all, and the static
            ones)
        encoding (str, optional): As :func:`write_vtu` takes it. (default: :obj:`"inline"`)
        compress (bool, optional): Compresses with zlib. (default: :obj:`False`)
        progress (bool, optional): Shows a progress bar. (default: :obj:`False`)

    Raises:
        ValueError: If a field is not there or holds NaN, or the encoding is unknown.
    """
    check_encoding(encoding)
    path, mesh = Path(path), trajectory.mesh
    names = list(trajectory.fields) if fields is None else list(fields)
    still = dict(trajectory.static) if fields is None else {}
    still |= node_type_array(mesh)
    for name in names:
        trajectory.field(name)
    # A collection that is there already must not name files that are being replaced.
    path.unlink(missing_ok=True)
    lines = []
    for frame in tqdm(range(trajectory.num_frames), desc="Writing", disable=not progress):
        file = f"{path.stem}/{path.stem}_{frame:06d}.vtu"
        moving = {name: trajectory.frames(name, frame, frame + 1)[:, 0] for name in names}
        write_vtu(
            path.parent / file,
            mesh.pos,
            mesh.cells,
            {**still, **moving},
            encoding=encoding,
            compress=compress,
        )
        time = float(trajectory.times[frame])
        lines.append(f'    <DataSet timestep="{time!r}" part="0" file={quoteattr(file)}/>')
    text = [
        '<?xml version="1.0"?>',
        '<VTKFile type="Collection" version="0.1" byte_order="LittleEndian">',
        "  <Collection>",
        *lines,
        "  </Collection>",
        "</VTKFile>",
    ]
    with written_whole(path) as temporary:
        temporary.write_text("\n".join(text) + "\n", encoding="utf-8")


def _stamp(element: ElementTree.Element, place: int, path: Path) -> float:
    stamp = element.get("timestep", str(place))
    try:
        return float(stamp)
    except ValueError as error:
        raise ValueError(f"{path} has the time {stamp!r}, which is no number") from error
