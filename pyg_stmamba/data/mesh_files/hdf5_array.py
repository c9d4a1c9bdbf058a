from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pyg_stmamba.data.mesh_files.file_stamp import file_stamp


class HDF5Array:
    r"""An array in an HDF5 file, of which only what is asked for is read.

    The file is opened at the first access, anew in every process, so copies that are pickled to
    loader workers are a few bytes, and those that were open before a fork work after it.

    Args:
        path (str): The file.
        key (str): The name of the array in it.

    Raises:
        ValueError: At an access, if the file has changed since or is damaged there.
    """

    def __init__(self, path: str | os.PathLike[str], key: str) -> None:
        self.path, self.key = Path(path).absolute(), key
        self._stamp = file_stamp(self.path)
        dataset = self._dataset()
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype: np.dtype = dataset.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        try:
            return self._dataset()[key]
        except OSError as error:
            raise ValueError(f"{self.path} is damaged at {self.key}: {error}") from error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[()], dtype=dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.shape)}, {self.dtype}, {str(self.path)!r})"

    def _dataset(self) -> Any:
        return _opened(self.path, self._stamp, os.getpid())[self.key]


def import_h5py() -> ModuleType:
    r"""Imports h5py, or says how to install it."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError("HDF5 files need h5py: pip install 'pyg-stmamba[train]'") from error
    return h5py


@lru_cache(maxsize=64)
def _opened(path: Path, stamp: tuple[int, int], process: int) -> Any:
    # The process is asked for because an open file must not be shared with a forked one.
    if file_stamp(path) != stamp:
        raise ValueError(f"{path} has changed since it was opened; open it again")
    return import_h5py().File(path, "r")
