from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback
from torch import nn

from pyg_stmamba.data import Protocol, TemporalGraph
from pyg_stmamba.models import MODELS

from .checkpoint import describe, load_forecaster
from .device import check_devices, describe_device
from .evaluate import evaluate
from .forecast_data import ForecastData, fit_profile, fit_scaler, fit_spectral_time
from .forecast_module import ForecastModule
from .run import all_gpus, kernels_on, plain_option, seconds_of, train_in_folder
from .run_folder import RunFolder, versions
from .run_module import Row
from .schedule import Schedule


class RunResult(NamedTuple):
    r"""What :func:`fit` returns.

    Args:
        model (torch.nn.Module): The model of the best epoch, in evaluation mode, on the CPU.
        metrics (dict): The content of :obj:`metrics.json`.
        history (list[dict]): One row an epoch.
        folder (Path, optional): Where the run was written, :obj:`None` if nowhere.
    """

    model: nn.Module
    metrics: dict[str, Any]
    history: list[Row]
    folder: Path | None


def fit(
    model: nn.Module,
    graph: TemporalGraph,
    protocol: Protocol = Protocol(),  # noqa: B008
    *,
    out: str | Path | None = None,
    max_epochs: int = 100,
    max_time: str | float | None = None,
    patience: int | None = 15,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-4,
    schedule: str = "cosine",
    warmup: float = 0.02,
    milestones: Sequence[int] = (20, 30),
    decay: float = 0.1,
    plateau_patience: int = 5,
    gradient_clip: float | None = 5.0,
    loss: str = "mae",
    ema_decay: float | None = None,
    seed: int = 0,
    precision: str = "32-true",
    accelerator: str = "auto",
    devices: str | int = "auto",
    num_workers: int = 0,
    baselines: bool = True,
    resume: bool = False,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
    config: Mapping[str, Any] | None = None,
) -> RunResult:
    r"""Trains a forecaster on one series, keeps the epoch with the lowest validation error, and
    measures it on the whole test set beside the baselines.

    .. code-block:: python

        graph, protocol = dataset[0], dataset.protocol
        model = STMamba(**STMamba.data_arguments(graph, protocol), channels=32)
        result = fit(model, graph, protocol, max_epochs=20, out="runs/mine")
        print(result.metrics["test"]["average"]["mae"])

    The random state outside is left as it was. Given the same model, data, options and seed, a
    run that was interrupted and resumed ends with the same weights, on a CPU bit for bit, as one
    that was not; only with :obj:`max_time` does the clock have a say.

    Args:
        model (torch.nn.Module): The forecaster; its :obj:`scaler` and its
            :obj:`weekly_profile` and its :obj:`spectral_time`, where it has them, are fitted on
            the training split.
        graph (TemporalGraph): The series.
        protocol (Protocol, optional): Lengths of windows, splits, target channels.
        out (str or Path, optional): Folder of the run, see :class:`RunFolder`. If :obj:`None`,
            nothing is kept on disk. (default: :obj:`None`)
        max_epochs (int, optional): Passes over the training windows. (default: :obj:`100`)
        max_time (str or float, optional): Training time, as minutes or as
            :obj:`"HH:MM:SS"`. (default: :obj:`None`)
        patience (int, optional): Ends training after this many epochs without a lower
            validation error. (default: :obj:`15`)
        batch_size (int, optional): Windows a batch. (default: :obj:`64`)
        learning_rate (float, optional): The highest learning rate. (default: :obj:`2e-3`)
        weight_decay (float, optional): Weight decay of AdamW. (default: :obj:`1e-4`)
        schedule (str, optional): Shape of the learning rate: :obj:`"cosine"`,
            :obj:`"constant"`, :obj:`"multistep"` or :obj:`"plateau"`.
            (default: :obj:`"cosine"`)
        warmup (float, optional): Part of the budget in which the learning rate rises.
            (default: :obj:`0.02`)
        milestones (Sequence[int], optional): Epochs after which :obj:`"multistep"` decays.
            (default: :obj:`(20, 30)`)
        decay (float, optional): Factor of :obj:`"multistep"` and :obj:`"plateau"`.
            (default: :obj:`0.1`)
        plateau_patience (int, optional): Epochs without improvement after which
            :obj:`"plateau"` decays. (default: :obj:`5`)
        gradient_clip (float, optional): Largest norm of the gradient. (default: :obj:`5.0`)
        loss (str, optional): What training minimizes, in original units: :obj:`"mae"`,
            :obj:`"mse"`, :obj:`"huber"` or :obj:`"smape"`, see
            :mod:`pyg_stmamba.nn.losses`. The best epoch is that with the lowest mean absolute
            error on the validation split, whatever the loss. (default: :obj:`"mae"`)
        ema_decay (float, optional): Decay of the exponential moving average of the weights that
            is validated and kept instead of the weights themselves, as in 0.999; it rises to
            that from the first steps on, see :func:`~pyg_stmamba.training.averaging.warm_ema`.
            (default: :obj:`None`)
        seed (int, optional): Seed of order and dropout. (default: :obj:`0`)
        precision (str, optional): Precision as Lightning names it, as in :obj:`"bf16-mixed"`.
            (default: :obj:`"32-true"`)
        accelerator (str, optional): :obj:`"auto"`, :obj:`"cpu"`, :obj:`"gpu"`, :obj:`"cuda"` or
            :obj:`"mps"`. (default: :obj:`"auto"`)
        devices (str or int, optional): How many devices, or which, as in :obj:`"0,1"`.
            (default: :obj:`"auto"`)
        num_workers (int, optional): Processes that prepare batches. (default: :obj:`0`)
        baselines (bool, optional): Whether the baselines are measured too.
            (default: :obj:`True`)
        resume (bool, optional): Whether to go on with the run in :obj:`out`.
            (default: :obj:`False`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`True`)
        callbacks (Sequence[Callback], optional): Further callbacks of Lightning.
            (default: :obj:`()`)
        config (Mapping[str, Any], optional): What :obj:`config.yaml` shall say instead of
            these options. (default: :obj:`None`)
    """
    options = {
        name: value
        for name, value in locals().items()
        if name not in ("model", "graph", "protocol", "out", "callbacks", "config", "resume")
    }
    check_devices(accelerator, devices)
    max_seconds = seconds_of(max_time)
    data = ForecastData(graph, protocol, batch_size, seed, num_workers)
    fit_scaler(model, data.windows["train"], protocol)
    fit_profile(model, data.windows["train"])
    fit_spectral_time(model, data.windows["train"])
    module = ForecastModule(
        model,
        describe(model, graph, protocol),
        learning_rate,
        weight_decay,
        Schedule(schedule, warmup, tuple(milestones), decay, plateau_patience),
        max_seconds,
        seed,
        protocol,
        loss,
    )
    with ExitStack() as stack, torch.random.fork_rng(devices=all_gpus()):
        folder = RunFolder(
            stack.enter_context(tempfile.TemporaryDirectory()) if out is None else out
        )
        trainer = train_in_folder(
            module,
            data,
            folder,
            config or _configuration(model, graph, protocol, options),
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
        load_forecaster(trainer.strategy.broadcast(folder.best), model)
        metrics: dict[str, Any] = {}
        if trainer.is_global_zero:
            evaluation = evaluate(
                model,
                graph,
                protocol,
                baselines=baselines,
                batch_size=batch_size,
                device=device,
                progress=progress,
            )
            metrics = {
                "test": evaluation.test,
                "baselines": evaluation.baselines,
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "epochs": len(module.history),
                "seconds": sum(row["seconds"] for row in module.history),
                "device": describe_device(device, trainer.world_size),
                "kernels": kernels_on(device),
                "windows": evaluation.windows,
                "seed": seed,
                "versions": versions(),
            }
            folder.write_metrics(metrics)
            folder.write_forecasts(evaluation.arrays)
        metrics = trainer.strategy.broadcast(metrics)
    model.to("cpu").eval()
    return RunResult(model, metrics, module.history, None if out is None else folder.path)


def _configuration(
    model: nn.Module, graph: TemporalGraph, protocol: Protocol, options: Mapping[str, Any]
) -> dict[str, Any]:
    names = {model_class: name for name, model_class in MODELS.items()}
    any_model: Any = model
    described = any_model.config() if hasattr(model, "config") else {}
    of_data = any_model.data_arguments(graph, protocol) if hasattr(model, "data_arguments") else {}
    own = {name: plain_option(value) for name, value in described.items() if name not in of_data}
    return {
        "model": {"name": names.get(type(model), type(model).__name__), **own},
        **{name: plain_option(value) for name, value in options.items()},
    }
