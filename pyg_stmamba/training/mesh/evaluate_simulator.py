from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from pyg_stmamba.data.mesh import MeshTrajectory
from pyg_stmamba.models.mesh_persistence import MeshPersistence

from .boundary_values import Prescribed
from .rollout import Rollout, roll_out
from .rollout_errors import HORIZONS, RolloutErrors, measure_rollout
from .rollout_table import Scores, rollout_arrays, rollout_scores, rollout_summaries
from .simulator import Simulator

# Frames that go through a model at once where all of them are given.
CHUNK = 50


class SimulatorEvaluation(NamedTuple):
    r"""What :func:`evaluate_simulator` returns.

    Args:
        test (dict): The errors of the surrogate by metric and horizon, see
            :func:`~pyg_stmamba.training.mesh.rollout_table.rollout_scores`, and under
            :obj:`"one_step_rmse"` the error of single steps from true frames, over all frames.
        baselines (dict): The same of the baselines.
        rollouts (list[dict]): What happened in each rollout.
        arrays (dict[str, numpy.ndarray]): The errors of each step, for pictures.
        kept (list[tuple[Rollout, MeshTrajectory]]): The first rollouts and their truths.
    """

    test: Scores
    baselines: dict[str, Scores]
    rollouts: list[dict[str, Any]]
    arrays: dict[str, np.ndarray]
    kept: list[tuple[Rollout, MeshTrajectory]]


def evaluate_simulator(
    simulator: Simulator,
    trajectories: Sequence[MeshTrajectory],
    *,
    steps: int | None = None,
    warm_up: int | None = None,
    boundary: str | Prescribed | np.ndarray = "held",
    horizons: Sequence[int | None] = HORIZONS,
    cumulative: bool = True,
    nodes: Sequence[str] | None = (),
    rivals: Mapping[str, Simulator] | None = None,
    persistence: bool = True,
    keep: int = 1,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> SimulatorEvaluation:
    r"""Rolls a surrogate out over whole simulations and measures it beside rivals on the same
    frames.

    Args:
        simulator (Simulator): The surrogate.
        trajectories (Sequence[MeshTrajectory]): The simulations.
        steps (int, optional): How many frames to predict. (default: :obj:`None`, all)
        warm_up (int, optional): How many frames all of them read first.
            (default: :obj:`None`, the longest history among them)
        boundary (str or Callable or numpy.ndarray, optional): How the state at the borders goes
            on, see :func:`roll_out`. (default: :obj:`"held"`)
        horizons (Sequence[int], optional): Steps over which errors are taken, :obj:`None` for
            all. (default: :obj:`(1, 10, 50, 100, None)`)
        cumulative (bool, optional): Whether the error at a horizon is that over all steps up to
            it or that of its last step. (default: :obj:`True`)
        nodes (Sequence[str], optional): The types of the nodes that count; :obj:`None` for all.
            (default: those where the surrogate predicts)
        rivals (dict[str, Simulator], optional): Other surrogates. (default: :obj:`None`)
        persistence (bool, optional): Whether the last frame is a rival too.
            (default: :obj:`True`)
        keep (int, optional): How many rollouts are returned. (default: :obj:`1`)
        device (str or torch.device, optional): Where models run. (default: :obj:`"cpu"`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`False`)
    """
    protocol = simulator.protocol
    methods = {"model": simulator, **(rivals or {})}
    if persistence:
        methods["persistence"] = persistence_of(simulator)
    if warm_up is None:
        warm_up = max(method.protocol.history for method in methods.values())
    counted = protocol.predicted_types if nodes == () else nodes
    errors: dict[str, list[RolloutErrors]] = {name: [] for name in methods}
    squares: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    kept: list[tuple[Rollout, MeshTrajectory]] = []
    jobs = [(trajectory, name) for trajectory in trajectories for name in methods]
    for trajectory, name in tqdm(jobs, desc="evaluate", disable=not progress, leave=False):
        rollout = roll_out(
            methods[name],
            trajectory,
            steps=steps,
            warm_up=warm_up,
            boundary=boundary,
            device=device,
        )
        errors[name].append(
            measure_rollout(
                rollout.trajectory,
                trajectory,
                state=protocol.state,
                outputs=protocol.outputs,
                nodes=counted,
                horizons=horizons,
                cumulative=cumulative,
                diverged_at=rollout.diverged_at,
                steps=trajectory.num_frames - warm_up if steps is None else steps,
            )
        )
        squares[name].append(squared_step_errors(methods[name], trajectory, warm_up, device))
        if name == "model" and len(kept) < keep:
            kept.append((rollout, trajectory))
    scores: dict[str, Scores] = {}
    for name, measured in errors.items():
        one_step = float(np.sqrt(np.mean([each.mean() for each in squares[name]])))
        scores[name] = {"one_step_rmse": {"1": one_step}, **rollout_scores(measured)}
    return SimulatorEvaluation(
        scores.pop("model"),
        scores,
        rollout_summaries(errors["model"]),
        rollout_arrays(errors),
        kept,
    )


def persistence_of(simulator: Simulator) -> Simulator:
    r"""Returns the surrogate that predicts no change, scaled as another one.

    Args:
        simulator (Simulator): The other one.
    """
    model = simulator.model
    still = MeshPersistence(
        model.state,
        model.outputs,
        model.node_types,
        model.edge_channels,
        conditions=model.conditions,
        static=model.static,
    )
    scalers = {k: v for k, v in model.state_dict().items() if k in still.state_dict()}
    still.load_state_dict(scalers)
    return simulator._replace(model=still.eval())


@torch.no_grad()
def squared_step_errors(
    simulator: Simulator,
    trajectory: MeshTrajectory,
    warm_up: int,
    device: str | torch.device = "cpu",
) -> np.ndarray:
    r"""Returns the mean squared distance over the predicted nodes between each frame and its
    prediction from the true frames before it.

    Args:
        simulator (Simulator): The surrogate.
        trajectory (MeshTrajectory): The simulation.
        warm_up (int): Frames that are read before the first prediction that counts.
        device (str or torch.device, optional): Where the model runs. (default: :obj:`"cpu"`)

    Shapes:
        - **output:** :math:`(T - W)` for :math:`T` frames and a warm-up of :math:`W`
    """
    model, protocol, _ = simulator
    model.to(torch.device(device)).eval()
    graph = protocol.graph(trajectory).to(device)
    graph.start = torch.tensor([trajectory.first_frame], device=device)
    carried: Any = None
    errors = []
    for first in range(0, trajectory.num_frames - 1, CHUNK):
        last = min(first + CHUNK, trajectory.num_frames - 1)
        frames = torch.from_numpy(trajectory.frames(protocol.state, first, last + 1)).to(device)
        predicted, carried = model.prefill(frames[:, :-1], graph, carried)
        error = predicted[..., : model.state_channels] - frames[:, 1:]
        errors.append(error[graph.predicted].double().square().sum(-1).mean(0).cpu())
    return torch.cat(errors)[warm_up - 1 :].numpy()
