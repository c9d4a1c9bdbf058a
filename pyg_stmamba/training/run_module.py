from __future__ import annotations

import math
import time
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from .forecast_data import random_seed
from .schedule import Progress, Schedule

Row = dict[str, float]


class RunModule(LightningModule):
    r"""What all training has in common: AdamW, a learning-rate schedule, and a history from which
    a run resumes.

    All that a run remembers beside weights and optimizer is :attr:`history`, one row for each
    finished epoch; the learning rate, the best epoch and the time that is left follow from it.
    Subclasses write :meth:`training_step`, in which they call :meth:`count_loss`, and leave the
    errors of an epoch in :attr:`validation`.

    Args:
        model (torch.nn.Module): What is trained.
        description (dict, optional): Plain values that a checkpoint carries, from which
            the model can be built again. (default: :obj:`None`)
        learning_rate (float, optional): The highest learning rate. (default: :obj:`2e-3`)
        weight_decay (float, optional): Weight decay of AdamW; biases, norms, embeddings and
            parameters marked :obj:`_no_weight_decay` have none. (default: :obj:`1e-4`)
        schedule (Schedule, optional): The learning-rate schedule.
        max_seconds (float, optional): Training time over which the schedule runs, if it is
            used up before the epochs are. (default: :obj:`None`)
        seed (int, optional): Seed of dropout and of whatever else is drawn in training.
            (default: :obj:`0`)
    """

    kind = "forecaster"  # the name of the description in a checkpoint
    monitor = "val_mae"  # the column of the history by which epochs are compared

    def __init__(
        self,
        model: nn.Module,
        description: dict[str, Any] | None = None,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-4,
        schedule: Schedule = Schedule(),  # noqa: B008
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        schedule.check()
        self.model = model
        self.description = description
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.schedule, self.max_seconds, self.seed = schedule, max_seconds, seed
        self.history: list[Row] = []
        self.validation: Row = {}
        self._epoch_started: float | None = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = parameter_groups(self.model, self.weight_decay)
        # With mixed precision Lightning clips no gradients of a fused step, which may unscale them.
        fused = not str(self.trainer.precision).endswith("mixed")
        return torch.optim.AdamW(groups, lr=self.learning_rate, fused=fused)

    def seconds(self) -> float:
        r"""Returns the time spent in training, that of earlier sittings included."""
        return sum(row["seconds"] for row in self.history) + self._epoch_seconds()

    def on_train_epoch_start(self) -> None:
        self._epoch_started = time.monotonic()
        torch.manual_seed(random_seed(self.seed, len(self.history), self.global_rank))
        self._loss_sum = torch.zeros((), device=self.device)
        self._loss_count = torch.zeros((), device=self.device)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        rate = self.learning_rate * self.schedule.factor(self._progress(batch_idx))
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def count_loss(self, loss: Tensor, count: Tensor | int) -> None:
        r"""Adds the mean loss of :obj:`count` targets to that of the epoch."""
        self._loss_sum += loss.detach() * count
        self._loss_count += count

    def train_loss(self) -> float:
        r"""Returns the mean loss of the targets of this epoch so far, in all processes."""
        sums = torch.stack([self._loss_sum, self._loss_count])
        if self.trainer.world_size > 1:
            sums = self.trainer.strategy.reduce(sums, reduce_op="sum")
        return float(sums[0] / sums[1].clamp(min=1))

    def finish_epoch(self) -> None:
        r"""Adds the epoch that has just ended to the history."""
        row = {
            "epoch": len(self.history) + 1,
            "train_loss": self.train_loss(),
            **{f"val_{name}": value for name, value in self.validation.items()},
            "learning_rate": self.trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": self._epoch_seconds(),
        }
        self.history.append(row)
        self._epoch_started = None

    def best_epoch(self) -> int | None:
        r"""Returns the number of the epoch with the lowest validation error, counted from one,
        or :obj:`None` where none was finite."""
        rows = [row for row in self.history if math.isfinite(row[self.monitor])]
        return int(min(rows, key=lambda row: row[self.monitor])["epoch"]) if rows else None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = [dict(row) for row in self.history]
        checkpoint[self.kind] = self.description

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = [dict(row) for row in checkpoint["history"]]

    def _epoch_seconds(self) -> float:
        return 0.0 if self._epoch_started is None else time.monotonic() - self._epoch_started

    def _progress(self, batch_idx: int) -> Progress:
        per_epoch = self.trainer.num_training_batches
        step = len(self.history) * per_epoch + batch_idx + 0.5
        fraction = step / (per_epoch * (self.trainer.max_epochs or 1))
        if self.max_seconds is not None:
            fraction = max(fraction, self.seconds() / self.max_seconds)
        return Progress(min(fraction, 1.0), [row[self.monitor] for row in self.history])


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    r"""Splits the parameters into those with and those without weight decay. Without are vectors
    (biases, norms), embeddings, and what is marked :obj:`_no_weight_decay`."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter in seen or not parameter.requires_grad:
                continue
            seen.add(parameter)
            is_free = (
                getattr(parameter, "_no_weight_decay", False)
                or parameter.dim() < 2
                or isinstance(module, nn.Embedding)
            )
            (free if is_free else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
