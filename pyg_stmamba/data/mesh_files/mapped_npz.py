from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from pyg_stmamba.data.mesh.trajectory import Frames
from pyg_stmamba.data.mesh_files.mapped_array import MappedArray
from pyg_stmamba.data.whole_file import written_whole

BYTES_AT_ONCE = 1 << 22
LOCAL_HEADER = struct.Struct("<4s22xHH")
NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class MappedNpz(Mapping[str, "MappedArray | np.ndarray"]):
    r"""The arrays of an :obj:`.npz` file, mapped into memory where they lie there as they are.

    Members of files written with :func:`numpy.savez` come as :class:`MappedArray`; compressed
    ones, as :func:`numpy.savez_compressed` writes them, are read whole at each access. Checksums
    are tested of what is read whole only.

    .. code-block:: python

        velocity = MappedNpz("trajectory.npz")["velocity"][100:110]

    Args:
        path (str): The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or an array holds Python objects.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"no file {self.path}")
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, EOFError, ValueError) as error:
            raise self._damaged(error) from error
        self._members = {info.filename.removesuffix(".npy"): info for info in members}

    def __getitem__(self, key: str) -> MappedArray | np.ndarray:
        info = self._members[key]
        try:
            mapped = self._mapped(info) if info.compress_type == zipfile.ZIP_STORED else None
            return self._read(info) if mapped is None else mapped
        except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError) as error:
            raise self._damaged(error) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def _mapped(self, info: zipfile.ZipInfo) -> MappedArray | None:
        with self.path.open("rb") as file:
            file.seek(info.header_offset)
            magic, name, extra = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
            start = info.header_offset + LOCAL_HEADER.size + name + extra
            file.seek(start)
            if magic != b"PK\3\4":
                raise zipfile.BadZipFile(f"there is no member {info.filename} where it should be")
            read_header = NPY_HEADERS.get(np.lib.format.read_magic(file))
            if read_header is None:
                return None
            shape, fortran, dtype = read_header(file)
            offset = file.tell()
        size = int(np.prod(shape)) * dtype.itemsize
        # An empty array cannot be mapped, and frames of one that is in columns are not together.
        if size == 0 or dtype.hasobject or (fortran and len(shape) > 1):
            return None
        if offset - start + size != info.file_size:
            raise ValueError(f"{info.filename} has {info.file_size} bytes, not those of {shape}")
        return MappedArray(self.path, offset, shape, dtype)

    def _read(self, info: zipfile.ZipInfo) -> np.ndarray:
        with zipfile.ZipFile(self.path) as archive, archive.open(info) as member:
            values = np.lib.format.read_array(member, allow_pickle=False)
            member.read()  # the checksum is tested at the end
        return values

    def _damaged(self, error: Exception) -> ValueError:
        return ValueError(
            f"{self.path} cannot be read as an .npz file of plain arrays: {error}. It is damaged, "
            "cut off, or holds Python objects, which are refused because they can run code"
        )


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray | Frames]) -> None:
    r"""Writes arrays as :func:`numpy.savez` does, fields a few frames at a time.

    The same arrays give the same bytes. The file gets its name only when it is whole.

    Args:
        path (str): The file.
        arrays (dict[str, numpy.ndarray or Frames]): The arrays by name.
    """
    with written_whole(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for key, values in arrays.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
                _write_array(file, values)


def _write_array(file: IO[bytes], values: np.ndarray | Frames) -> None:
    if isinstance(values, np.ndarray):
        np.lib.format.write_array(file, np.asarray(values, order="C"), allow_pickle=False)
        return
    dtype = np.asarray(values[:1]).dtype
    shape = tuple(map(int, values.shape))
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for part in frame_parts(values, dtype):
        file.write(part.tobytes())


def frame_parts(values: Frames, dtype: np.dtype) -> Iterator[np.ndarray]:
    r"""Reads a field a few megabytes at a time."""
    count, *frame = map(int, values.shape)
    step = max(1, BYTES_AT_ONCE // max(1, int(np.prod(frame)) * dtype.itemsize))
    for start in range(0, count, step):
        yield np.asarray(values[start : min(start + step, count)], dtype=dtype)
