from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from pyg_stmamba.data.mesh_files.frame_series import FrameSeries
from pyg_stmamba.data.mesh_files.snapshot import Snapshot
from pyg_stmamba.data.mesh_files.vtk_cells import snapshot_of_vtk


class PyvistaSeries(FrameSeries):
    r"""A file that PyVista reads over time, as EnSight and CGNS; a file without times is a single
    frame.

    Args:
        path (str): The file.

    Raises:
        ImportError: If PyVista is not installed.
        ValueError: If PyVista does not know the kind of file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._reader: Any = None
        times = list(getattr(self._opened(), "time_values", None) or [])
        self._timed = bool(times)
        super().__init__(np.array(times or [0.0]), self.path.stem)

    def read(self, frame: int) -> Snapshot:
        reader = self._opened()
        if self._timed:
            reader.set_active_time_value(float(self.times[frame]))
        return snapshot_of_grid(reader.read())

    def where(self, frame: int) -> str:
        return f"t = {self.times[frame]:g} of {self.path.name}"

    def _opened(self) -> Any:
        if self._reader is None:
            pyvista = import_pyvista()
            try:
                self._reader = pyvista.get_reader(str(self.path))
            except ValueError as error:
                raise ValueError(
                    f"{self.path} is of an unknown kind ({error}); what can be read is PVD, VTU, "
                    "PVTU, XDMF, OpenFOAM cases, and other files that pyvista knows"
                ) from error
        return self._reader

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}


def import_pyvista() -> Any:
    r"""Returns the module :obj:`pyvista`, or raises an :class:`ImportError` that says what to
    install."""
    try:
        import pyvista
    except ImportError as error:
        raise ImportError(
            "files of this kind are read through pyvista: pip install 'pyg-stmamba[mesh]'"
        ) from error
    return pyvista


def snapshot_of_grid(grid: Any) -> Snapshot:
    r"""Takes points, cells and arrays from a data set of PyVista, as :func:`snapshot_of_vtk` does.
    Points that are there several times become one.

    Args:
        grid (pyvista.DataSet or pyvista.MultiBlock): The data set.
    """
    if hasattr(grid, "combine"):
        grid = grid.combine()
    grid = grid.cast_to_unstructured_grid()
    points = np.asarray(grid.points)
    # The name of the latter before PyVista 0.49.
    offsets = grid.cell_offsets if hasattr(grid, "cell_offsets") else grid.offset
    return snapshot_of_vtk(
        points,
        np.asarray(grid.cell_connectivity),
        np.asarray(offsets)[:-1],
        np.asarray(grid.celltypes),
        _numbers(grid.point_data),
        _numbers(grid.cell_data),
        merge=len(np.unique(points, axis=0)) < len(points),
    )


def _numbers(data: Any) -> dict[str, np.ndarray]:
    arrays = {name: np.asarray(values) for name, values in data.items()}
    return {name: values for name, values in arrays.items() if values.dtype.kind in "fiu"}
