from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.data.mesh_files.hdf5_trajectory import save_trajectory_hdf5
from pyg_stmamba.data.mesh_files.npz_trajectory import save_trajectory_npz
from pyg_stmamba.data.mesh_files.pvd_series import write_pvd
from pyg_stmamba.data.mesh_files.xdmf_file import write_xdmf

WRITERS: dict[str, Callable[[Path, MeshTrajectory, bool], None]] = {
    ".pvd": lambda path, trajectory, progress: write_pvd(path, trajectory, progress=progress),
    ".xdmf": lambda path, trajectory, progress: write_xdmf(path, trajectory, progress=progress),
    ".npz": lambda path, trajectory, progress: save_trajectory_npz(trajectory, path),
    ".h5": lambda path, trajectory, progress: save_trajectory_hdf5(trajectory, path),
}


def write_trajectory(
    path: str | os.PathLike[str], trajectory: MeshTrajectory, *, progress: bool = False
) -> None:
    r"""Writes a trajectory as what the ending of the file says: :obj:`.pvd` and :obj:`.xdmf` for
    ParaView, :obj:`.npz` and :obj:`.h5` for this package, which keep all that it holds.

    Args:
        path (str): The file.
        trajectory (MeshTrajectory): What to write.
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`False`)

    Raises:
        ValueError: If the ending is unknown.
    """
    path = Path(path)
    if path.suffix not in WRITERS:
        raise ValueError(f"cannot write {path}: its ending must be one of {', '.join(WRITERS)}")
    WRITERS[path.suffix](path, trajectory, progress)
