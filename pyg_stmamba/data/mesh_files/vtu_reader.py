from __future__ import annotations

import base64
import lzma
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from pyg_stmamba.data.mesh_files.pyvista_series import import_pyvista, snapshot_of_grid
from pyg_stmamba.data.mesh_files.snapshot import Snapshot
from pyg_stmamba.data.mesh_files.vtk_cells import snapshot_of_vtk

_TYPES = {
    **{f"Int{8 * size}": f"i{size}" for size in (1, 2, 4, 8)},
    **{f"UInt{8 * size}": f"u{size}" for size in (1, 2, 4, 8)},
    "Float32": "f4",
    "Float64": "f8",
}
_DECOMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "vtkZLibDataCompressor": zlib.decompress,
    "vtkLZMADataCompressor": lzma.decompress,
}


def read_vtu(path: str | os.PathLike[str]) -> Snapshot:
    r"""Reads a VTU file: text, base64 or raw bytes, in place or appended, also compressed with
    zlib or LZMA, and through PyVista with LZ4. Several pieces are joined where they meet.

    Args:
        path (str): The file.

    Returns:
        Snapshot: Points, cells, and the arrays on them.

    Raises:
        OSError: If the file is not there.
        ValueError: If it is no VTU file, or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    content = path.read_bytes()
    if b"vtkLZ4DataCompressor" in content[:1000]:
        # Python itself cannot decompress it.
        return snapshot_of_grid(import_pyvista().read(path))
    try:
        return _snapshot(content)
    except (
        ElementTree.ParseError,
        LookupError,
        ValueError,
        OverflowError,
        zlib.error,
        lzma.LZMAError,
    ) as error:
        reason = f"{error} is missing or unknown" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is not a VTU file that can be read: {reason}") from error


def _snapshot(content: bytes) -> Snapshot:
    # Raw bytes are no XML, so what is appended is cut off before the rest is parsed.
    head, tag, appended = content.partition(b"<AppendedData")
    root = ElementTree.fromstring(head + b"</VTKFile>" if tag else head)
    if root.tag != "VTKFile" or root.get("type") != "UnstructuredGrid":
        raise ValueError(
            f"expected a VTKFile of type UnstructuredGrid, got a {root.tag} of type "
            f"{root.get('type')}"
        )
    arrays = _Arrays(root, appended)
    pieces = [_piece(piece, arrays) for piece in root.findall("UnstructuredGrid/Piece")]
    if not pieces:
        raise ValueError("it has no Piece")
    if len(pieces) == 1:
        return snapshot_of_vtk(*pieces[0], merge=False)
    points, connectivity, starts, types, on_points, on_cells = zip(*pieces)
    before = np.cumsum([0, *map(len, points)])[:-1]
    places = np.cumsum([0, *map(len, connectivity)])[:-1]
    return snapshot_of_vtk(
        np.concatenate(points),
        np.concatenate([part + shift for part, shift in zip(connectivity, before)]),
        np.concatenate([part + shift for part, shift in zip(starts, places)]),
        np.concatenate(types),
        {name: np.concatenate([part[name] for part in on_points]) for name in on_points[0]},
        {name: np.concatenate([part[name] for part in on_cells]) for name in on_cells[0]},
        merge=True,
    )


Piece = tuple[
    np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]
]


def _piece(piece: ElementTree.Element, arrays: _Arrays) -> Piece:
    points = arrays.group(piece, "Points")
    if len(points) != 1:
        raise ValueError(f"a Piece must have one array of Points, got {len(points)}")
    cells = arrays.group(piece, "Cells")
    offsets = cells["offsets"].astype(np.int64)
    on_points, on_cells = arrays.group(piece, "PointData"), arrays.group(piece, "CellData")
    (pos,) = points.values()
    for name, values in [("Points", pos), *on_points.items()]:
        _check_length(name, values, int(piece.attrib["NumberOfPoints"]))
    for name, values in [("types", cells["types"]), ("offsets", offsets), *on_cells.items()]:
        _check_length(name, values, int(piece.attrib["NumberOfCells"]))
    starts = np.concatenate([[0], offsets])[:-1].astype(np.int64)
    connectivity = cells["connectivity"].astype(np.int64)
    return pos, connectivity, starts, cells["types"], on_points, on_cells


def _check_length(name: str, values: np.ndarray, wanted: int) -> None:
    if len(values) != wanted:
        raise ValueError(f"{name} holds {len(values)} entries instead of {wanted}")


class _Arrays:
    """Decodes the arrays of a file."""

    def __init__(self, root: ElementTree.Element, appended: bytes) -> None:
        self.order = ">" if root.get("byte_order") == "BigEndian" else "<"
        self.header = np.dtype(self.order + _TYPES[root.get("header_type", "UInt32")])
        compressor = root.get("compressor")
        self.decompress = None if compressor is None else _DECOMPRESSORS[compressor]
        attributes, _, content = appended.partition(b">")
        self.raw = b'"raw"' in attributes or b"'raw'" in attributes
        content, end, _ = content.rpartition(b"</AppendedData>")
        if appended and not end:
            raise ValueError("it ends within the appended data")
        # An underscore stands before the first byte.
        self.appended = content.partition(b"_")[2]

    def group(self, piece: ElementTree.Element, tag: str) -> dict[str, np.ndarray]:
        """The arrays of numbers of one part of a piece by name."""
        return {
            element.get("Name", ""): self._array(element)
            for element in piece.findall(f"{tag}/DataArray")
            if element.get("type") in _TYPES
        }

    def _array(self, element: ElementTree.Element) -> np.ndarray:
        form, text = element.get("format", "ascii"), element.text or ""
        dtype = np.dtype(self.order + _TYPES[element.attrib["type"]])
        if form == "ascii":
            values = np.array(text.split(), dtype=dtype)
        elif form == "binary":
            values = np.frombuffer(self._decoded(text.strip().encode(), 0, raw=False), dtype)
        elif form == "appended":
            start = int(element.attrib["offset"])
            values = np.frombuffer(self._decoded(self.appended, start, self.raw), dtype)
        else:
            raise ValueError(f"an array has the unknown format {form!r}")
        components = int(element.get("NumberOfComponents") or 1)
        return values.reshape(-1, components) if components > 1 else values

    def _decoded(self, data: bytes, start: int, raw: bool) -> bytes:
        """The bytes of an array that begins with a header of how many there are."""
        size = self.header.itemsize
        (count,) = np.frombuffer(_taken(data, start, size, raw), self.header).tolist()
        if self.decompress is None:
            width = 4 * -(-size // 3)
            if not raw and data[start + width - 1 : start + width] == b"=":
                # Some programs encode the header by itself.
                return _taken(data, start + width, count, raw)
            return _taken(data, start, size + count, raw)[size:]
        size *= 3 + count
        header = np.frombuffer(_taken(data, start, size, raw), self.header)
        lengths = header[3:].tolist()
        packed = _taken(data, start + (size if raw else 4 * -(-size // 3)), sum(lengths), raw)
        ends = np.cumsum(lengths, dtype=int).tolist()
        return b"".join(
            self.decompress(packed[end - length : end]) for end, length in zip(ends, lengths)
        )


def _taken(data: bytes, start: int, count: int, raw: bool) -> bytes:
    """Some bytes from a place on, of raw or of base64 data."""
    taken = (
        data[start : start + count]
        if raw
        else base64.b64decode(data[start : start + 4 * -(-count // 3)])[:count]
    )
    if len(taken) < count:
        raise ValueError(f"an array ends after {len(taken)} of {count} bytes")
    return taken
