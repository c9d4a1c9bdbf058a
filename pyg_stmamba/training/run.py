from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging

from pyg_stmamba.ops.backend import implementations

from .averaging import warm_ema
from .run_folder import RunFolder, WholeCheckpoints
from .run_module import RunModule
from .run_recorder import RunProgress, RunRecorder


def train_in_folder(
    module: RunModule,
    data: LightningDataModule,
    folder: RunFolder,
    config: Mapping[str, Any],
    *,
    max_epochs: int,
    patience: int | None,
    gradient_clip: float | None,
    ema_decay: float | None,
    precision: str,
    accelerator: str,
    devices: str | int,
    resume: bool,
    progress: bool,
    callbacks: Sequence[Callback],
) -> Trainer:
    r"""Trains what a module holds and leaves the run in a folder: options, versions, one row an
    epoch, the last and the best checkpoint.

    Args:
        module (RunModule): What is trained, and how.
        data (lightning.pytorch.LightningDataModule): The training and validation batches.
        folder (RunFolder): Where the run is written.
        config (dict): What :obj:`config.yaml` shall say.
        max_epochs (int): Passes over the training data.
        patience (int, optional): Ends training after this many epochs without a lower
            validation error.
        gradient_clip (float, optional): Largest norm of the gradient.
        ema_decay (float, optional): Decay of the moving average of the weights that is validated
            and kept instead of the weights.
        precision (str): Precision as Lightning names it.
        accelerator (str): As Lightning names it.
        devices (str or int): How many devices, or which.
        resume (bool): Whether to go on with the run in :obj:`folder`.
        progress (bool): Whether to show a progress bar.
        callbacks (Sequence[Callback]): Further callbacks of Lightning.

    Returns:
        lightning.pytorch.Trainer: The trainer, finished.

    Raises:
        ValueError: If the folder holds a run that is not to be resumed, or no epoch had a finite
            validation error.
    """
    if max_epochs < 1:
        raise ValueError(f"max_epochs={max_epochs} must be at least 1")
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
                RunRecorder(folder, patience, module.max_seconds),
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
            folder.write_config(config)
            folder.write_versions()
        _train(trainer, module, data, checkpoint)
    if module.best_epoch() is None:
        raise ValueError(
            "training diverged: the validation error was never finite. Try a lower "
            "learning_rate or a smaller gradient_clip"
        )
    return trainer


def all_gpus() -> Sequence[int]:
    r"""Returns the numbers of all CUDA GPUs, whose random states training must leave alone."""
    return range(torch.cuda.device_count()) if torch.cuda.is_available() else ()


def kernels_on(device: torch.device) -> dict[str, str]:
    r"""Returns which implementation of each operation runs on a device."""
    chosen: dict[str, str] = {}
    for line in implementations():
        if line.available and line.device == device.type:
            chosen.setdefault(line.op, line.name)
    return chosen


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


def plain_option(value: Any) -> Any:
    r"""Returns an option as what YAML can hold."""
    if isinstance(value, list | tuple):
        return [plain_option(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): plain_option(item) for name, item in value.items()}
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _checkpoint_to_resume(folder: RunFolder, resume: bool) -> Path | None:
    if resume:
        # A run that was killed in its first epoch has nothing to go on with but its options.
        return folder.last if folder.last.exists() else None
    if folder.last.exists() or folder.best.exists() or folder.metrics.exists():
        raise ValueError(f"{folder.path} holds a run already; resume it, or choose another folder")
    return None


def _train(
    trainer: Trainer, module: RunModule, data: LightningDataModule, checkpoint: Path | None
) -> None:
    module.train()
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as error:
        # Lightning turns Ctrl-C into an exit.
        if not trainer.interrupted or trainer.received_sigterm:
            raise
        raise KeyboardInterrupt from error


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
