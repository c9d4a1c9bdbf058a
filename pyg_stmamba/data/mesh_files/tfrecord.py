from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pyg_stmamba.data.mesh_files.crc32c import masked_crc32c
from pyg_stmamba.data.whole_file import written_whole

LENGTH = struct.Struct("<Q")
CHECKSUM = struct.Struct("<I")


class TFRecordFile:
    r"""The records of a TFRecord file, in any order, with their checksums tested.

    A record is the length of its data (8 bytes), the checksum of the length (4), the data, and the
    checksum of the data (4). The places of all records are found in one pass that leaves the data
    out. A record is mapped into memory, not copied; objects that are pickled to other processes
    work there.

    .. code-block:: python

        records = TFRecordFile("train.tfrecord")
        features = decode_example(records[3])

    Args:
        path (str): The file, not compressed.
        places (numpy.ndarray, optional): The :obj:`places` of an earlier object of the same file,
            which spare the pass. (default: :obj:`None`)

    Shapes:
        - **places:** :math:`(R, 2)`, int64, where the data of each record begin and their length

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is cut off or damaged; the message names the record and the byte.
    """

    def __init__(self, path: str | os.PathLike[str], places: np.ndarray | None = None) -> None:
        self.path = Path(path).absolute()
        if not self.path.is_file():
            raise FileNotFoundError(f"no file {self.path}")
        if places is None:
            places = np.array(list(_record_places(self.path)), dtype=np.int64).reshape(-1, 2)
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> np.ndarray:
        record = self.mapped(index)
        start = int(self.places[index, 0])
        with self.path.open("rb") as file:
            file.seek(start + len(record))
            (checksum,) = CHECKSUM.unpack(file.read(CHECKSUM.size))
        if masked_crc32c(record) != checksum:
            raise ValueError(
                f"{self.path}: record {index} is damaged: the data from byte {start} to "
                f"{start + len(record) - 1} do not have their checksum"
            )
        return record

    def mapped(self, index: int) -> np.ndarray:
        r"""Returns a record as :obj:`records[index]` does, but without a test of its checksum.

        Args:
            index (int): Which record.

        Shapes:
            - **output:** :math:`(L)`, uint8
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.path} has {len(self)} records, asked for was {index}")
        start, length = map(int, self.places[index])
        return np.memmap(self.path, np.uint8, "r", start, (length,))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} records, {str(self.path)!r})"


def write_tfrecord(path: str | os.PathLike[str], records: Iterable[Any]) -> None:
    r"""Writes records to a TFRecord file, which gets its name only when it is whole.

    Args:
        path (str): The file.
        records (iterable of bytes): The data of each record, :class:`bytes` or any other
            contiguous buffer.
    """
    with written_whole(path) as temporary, temporary.open("wb") as file:
        for record in records:
            data = np.frombuffer(record, dtype=np.uint8)
            length = LENGTH.pack(len(data))
            file.write(length + CHECKSUM.pack(masked_crc32c(length)))
            file.write(data.data)
            file.write(CHECKSUM.pack(masked_crc32c(data)))


def _record_places(path: Path) -> Iterator[tuple[int, int]]:
    size, byte, number = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while byte < size:
            file.seek(byte)
            header = file.read(LENGTH.size + CHECKSUM.size)
            if len(header) < LENGTH.size + CHECKSUM.size:
                raise _cut_off(path, number, byte, size, "its length and checksum")
            length, checksum = header[: LENGTH.size], header[LENGTH.size :]
            if CHECKSUM.pack(masked_crc32c(length)) != checksum:
                hint = "" if number else "; is it a TFRecord file, and not compressed?"
                raise ValueError(
                    f"{path}: record {number} is damaged: its length at byte {byte} does not have "
                    f"its checksum{hint}"
                )
            start = byte + len(header)
            (count,) = LENGTH.unpack(length)
            byte = start + count + CHECKSUM.size
            if byte > size:
                raise _cut_off(path, number, start, size, f"{count} bytes of data and a checksum")
            yield start, count
            number += 1


def _cut_off(path: Path, number: int, byte: int, size: int, what: str) -> ValueError:
    return ValueError(
        f"{path} is cut off: record {number} should have {what} from byte {byte} on, but the file "
        f"ends at byte {size}"
    )
