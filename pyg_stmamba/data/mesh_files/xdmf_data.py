from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

FORMATS = ("HDF", "Binary", "XML")
_KINDS = {"float": "f", "int": "i", "uint": "u", "char": "i", "uchar": "u"}


class XdmfItem(NamedTuple):
    r"""An array that an XDMF file describes, not yet read.

    Args:
        dimensions: Its shape.
        format: Where it is, one of :obj:`FORMATS`.
        dtype: The type of its numbers where they are not in HDF5, in the notation of NumPy.
        text: The numbers themselves, or the file, for HDF5 with the data set behind a colon.
        seek: How many bytes of a binary file come before it.
    """

    dimensions: tuple[int, ...]
    format: str
    dtype: str
    text: str
    seek: int


def item_of(element: ElementTree.Element | None, path: Path) -> XdmfItem:
    r"""Returns what a :obj:`DataItem` describes.

    Args:
        element (xml.etree.ElementTree.Element, optional): The element, or none.
        path (pathlib.Path): The XDMF file, for messages.

    Raises:
        ValueError: If it is not there, or of a kind that cannot be read.
    """
    if element is None:
        raise ValueError(f"{path} describes an array without a DataItem")
    kind, form = element.get("ItemType", "Uniform"), element.get("Format", "XML")
    if kind != "Uniform" or form not in FORMATS or element.get("Reference") is not None:
        raise ValueError(
            f"{path} describes an array by a DataItem of type {kind} and format {form}; what can "
            f"be read is the type Uniform and the formats {', '.join(FORMATS)}, no references"
        )
    number = element.get("NumberType") or element.get("DataType") or "Float"
    width = {"char": "1", "uchar": "1"}.get(number.lower(), element.get("Precision", "4"))
    order = ">" if element.get("Endian", "Little").lower() == "big" else "<"
    try:
        dtype = np.dtype(f"{order}{_KINDS[number.lower()]}{width}").str
        dimensions = tuple(int(size) for size in element.get("Dimensions", "").split())
        seek = int(element.get("Seek", "0"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} describes an array by a DataItem that cannot be understood: {element.attrib}"
        ) from error
    return XdmfItem(dimensions, form, dtype, (element.text or "").strip(), seek)


def read_item(item: XdmfItem, path: Path) -> np.ndarray:
    r"""Reads the array that an XDMF file describes.

    Args:
        item (XdmfItem): What it describes.
        path (pathlib.Path): The XDMF file, beside which the others lie.

    Raises:
        OSError: If the file with the numbers is not there.
        ValueError: If the numbers cannot be read, or are not as many as described.
    """
    if item.format == "HDF":
        values = _read_hdf(item, path)
    elif item.format == "Binary":
        count = int(np.prod(item.dimensions, dtype=np.int64))
        values = np.fromfile(
            _beside(path, item.text), dtype=item.dtype, count=count, offset=item.seek
        )
    else:
        try:
            values = np.array(item.text.split(), dtype=item.dtype)
        except ValueError as error:
            raise ValueError(f"{path} holds an array that is not of numbers: {error}") from error
    if values.size != np.prod(item.dimensions, dtype=np.int64):
        raise ValueError(
            f"{path} describes an array of shape {list(item.dimensions)}, but {item.text[:80]!r} "
            f"holds {values.size} numbers"
        )
    return values.reshape(item.dimensions)


def _read_hdf(item: XdmfItem, path: Path) -> np.ndarray:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f"the data of {path} are in HDF5 and need h5py: pip install 'pyg-stmamba[train]'"
        ) from error
    name, _, place = item.text.rpartition(":")
    # The file is opened for every array: an open one cannot be sent to a worker.
    with h5py.File(_beside(path, name), "r") as file:
        found: Any = file.get(place)
        if not isinstance(found, h5py.Dataset):
            raise ValueError(f"{path} names the data set {place}, which is not in {name}")
        return np.asarray(found[()])


def _beside(path: Path, name: str) -> Path:
    file = path.parent / name
    if not file.is_file():
        raise FileNotFoundError(f"{path} names the file {file}, which is not there")
    return file
