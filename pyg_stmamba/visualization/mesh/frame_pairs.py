"""Which frames of a prediction and of the truth belong together."""

import numpy as np

from pyg_stmamba.data.mesh.matching_frames import matching_frames
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory


def frame_pairs(prediction: MeshTrajectory, truth: MeshTrajectory) -> np.ndarray:
    r"""The frames of the prediction at whose times there is a truth, and those of the truth.

    Args:
        prediction: The prediction.
        truth: The truth.

    Shapes:
        - **output:** :math:`(P, 2)` for :math:`P` pairs, one or more

    Raises:
        ValueError: If the two have different meshes or no time in common.
    """
    if prediction.num_nodes != truth.num_nodes:
        raise ValueError(
            f"prediction and truth must lie on one mesh, got {prediction.num_nodes} and "
            f"{truth.num_nodes} nodes"
        )
    frames = matching_frames(prediction.times, truth)
    found = np.flatnonzero(frames >= 0)
    if len(found) == 0:
        raise ValueError(
            "the prediction has no frame at the time of one of the truth, whose times are "
            f"t = {truth.times[0]:g} to {truth.times[-1]:g}"
        )
    return np.stack([found, frames[found]], axis=1)


def one_frame(trajectory: MeshTrajectory, field: str, number: int) -> np.ndarray:
    r"""Reads one frame, which may hold what is not finite: a rollout that diverged does.

    Args:
        trajectory: The trajectory.
        field: Which field.
        number: Which frame.

    Shapes:
        - **output:** :math:`(N, C)`, float64
    """
    return np.asarray(trajectory.field(field)[number : number + 1], dtype=float)[0]
