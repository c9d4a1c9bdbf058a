from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from pyg_stmamba.data.mesh_files.file_stamp import file_stamp


class MappedArray:
    r"""An array in a file, of which only what is asked for is read.

    The file is mapped into memory at the first access, anew in every process, so pickled copies
    are a few bytes and all processes share one copy of the file in memory. What is read is a copy
    that can be written to.

    Args:
        path (str): The file.
        offset (int): Where in the file the values begin.
        shape (tuple[int, ...]): The shape, the last dimension closest together.
        dtype (numpy.dtype): The type of the values.

    Raises:
        ValueError: At an access, if the file has changed since.
    """

    def __init__(
        self, path: str | os.PathLike[str], offset: int, shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self.path = Path(path).absolute()
        self.offset = offset
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self._stamp = file_stamp(self.path)
        self._map: np.ndarray | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        if self._map is None:
            if file_stamp(self.path) != self._stamp:
                raise ValueError(f"{self.path} has changed since it was opened; open it again")
            self._map = np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
        return np.array(self._map[key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype=dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.shape)}, {self.dtype}, {str(self.path)!r})"
