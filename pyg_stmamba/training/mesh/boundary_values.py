from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyg_stmamba.data.mesh import MeshTrajectory

BOUNDARY_RULES = ("held", "data")

# Values at all nodes of one simulation at a time, [N, S]; only those at its borders are read.
Prescribed = Callable[[float], Any]


class BoundaryValues:
    r"""What the state is at the nodes where a model does not predict it, step by step.

    Args:
        rule (str or Callable or numpy.ndarray): :obj:`"held"`: what it was in the last frame
            that was given, as MeshGraphNets has it; :obj:`"data"`: what the simulation has at
            that time; a function of time, or an array with an entry for each step: those values.
        trajectory (MeshTrajectory): The simulation.
        state (Sequence[str]): The fields of the state.
        first (int): The frame that the first step predicts.
        steps (int): How many steps there will be.

    Shapes:
        - **function:** a time to :math:`(|\mathcal{V}|, S)`
        - **array:** :math:`(K, |\mathcal{V}|, S)` for :math:`K` steps

    Raises:
        ValueError: If the rule is unknown, or there are fewer values than steps.
    """

    def __init__(
        self,
        rule: str | Prescribed | np.ndarray,
        trajectory: MeshTrajectory,
        state: Sequence[str],
        first: int,
        steps: int,
    ) -> None:
        if isinstance(rule, str) and rule not in BOUNDARY_RULES:
            choices = ", ".join(map(repr, BOUNDARY_RULES))
            raise ValueError(
                f"boundary={rule!r} is unknown; choose from {choices}, or give values: a function "
                "of time, or an array [steps, N, S]"
            )
        self.rule, self.first, self.steps = rule, first, steps
        self._trajectory, self._state = trajectory, list(state)
        if isinstance(rule, np.ndarray):
            self._check_array(rule)
        elif rule == "data":
            self._check_data()

    def at(self, step: int, last: Tensor) -> Tensor:
        r"""Returns the values at all nodes in a step, of which those at the borders count.

        Args:
            step (int): The step, counted from zero.
            last (torch.Tensor): The last state that was given.

        Shapes:
            - **input:** :math:`(|\mathcal{V}|, S)`
            - **output:** :math:`(|\mathcal{V}|, S)`
        """
        if isinstance(self.rule, str) and self.rule == "held":
            return last
        values = np.asarray(self._values(step), dtype=np.float32)
        if values.shape != last.shape:
            raise ValueError(
                f"prescribed boundary values must be [N, S] = {list(last.shape)} at each step, "
                f"got {list(values.shape)}"
            )
        return torch.from_numpy(values).to(last.device)

    def _values(self, step: int) -> Any:
        if isinstance(self.rule, np.ndarray):
            return self.rule[step]
        frame = self.first + step
        if callable(self.rule):
            return self.rule(time_of_frame(self._trajectory, frame))
        return self._trajectory.frames(self._state, frame, frame + 1)[:, 0]

    def _check_array(self, values: np.ndarray) -> None:
        nodes = self._trajectory.num_nodes
        if values.ndim != 3 or values.shape[1] != nodes:
            raise ValueError(
                f"prescribed boundary values must be [steps, {nodes}, S], got {list(values.shape)}"
            )
        if len(values) < self.steps:
            raise ValueError(
                f"boundary values are prescribed for {len(values)} steps, fewer than the "
                f"{self.steps} of the rollout; roll out at most {len(values)} steps"
            )

    def _check_data(self) -> None:
        there = self._trajectory.num_frames - self.first
        if there < self.steps:
            raise ValueError(
                f"boundary='data' has values for {max(there, 0)} steps, fewer than the "
                f"{self.steps} of the rollout; roll out at most {max(there, 0)} steps, or hold the "
                "boundary with boundary='held'"
            )


def time_of_frame(trajectory: MeshTrajectory, frame: int) -> float:
    r"""Returns the time of a frame, also of one after the last.

    Args:
        trajectory (MeshTrajectory): The simulation.
        frame (int): The frame, counted from zero.
    """
    beyond = frame - (trajectory.num_frames - 1)
    if beyond <= 0:
        return float(trajectory.times[frame])
    return float(trajectory.times[-1]) + beyond * trajectory.time_step
