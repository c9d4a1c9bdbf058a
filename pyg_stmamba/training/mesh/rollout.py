from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from copy import copy
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from tqdm import tqdm

from pyg_stmamba.data.mesh import MeshTrajectory
from pyg_stmamba.models.mesh_model import MeshModel

from .boundary_values import BoundaryValues, Prescribed, time_of_frame
from .simulator import Simulator, check_simulator_fits


class Rollout(NamedTuple):
    r"""What :func:`roll_out` returns.

    Args:
        trajectory (MeshTrajectory): The predicted frames, state and outputs, with the mesh and
            their times. It has no frame where the first step diverged.
        diverged_at (int, optional): The step, counted from one, at which the prediction left all
            bounds; the frames from there on are missing. (default: :obj:`None`)
        message (str): What happened then, empty otherwise.
        step_seconds (numpy.ndarray): How long each step took.
    """

    trajectory: MeshTrajectory
    diverged_at: int | None
    message: str
    step_seconds: np.ndarray


@torch.no_grad()
def roll_out(
    simulator: Simulator,
    trajectory: MeshTrajectory,
    *,
    start: int = 0,
    steps: int | None = None,
    warm_up: int | None = None,
    boundary: str | Prescribed | np.ndarray = "held",
    device: str | torch.device = "cpu",
    limit: float = 30.0,
    progress: bool = False,
) -> Rollout:
    r"""Lets a surrogate go on by itself from some frames of a simulation, over any number of
    steps.

    It reads :obj:`warm_up` frames, then each of its own predictions. At the nodes where it does
    not predict, the state is imposed anew at each step by the rule :obj:`boundary`. A model with
    a temporal operator of constant state carries that state on, so that a step costs the same
    however long the rollout is; others read the last :obj:`warm_up` frames at each step.

    .. code-block:: python

        rollout = roll_out(simulator, trajectory, boundary="data")
        write_pvd("prediction.pvd", rollout.trajectory)

    Args:
        simulator (Simulator): The trained surrogate.
        trajectory (MeshTrajectory): The simulation.
        start (int, optional): The first frame that is read. (default: :obj:`0`)
        steps (int, optional): How many frames to predict. (default: :obj:`None`, up to the last
            one of the simulation)
        warm_up (int, optional): How many frames are read.
            (default: :obj:`None`, the history of training)
        boundary (str or Callable or numpy.ndarray, optional): How the state at the borders goes
            on: :obj:`"held"` as it was in the last frame read, :obj:`"data"` as the simulation
            has it, or prescribed: a function of time or an array :math:`(K, |\mathcal{V}|, S)`,
            see :class:`BoundaryValues`. (default: :obj:`"held"`)
        device (str or torch.device, optional): Where the model runs. (default: :obj:`"cpu"`)
        limit (float, optional): The rollout ends with a message where the state is further than
            this many standard deviations of the training data from their mean, or no number.
            (default: :obj:`30.0`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`False`)

    Raises:
        ValueError: If the surrogate does not fit the simulation, or there are fewer frames than
            are read, or fewer boundary values than steps.
    """
    model, protocol, _ = simulator
    check_simulator_fits(simulator, trajectory)
    warm_up = protocol.history if warm_up is None else warm_up
    first = start + warm_up
    steps = trajectory.num_frames - first if steps is None else steps
    if warm_up < 1 or steps < 1 or start < 0 or first > trajectory.num_frames:
        raise ValueError(
            f"a rollout from frame {start} on reads {warm_up} frames and predicts {steps}; the "
            f"simulation has {trajectory.num_frames} frames"
        )
    values = BoundaryValues(boundary, trajectory, protocol.state, first, steps)
    was_training = model.training
    model.to(torch.device(device)).eval()
    graph = Batch.from_data_list([protocol.graph(trajectory)]).to(device)
    graph.start = torch.tensor([trajectory.first_frame + start], device=device)
    given = torch.from_numpy(trajectory.frames(protocol.state, start, first)).to(device)
    if protocol.outputs and all(name in trajectory.fields for name in protocol.outputs):
        last = trajectory.frames(protocol.outputs, first - 1, first)[:, 0]
        graph.outputs = torch.from_numpy(last).to(device)
    path = predicted_frames(model, graph, given, values.at)
    kept: list[np.ndarray] = []
    seconds: list[float] = []
    distance = 0.0
    bar = tqdm(range(steps), desc="rollout", disable=not progress, leave=False)
    for _ in bar:
        started = time.perf_counter()
        frame = next(path)
        distance = deviations(model, frame)
        seconds.append(time.perf_counter() - started)
        if not distance <= limit:
            break
        kept.append(frame.cpu().numpy())
    bar.close()
    model.train(was_training)
    diverged_at = None if len(kept) == steps else len(kept) + 1
    return Rollout(
        _as_trajectory(simulator, trajectory, first, kept),
        diverged_at,
        "" if diverged_at is None else _diverged(diverged_at, distance, limit),
        np.array(seconds),
    )


def predicted_frames(
    model: MeshModel, graph: Data, given: Tensor, boundary: Callable[[int, Tensor], Tensor]
) -> Iterator[Tensor]:
    r"""Yields one frame after the other, each predicted from those before it, without end.

    Args:
        model (MeshModel): The model.
        graph (Data): The meshes, see :func:`~pyg_stmamba.data.mesh.mesh_graph`.
        given (torch.Tensor): The frames to start from.
        boundary (Callable): Takes the number of a step and the last state that was given and
            returns the state at all nodes, of which that at the nodes that are not predicted
            counts.

    Shapes:
        - **given:** :math:`(|\mathcal{V}|, W, S)`
        - **output:** :math:`(|\mathcal{V}|, S + O)` each
    """
    predicted = graph.predicted.unsqueeze(-1)
    prediction, carried = model.prefill(given, graph)
    prediction = prediction[:, -1]
    last, start, channels = given[:, -1], graph.start, given.size(-1)
    for step in count():
        state = torch.where(predicted, prediction[:, :channels], boundary(step, last))
        yield torch.cat([state, prediction[:, channels:]], dim=-1)
        if model.streams:
            prediction, carried = model.step(state, graph, carried)
        else:
            given = torch.cat([given[:, 1:], state.unsqueeze(1)], dim=1)
            graph = copy(graph)
            graph.start = start + step + 1
            prediction = model.prefill(given, graph)[0][:, -1]


def deviations(model: MeshModel, frame: Tensor) -> float:
    r"""Returns how many standard deviations of the training data a state is away from their mean
    where it is farthest; not-a-number where it is not finite.

    Args:
        model (MeshModel): The model, whose scaler knows the training data.
        frame (torch.Tensor): The state, further channels may follow.

    Shapes:
        - **input:** :math:`(|\mathcal{V}|, S + O)`
    """
    return float(model.state_scaler(frame[:, : model.state_channels]).abs().max())


def _diverged(step: int, distance: float, limit: float) -> str:
    away = f"{distance:.3g} standard deviations" if np.isfinite(distance) else "infinitely far"
    return (
        f"the rollout diverged at step {step}: its state is {away} away from the mean of the "
        f"training data (limit {limit:g}); {step - 1} frames are kept"
    )


def _as_trajectory(
    simulator: Simulator, truth: MeshTrajectory, first: int, frames: list[np.ndarray]
) -> MeshTrajectory:
    model = simulator.model
    values = np.stack(frames) if frames else _no_frames(model, truth)
    fields: dict[str, Any] = {}
    place = 0
    for name, channels in {**model.state, **model.outputs}.items():
        fields[name] = values[..., place : place + channels]
        place += channels
    times = [time_of_frame(truth, first + step) for step in range(len(frames))]
    return MeshTrajectory(
        truth.mesh,
        fields,
        np.array(times),
        static=truth.static,
        parameters=truth.parameters,
        units={**simulator.facts["units"], **truth.units},
        name=truth.name,
    )


def _no_frames(model: MeshModel, truth: MeshTrajectory) -> np.ndarray:
    channels = model.state_channels + model.output_channels
    return np.zeros((0, truth.num_nodes, channels), dtype=np.float32)
