from __future__ import annotations

import numpy as np

from pyg_stmamba.data.mesh.trajectory import MeshTrajectory


def matching_frames(times: np.ndarray, trajectory: MeshTrajectory) -> np.ndarray:
    r"""Finds the frame of a trajectory at each of some times, up to a thousandth of its time step
    and what single precision makes of the times in a file.

    Args:
        times (numpy.ndarray): The times.
        trajectory (MeshTrajectory): The trajectory.

    Returns:
        numpy.ndarray: The frames :math:`(T)`, int64; -1 where there is none at that time.
    """
    times = np.asarray(times, dtype=np.float64)
    tolerance = 1e-3 * trajectory.time_step + 1e-6 * np.abs(trajectory.times).max()
    last = trajectory.num_frames - 1
    after = np.searchsorted(trajectory.times, times).clip(0, last)
    before = (after - 1).clip(0)
    earlier = np.abs(trajectory.times[before] - times) < np.abs(trajectory.times[after] - times)
    frames = np.where(earlier, before, after)
    return np.where(np.abs(trajectory.times[frames] - times) <= tolerance, frames, -1)
