from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import nn

from pyg_stmamba.data import Protocol, TemporalGraph
from pyg_stmamba.models import MODELS
from pyg_stmamba.ops.backend import implementations

from .averaging import warm_ema
from .checkpoint import describe, load_forecaster
from .device import check_devices, describe_device
from .evaluate import evaluate
from .forecast_data import ForecastData, fit_profile, fit_scaler, fit_spectral_time
from .forecast_module import ForecastModule, Row
from .run_folder import RunFolder, WholeCheckpoints, versions
from .run_recorder import RunProgress, RunRecorder
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
    if max_epochs < 1:
        raise ValueError(f"max_epochs={max_epochs} must be at least 1")
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
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with ExitStack() as stack, torch.random.fork_rng(devices=gpus):
        if out is None:
            out_path = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            out_path = Path(out)
        folder = RunFolder(out_path)
        checkpoint = _checkpoint_to_resume(folder, resume)
        averaging = []
        if ema_decay is not None:
            # Buffers are no weights: features that are drawn anew must not be averaged.
            averaging = [WeightAveraging(use_buffers=False, multi_avg_fn=warm_ema(ema_decay))]
        with _quiet_lightning():
            trainer = Trainer(
                accelerator=accelerator,
                devices=devices,
                precision=precision,  # type: ignore[arg-type]
                max_epochs=max_epochs,
                min_epochs=0,
                gradient_clip_val=gradient_clip,
                callbacks=[
                    *averaging,
                    RunRecorder(folder, patience, max_seconds),
                    *([RunProgress()] if progress else []),
                    *callbacks,
                ],
                plugins=[WholeCheckpoints()],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
                inference_mode=False,
            )
            if trainer.is_global_zero:
                folder.write_config(config or _configuration(model, graph, protocol, options))
                folder.write_versions()
            _train(trainer, module, data, checkpoint)
        device = trainer.strategy.root_device
        best = trainer.strategy.broadcast(folder.best)
        if module.best_epoch() is None:
            raise ValueError(
                "training diverged: the validation error was never finite. Try a lower "
                "learning_rate or a smaller gradient_clip"
            )
        load_forecaster(best, model)
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
                "kernels": _kernels(device),
                "windows": evaluation.windows,
                "seed": seed,
                "versions": versions(),
            }
            folder.write_metrics(metrics)
            folder.write_forecasts(evaluation.arrays)
        metrics = trainer.strategy.broadcast(metrics)
    model.to("cpu").eval()
    return RunResult(model, metrics, module.history, None if out is None else folder.path)


def seconds_of(max_time: str | float | None) -> float | None:
    r"""Reads a time: a number of minutes, or :obj:`"HH:MM:SS"`.

    Args:
        max_time (str or float, optional): The time.
    """
    if max_time is None:
        return None
    try:
        parts = [float(part) for part in str(max_time).split(":")]
    except ValueError:
        parts = []
    if len(parts) not in (1, 3) or any(part < 0 for part in parts) or not sum(parts):
        raise ValueError(f"max_time={max_time!r} must be minutes, as in 90, or 'HH:MM:SS'")
    if len(parts) == 1:
        return 60 * parts[0]
    hours, minutes, seconds = parts
    return 3600 * hours + 60 * minutes + seconds


def _checkpoint_to_resume(folder: RunFolder, resume: bool) -> Path | None:
    if resume:
        # A run that was killed in its first epoch has nothing to go on with but its options.
        return folder.last if folder.last.exists() else None
    if folder.last.exists() or folder.best.exists() or folder.metrics.exists():
        raise ValueError(f"{folder.path} holds a run already; resume it, or choose another folder")
    return None


def _train(
    trainer: Trainer, module: ForecastModule, data: ForecastData, checkpoint: Path | None
) -> None:
    module.train()
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as error:
        # Lightning turns Ctrl-C into an exit.
        if not trainer.interrupted or trainer.received_sigterm:
            raise
        raise KeyboardInterrupt from error


def _configuration(
    model: nn.Module, graph: TemporalGraph, protocol: Protocol, options: Mapping[str, Any]
) -> dict[str, Any]:
    names = {model_class: name for name, model_class in MODELS.items()}
    any_model: Any = model
    described = any_model.config() if hasattr(model, "config") else {}
    of_data = any_model.data_arguments(graph, protocol) if hasattr(model, "data_arguments") else {}
    own = {name: _plain(value) for name, value in described.items() if name not in of_data}
    return {
        "model": {"name": names.get(type(model), type(model).__name__), **own},
        **{name: _plain(value) for name, value in options.items()},
    }


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _kernels(device: torch.device) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for line in implementations():
        if line.available and line.device == device.type:
            chosen.setdefault(line.op, line.name)
    return chosen


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    loggers = [
        logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in (
                ".*does not have many workers",
                ".*in eval mode at the start of training",
                ".*srun.*command is available",
            ):
                warnings.filterwarnings("ignore", message=message)
            for category in (FutureWarning, DeprecationWarning):
                # Lightning's own use of torch, nothing that a user could change.
                warnings.filterwarnings("ignore", category=category, module=r"lightning\.")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
