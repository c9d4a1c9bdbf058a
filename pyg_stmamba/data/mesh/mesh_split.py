from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from pyg_stmamba.data.mesh.trajectory import MeshTrajectory


class MeshSplit(NamedTuple):
    r"""Simulations to train on, to choose by, and to test with.

    Args:
        train (Sequence[MeshTrajectory]): For training, and for all that is fitted.
        val (Sequence[MeshTrajectory]): By which the best epoch is chosen.
        test (Sequence[MeshTrajectory]): For the errors that are reported.
    """

    train: Sequence[MeshTrajectory]
    val: Sequence[MeshTrajectory]
    test: Sequence[MeshTrajectory]


def split_trajectories(
    trajectories: Sequence[MeshTrajectory],
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
) -> MeshSplit:
    r"""Splits simulations for training, validation and test: three or more by simulation, in
    their order; fewer within each of them by time, the last frames for the test.

    Args:
        trajectories (Sequence[MeshTrajectory]): The simulations.
        fractions (Sequence[float], optional): Parts of training, validation and test; they add
            up to 1. (default: :obj:`(0.7, 0.1, 0.2)`)

    Raises:
        ValueError: If the parts do not add up to 1, or one of them would have fewer than two
            frames.
    """
    if (
        len(fractions) != 3
        or any(not 0 < part < 1 for part in fractions)
        or not math.isclose(sum(fractions), 1, abs_tol=1e-6)
    ):
        raise ValueError(
            "fractions must be three numbers between 0 and 1 (training, validation, test) that "
            f"add up to 1, got {tuple(fractions)}"
        )
    if not trajectories:
        raise ValueError("there is no trajectory to split")
    if len(trajectories) >= 3:
        first, last = _borders(len(trajectories), fractions)
        return MeshSplit(trajectories[:first], trajectories[first:last], trajectories[last:])
    parts: tuple[list[MeshTrajectory], ...] = ([], [], [])
    for trajectory in trajectories:
        first, last = _borders(trajectory.num_frames, fractions)
        borders = [(0, first), (first, last), (last, trajectory.num_frames)]
        if any(stop - start < 2 for start, stop in borders):
            raise ValueError(
                f"{trajectory.num_frames} frames are too few to be split in time by "
                f"{tuple(fractions)}: each part needs two or more"
            )
        for part, (start, stop) in zip(parts, borders):
            part.append(trajectory.between(start, stop))
    return MeshSplit(*parts)


def _borders(count: int, fractions: Sequence[float]) -> tuple[int, int]:
    """Where validation and test begin; each part gets at least one."""
    last = min(max(count - round(fractions[2] * count), 2), count - 1)
    first = min(max(last - round(fractions[1] * count), 1), last - 1)
    return first, last
