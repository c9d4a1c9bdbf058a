from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from pyg_stmamba.data.mesh.mesh import CELL_TYPES
from pyg_stmamba.data.mesh_files.cell_arrays import snapshot_of
from pyg_stmamba.data.mesh_files.frame_series import FrameSeries
from pyg_stmamba.data.mesh_files.snapshot import Snapshot
from pyg_stmamba.data.mesh_files.xdmf_data import XdmfItem, item_of, read_item

# The cells of XDMF and what meshio calls them.
XDMF_CELLS = {
    "triangle": "triangle",
    "quadrilateral": "quad",
    "tetrahedron": "tetra",
    "pyramid": "pyramid",
    "wedge": "wedge",
    "hexahedron": "hexahedron",
    "tri_6": "triangle6",
    "triangle_6": "triangle6",
    "quad_8": "quad8",
    "quadrilateral_8": "quad8",
    "quad_9": "quad9",
    "quadrilateral_9": "quad9",
    "tet_10": "tetra10",
    "tetrahedron_10": "tetra10",
    "hex_20": "hexahedron20",
    "hexahedron_20": "hexahedron20",
    "hex_27": "hexahedron27",
    "hexahedron_27": "hexahedron27",
}
# The numbers that stand before each cell of a mixed mesh.
MIXED_CELLS = {4: "triangle", 5: "quad", 6: "tetra", 7: "pyramid", 8: "wedge", 9: "hexahedron"}
_POINT, _LINE = 1, 2


class _Grid(NamedTuple):
    """One grid of the file; its mesh may be written elsewhere in the file."""

    time: float
    topology: tuple[str, XdmfItem] | None
    geometry: XdmfItem | None
    fields: dict[str, XdmfItem]
    on_cells: dict[str, XdmfItem]


class XdmfSeries(FrameSeries):
    r"""An XDMF file over time, with its numbers in HDF5, in raw files or in its text.

    Reads what FEniCS, dolfinx and meshio write, several functions in collections of their own, a
    single grid without a collection, and what
    :func:`~pyg_stmamba.data.mesh_files.xdmf_file.write_xdmf` writes.

    Args:
        path (str): The file.

    Raises:
        OSError: If it is not there.
        ValueError: If it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._grids = _grids_by_time(self.path)
        super().__init__(np.array(list(self._grids)), self.path.stem)
        self._mesh: tuple[object, np.ndarray, dict[str, np.ndarray]] | None = None

    def read(self, frame: int) -> Snapshot:
        grids = self._grids[self.times[frame]]
        topology = next((grid.topology for grid in grids if grid.topology), None)
        geometry = next((grid.geometry for grid in grids if grid.geometry), None)
        if topology is None or geometry is None:
            raise ValueError(f"{self.path} has no mesh for {self.where(frame)}")
        # Most files name one mesh for all frames, which then is read once.
        if self._mesh is None or self._mesh[0] != (topology, geometry):
            cells = cells_of(topology[0], read_item(topology[1], self.path), self.path)
            points = np.asarray(read_item(geometry, self.path), dtype=np.float64)
            self._mesh = (topology, geometry), points.reshape(-1, points.shape[-1]), cells
        _, points, cells = self._mesh
        fields = self._arrays([grid.fields for grid in grids])
        # Where cells of several types stand in one array, those of one type are not side by side.
        on_cells = self._arrays([grid.on_cells for grid in grids if len(cells) == 1])
        arrays = {name: [values] for name, values in on_cells.items()}
        return snapshot_of(points, list(cells.items()), fields, arrays)

    def where(self, frame: int) -> str:
        return f"t = {self.times[frame]:g} of {self.path.name}"

    def _arrays(self, items: list[dict[str, XdmfItem]]) -> dict[str, np.ndarray]:
        return {name: read_item(i, self.path) for part in items for name, i in part.items()}


def cells_of(kind: str, numbers: np.ndarray, path: Path) -> dict[str, np.ndarray]:
    r"""Returns cells by type.

    Args:
        kind (str): What XDMF calls them; :obj:`"Mixed"` for several types in one array.
        numbers (numpy.ndarray): Their nodes, :math:`(M, k)`, or for several types one after the
            other, each cell behind the number of its type.
        path (pathlib.Path): The file, for messages.

    Raises:
        ValueError: If a type is unknown, or a mixed array ends within a cell.
    """
    if kind.lower() in XDMF_CELLS:
        return {XDMF_CELLS[kind.lower()]: numbers}
    if kind.lower() != "mixed":
        raise ValueError(
            f"{path} has cells of type {kind!r}; what can be read is Mixed, {', '.join(XDMF_CELLS)}"
        )
    flat = numbers.ravel().tolist()
    cells: dict[str, list[list[int]]] = {}
    place = 0
    while place < len(flat):
        number = flat[place]
        if number in (_POINT, _LINE):
            # Points and lines state how many nodes they have; none has an area.
            place += 2 + (flat[place + 1] if place + 1 < len(flat) else 0)
            continue
        if number not in MIXED_CELLS:
            raise ValueError(
                f"{path} has a cell of the unknown type {number} in a mixed mesh; known are "
                f"{MIXED_CELLS}"
            )
        width = CELL_TYPES[MIXED_CELLS[number]][0]
        cells.setdefault(MIXED_CELLS[number], []).append(flat[place + 1 : place + 1 + width])
        place += 1 + width
    if place != len(flat):
        raise ValueError(f"{path} has a mixed mesh that ends within a cell")
    return {name: np.array(rows, dtype=np.int64) for name, rows in cells.items()}


def _grids_by_time(path: Path) -> dict[float, list[_Grid]]:
    """The grids that together make up each frame, in the order of time."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is not an XDMF file: {error}") from error
    if root.tag != "Xdmf":
        raise ValueError(f"{path} is not an XDMF file: its first element is {root.tag}")
    parser = _Parser(root, path)
    elements = root.findall("Domain/Grid")
    series = [parser.collection(e) for e in elements if e.get("GridType") == "Collection"]
    if not series:
        single = [parser.grid(element) for element in elements]
        # A mesh may stand there by itself, for the fields on it to refer to.
        series = [[grid for grid in single if grid.fields or grid.on_cells] or single]
    frames: dict[float, list[_Grid]] = {}
    for grids in series:
        times = {grid.time for grid in grids}
        if frames and times != frames.keys():
            raise ValueError(
                f"{path} has fields at different times: {len(times)} here, {len(frames)} there"
            )
        for grid in grids:
            frames.setdefault(grid.time, []).append(grid)
    if not frames:
        raise ValueError(f"{path} holds no grid")
    return dict(sorted(frames.items()))


class _Parser:
    """Takes grids from the elements of a file."""

    def __init__(self, root: ElementTree.Element, path: Path) -> None:
        self.root, self.path = root, path

    def collection(self, element: ElementTree.Element) -> list[_Grid]:
        kind = element.get("CollectionType", "Spatial")
        if kind != "Temporal":
            raise ValueError(
                f"{self.path} has a {kind} collection, a mesh in several parts; only Temporal "
                "ones can be read"
            )
        children = element.findall("Grid")
        times = self._times(element.find("Time"), len(children))
        return [self.grid(child, time) for child, time in zip(children, times)]

    def grid(self, element: ElementTree.Element, time: float = 0.0) -> _Grid:
        stamp = element.find("Time")
        if stamp is not None:
            time = self._number(stamp.get("Value", ""))
        topology, geometry = self._part(element, "Topology"), self._part(element, "Geometry")
        fields: dict[str, dict[str, XdmfItem]] = {"Node": {}, "Cell": {}}
        for part in element.findall("Attribute"):
            if part.get("ItemType") == "FiniteElementFunction":
                raise ValueError(
                    f"{self.path} was written by write_checkpoint of FEniCS, which only FEniCS "
                    "reads; use XDMFFile.write instead"
                )
            if (center := part.get("Center", "Node")) in fields:
                fields[center][part.get("Name", "")] = self._item(part)
        return _Grid(
            time,
            None if topology is None else (_kind(topology), self._item(topology)),
            None if geometry is None else self._item(geometry),
            fields["Node"],
            fields["Cell"],
        )

    def _item(self, element: ElementTree.Element) -> XdmfItem:
        return item_of(element.find("DataItem"), self.path)

    def _part(self, element: ElementTree.Element, tag: str) -> ElementTree.Element | None:
        """Topology or geometry of a grid, or of the grid that it points to."""
        for child in element:
            if child.tag == tag:
                return child
            if child.tag.endswith("}include") and tag in child.get("xpointer", tag):
                return self._pointed(child.get("xpointer", "")).find(tag)
        return None

    def _pointed(self, xpointer: str) -> ElementTree.Element:
        # As xpointer(/Xdmf/Domain/Grid[@Name="mesh"][1]/*[self::Topology or self::Geometry])
        found = re.fullmatch(r"xpointer\((//|/Xdmf/)(.*?)(\[(\d+)\])?/\*\[.*\]\)", xpointer)
        grids: list[ElementTree.Element] = []
        if found is not None:
            with suppress(SyntaxError, KeyError):
                grids = self.root.findall((".//" if found[1] == "//" else "") + found[2])
            grids = grids[int(found[4] or 1) - 1 :]
        if not grids:
            raise ValueError(f"{self.path} points to a grid that is not there, by {xpointer!r}")
        return grids[0]

    def _times(self, element: ElementTree.Element | None, count: int) -> list[float]:
        """The times that a collection states for all its grids, else 0, 1, 2, ..."""
        if element is None:
            return [float(frame) for frame in range(count)]
        values = read_item(self._item(element), self.path).ravel().tolist()
        if element.get("TimeType") == "HyperSlab":
            start, step = values[:2]
            values = [start + step * frame for frame in range(count)]
        if len(values) != count:
            raise ValueError(f"{self.path} states {len(values)} times for {count} grids")
        return values

    def _number(self, text: str) -> float:
        try:
            return float(text)
        except ValueError as error:
            raise ValueError(f"{self.path} has the time {text!r}, which is no number") from error


def _kind(topology: ElementTree.Element) -> str:
    return topology.get("TopologyType") or topology.get("Type") or topology.get("Name") or ""
