from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback

from pyg_stmamba.data.mesh import MeshTrajectory
from pyg_stmamba.data.mesh.frame_statistics import frame_statistics
from pyg_stmamba.data.mesh.mesh_protocol import MeshProtocol
from pyg_stmamba.data.mesh.mesh_split import MeshSplit
from pyg_stmamba.data.mesh_files.npz_trajectory import save_trajectory_npz
from pyg_stmamba.models.mesh_model import MeshModel
from pyg_stmamba.models.mesh_models import MESH_MODELS
from pyg_stmamba.training.device import check_devices, describe_device
from pyg_stmamba.training.run import (
    all_gpus,
    kernels_on,
    plain_option,
    seconds_of,
    train_in_folder,
)
from pyg_stmamba.training.run_folder import RunFolder, versions
from pyg_stmamba.training.run_module import Row
from pyg_stmamba.training.schedule import Schedule

from .evaluate_simulator import SimulatorEvaluation, evaluate_simulator
from .simulator import Simulator, facts_of, load_simulator
from .simulator_data import SimulatorData
from .simulator_module import SimulatorModule

# Nodes whose states tell the frequencies of a flow.
PROBES = 64


class SimulatorResult(NamedTuple):
    r"""What :func:`fit_simulator` returns.

    Args:
        simulator (Simulator): The surrogate of the best epoch, in evaluation mode, on the CPU.
        metrics (dict): The content of :obj:`metrics.json`.
        history (list[dict]): One row an epoch.
        folder (Path, optional): Where the run was written, :obj:`None` if nowhere.
    """

    simulator: Simulator
    metrics: dict[str, Any]
    history: list[Row]
    folder: Path | None


def fit_simulator(
    model: MeshModel,
    split: MeshSplit,
    protocol: MeshProtocol = MeshProtocol(),  # noqa: B008
    *,
    out: str | Path | None = None,
    max_epochs: int = 100,
    max_time: str | float | None = None,
    patience: int | None = 15,
    batch_size: int = 2,
    windows_per_epoch: int | None = None,
    stride: int = 1,
    noise: float | Mapping[str, float] = 0.0,
    noise_kind: Literal["independent", "walk"] = "walk",
    skip: int = 0,
    unroll: int = 0,
    val_steps: int = 50,
    val_rollouts: int = 2,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    schedule: str = "cosine",
    warmup: float = 0.02,
    milestones: Sequence[int] = (20, 30),
    decay: float = 0.1,
    plateau_patience: int = 5,
    gradient_clip: float | None = 1.0,
    ema_decay: float | None = None,
    seed: int = 0,
    precision: str = "32-true",
    accelerator: str = "auto",
    devices: str | int = "auto",
    num_workers: int = 0,
    boundary: str = "held",
    keep: int = 1,
    resume: bool = False,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
    config: Mapping[str, Any] | None = None,
) -> SimulatorResult:
    r"""Trains a surrogate of simulations on meshes, keeps the epoch with the lowest error of
    validation rollouts, and rolls it out over the test simulations beside persistence.

    .. code-block:: python

        split, protocol = split_trajectories(trajectories), MeshProtocol(history=8)
        model = MeshSimulator(**protocol.model_arguments(split.train[0]))
        result = fit_simulator(model, split, protocol, max_time=30, out="runs/mine")
        rollout = roll_out(result.simulator, split.test[0])

    The random state outside is left as it was. Given the same model, data, options and seed, a
    run that was interrupted and resumed ends with the same weights as one that was not; only with
    :obj:`max_time` does the clock have a say.

    Args:
        model (MeshModel): The model; its scalers, and its :obj:`spectral_time` where it has that,
            are fitted on the training simulations.
        split (MeshSplit): The simulations.
        protocol (MeshProtocol, optional): What is read and predicted.
        out (str or Path, optional): Folder of the run, see :class:`RunFolder`; it also gets
            :obj:`rollout_errors.npz` and the kept rollouts in :obj:`rollouts/`. If :obj:`None`,
            nothing is kept on disk. (default: :obj:`None`)
        max_epochs (int, optional): Number of epochs. (default: :obj:`100`)
        max_time (str or float, optional): Training time, as minutes or as
            :obj:`"HH:MM:SS"`. (default: :obj:`None`)
        patience (int, optional): Ends training after this many epochs without a lower
            validation error. (default: :obj:`15`)
        batch_size (int, optional): Windows a batch. (default: :obj:`2`)
        windows_per_epoch (int, optional): Windows of an epoch, drawn anew each time.
            (default: :obj:`None`, all)
        stride (int, optional): Frames from one training window to the next.
            (default: :obj:`1`)
        noise (float or dict[str, float], optional): Standard deviation of the noise on the state
            at predicted nodes, in its units, other noise at each access; what is learned takes it
            away again. (default: :obj:`0.0`)
        noise_kind (str, optional): :obj:`"walk"` over the frames of a window, or
            :obj:`"independent"` for each. A model with a temporal operator learns to average
            independent noise away over the frames, and its rollouts get worse with training.
            (default: :obj:`"walk"`)
        skip (int, optional): Frames at the start of a window whose errors do not count.
            (default: :obj:`0`)
        unroll (int, optional): How many frames at the end of a training window are what the model
            itself has predicted, after a quarter of training, so that it learns not to let its
            errors grow, see :class:`SimulatorModule`. (default: :obj:`0`)
        val_steps (int, optional): Steps of a validation rollout. (default: :obj:`50`)
        val_rollouts (int, optional): Validation rollouts of each simulation.
            (default: :obj:`2`)
        learning_rate (float, optional): The highest learning rate. (default: :obj:`1e-3`)
        weight_decay (float, optional): Weight decay of AdamW. (default: :obj:`1e-4`)
        schedule (str, optional): Shape of the learning rate, see :class:`Schedule`.
            (default: :obj:`"cosine"`)
        warmup (float, optional): Part of the budget in which the learning rate rises.
            (default: :obj:`0.02`)
        milestones (Sequence[int], optional): Epochs after which :obj:`"multistep"` decays.
            (default: :obj:`(20, 30)`)
        decay (float, optional): Factor of :obj:`"multistep"` and :obj:`"plateau"`.
            (default: :obj:`0.1`)
        plateau_patience (int, optional): Epochs without improvement after which
            :obj:`"plateau"` decays. (default: :obj:`5`)
        gradient_clip (float, optional): Largest norm of the gradient. (default: :obj:`1.0`)
        ema_decay (float, optional): Decay of the moving average of the weights that is validated
            and kept instead of the weights themselves. (default: :obj:`None`)
        seed (int, optional): Seed of order, noise and dropout. (default: :obj:`0`)
        precision (str, optional): Precision as Lightning names it. (default: :obj:`"32-true"`)
        accelerator (str, optional): :obj:`"auto"`, :obj:`"cpu"`, :obj:`"gpu"`, :obj:`"cuda"` or
            :obj:`"mps"`. (default: :obj:`"auto"`)
        devices (str or int, optional): How many devices, or which. (default: :obj:`"auto"`)
        num_workers (int, optional): Processes that prepare batches. (default: :obj:`0`)
        boundary (str, optional): How the state at the borders goes on in the test,
            :obj:`"held"` or :obj:`"data"`, see :func:`roll_out`. (default: :obj:`"held"`)
        keep (int, optional): How many test rollouts are kept for pictures. (default: :obj:`1`)
        resume (bool, optional): Whether to go on with the run in :obj:`out`.
            (default: :obj:`False`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`True`)
        callbacks (Sequence[Callback], optional): Further callbacks of Lightning.
            (default: :obj:`()`)
        config (Mapping[str, Any], optional): What :obj:`config.yaml` shall say instead of
            these options. (default: :obj:`None`)
    """
    not_options = {"model", "split", "protocol", "out", "callbacks", "config", "resume"}
    options = {name: value for name, value in locals().items() if name not in not_options}
    check_devices(accelerator, devices)
    max_seconds = seconds_of(max_time)
    data = SimulatorData(
        split,
        protocol,
        batch_size,
        windows_per_epoch,
        stride,
        noise,
        noise_kind,
        val_steps,
        val_rollouts,
        seed,
        num_workers,
    )
    model.fit(frame_statistics(data.train_windows, progress=progress))
    fit_spectral_time(model, split.train, protocol)
    simulator = Simulator(model, protocol, facts_of(split.train))
    module = SimulatorModule(
        simulator,
        learning_rate,
        weight_decay,
        Schedule(schedule, warmup, tuple(milestones), decay, plateau_patience),
        max_seconds,
        seed,
        skip,
        unroll,
    )
    with ExitStack() as stack, torch.random.fork_rng(devices=all_gpus()):
        folder = RunFolder(
            stack.enter_context(tempfile.TemporaryDirectory()) if out is None else out
        )
        trainer = train_in_folder(
            module,
            data,
            folder,
            config or _configuration(simulator, options),
            max_epochs=max_epochs,
            patience=patience,
            gradient_clip=gradient_clip,
            ema_decay=ema_decay,
            precision=precision,
            accelerator=accelerator,
            devices=devices,
            resume=resume,
            progress=progress,
            callbacks=callbacks,
        )
        device = trainer.strategy.root_device
        load_simulator(trainer.strategy.broadcast(folder.best), model)
        metrics: dict[str, Any] = {}
        if trainer.is_global_zero:
            evaluation = evaluate_simulator(
                simulator,
                split.test,
                boundary=boundary,
                keep=keep,
                device=device,
                progress=progress,
            )
            metrics = {
                "model": type(model).__name__,
                "test": evaluation.test,
                "baselines": evaluation.baselines,
                "rollouts": evaluation.rollouts,
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "epochs": len(module.history),
                "seconds": sum(row["seconds"] for row in module.history),
                "device": describe_device(device, trainer.world_size),
                "kernels": kernels_on(device),
                "simulations": {name: len(part) for name, part in split._asdict().items()},
                "boundary": boundary,
                "measure": {
                    "nodes": list(protocol.predicted_types),
                    "cumulative": True,
                    "per_component": False,
                },
                "seed": seed,
                "versions": versions(),
            }
            write_evaluation(folder, evaluation)
            folder.write_metrics(metrics)
        metrics = trainer.strategy.broadcast(metrics)
    model.to("cpu").eval()
    return SimulatorResult(simulator, metrics, module.history, None if out is None else folder.path)


def fit_spectral_time(
    model: MeshModel, trajectories: Sequence[MeshTrajectory], protocol: MeshProtocol
) -> None:
    r"""Fits :obj:`model.spectral_time`, if there is one, on the state at nodes spread over the
    meshes of training; its unit of time is the frame.

    Args:
        model (MeshModel): The model.
        trajectories (Sequence[MeshTrajectory]): The training simulations.
        protocol (MeshProtocol): What the state is.
    """
    spectral: Any = getattr(model, "spectral_time", None)
    if spectral is None:
        return
    length = min(trajectory.num_frames for trajectory in trajectories)
    series = []
    for trajectory in trajectories:
        inside = np.flatnonzero(trajectory.mesh.nodes_of(*protocol.predicted_types))
        probes = inside[:: max(1, len(inside) // PROBES)]
        states = trajectory.frames(protocol.state, 0, length)[probes]
        series.append(states.transpose(1, 0, 2).reshape(length, -1))
    spectral.fit(torch.from_numpy(np.concatenate(series, axis=1)))


def write_evaluation(folder: RunFolder, evaluation: SimulatorEvaluation) -> None:
    r"""Writes what pictures need: the errors of each step, and the kept rollouts beside their
    truths.

    Args:
        folder (RunFolder): The folder of the run.
        evaluation (SimulatorEvaluation): What was measured.
    """
    folder.write_arrays("rollout_errors.npz", evaluation.arrays)
    for number, (rollout, truth) in enumerate(evaluation.kept):
        if rollout.trajectory.num_frames:
            name = f"{number:03d}"
            rollouts = folder.path / "rollouts"
            save_trajectory_npz(rollout.trajectory, rollouts / f"{name}_prediction.npz")
            save_trajectory_npz(truth, rollouts / f"{name}_truth.npz")


def _configuration(simulator: Simulator, options: Mapping[str, Any]) -> dict[str, Any]:
    model, protocol, _ = simulator
    names = {made: name for name, made in MESH_MODELS.items()}
    of_data = {"state", "outputs", "node_types", "edge_channels", "conditions", "static"}
    of_data |= {"gradient_dim"}
    own = {key: plain_option(v) for key, v in model.config().items() if key not in of_data}
    return {
        "model": {"name": names.get(type(model), type(model).__name__), **own},
        **{name: plain_option(value) for name, value in protocol._asdict().items()},
        **{name: plain_option(value) for name, value in options.items()},
    }
