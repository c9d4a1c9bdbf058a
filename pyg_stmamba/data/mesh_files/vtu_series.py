from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pyg_stmamba.data.mesh_files.frame_series import FrameSeries
from pyg_stmamba.data.mesh_files.pyvista_series import import_pyvista, snapshot_of_grid
from pyg_stmamba.data.mesh_files.snapshot import Snapshot
from pyg_stmamba.data.mesh_files.vtu_reader import read_vtu


class VtuSeries(FrameSeries):
    r"""VTU files, or PVTU files through PyVista, one for each instant.

    Args:
        files (list[str]): The files in order.
        times (numpy.ndarray, optional): Their times. (default: :obj:`None`, 0, 1, 2, ...)
        name (str, optional): What the series is called. (default: :obj:`None`, as the first file
            without its number)

    Raises:
        OSError: If a file is not there.
        ValueError: If there are no files.
    """

    def __init__(
        self,
        files: Sequence[str | os.PathLike[str]],
        times: Sequence[float] | None = None,
        name: str | None = None,
    ) -> None:
        self.files = [Path(file) for file in files]
        if not self.files:
            raise ValueError("a series needs at least one file, got none")
        super().__init__(
            np.arange(len(files), dtype=np.float64) if times is None else np.asarray(times),
            self.files[0].stem.rstrip("0123456789").rstrip("_-.") if name is None else name,
        )
        missing = [file for file in self.files if not file.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of {len(self.files)} files of the series are not there, the first "
                f"is {missing[0]}"
            )

    def read(self, frame: int) -> Snapshot:
        file = self.files[frame]
        if file.suffix == ".pvtu":
            return snapshot_of_grid(import_pyvista().read(file))
        return read_vtu(file)

    def where(self, frame: int) -> str:
        return self.files[frame].name
