from __future__ import annotations

import math
import time
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_stmamba.data import Protocol
from pyg_stmamba.nn.losses import LOSSES

from .forecast_data import random_seed
from .metrics import HorizonMetrics
from .schedule import Progress, Schedule

Row = dict[str, float]


class ForecastModule(LightningModule):
    r"""Trains a forecaster: a masked loss in original units, AdamW, a learning-rate schedule, and
    a validation error over the whole validation set.

    What the model returns from :obj:`get_aux_loss()`, if it has that, is added to the loss, but not
    to the training loss that is reported.

    All that a run remembers beside weights and optimizer is :attr:`history`, one row for each
    finished epoch; the learning rate, the best epoch and the time that is left follow from it.

    Args:
        model (torch.nn.Module): The forecaster; it takes a batch of windows and returns
            forecasts of the shape of :obj:`batch.y`.
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
        protocol (Protocol, optional): The horizon and the steps that are reported.
        loss (str, optional): What training minimizes, a name in
            :obj:`pyg_stmamba.nn.losses.LOSSES`: :obj:`"mae"`, :obj:`"mse"`, :obj:`"huber"` or
            :obj:`"smape"`. Epochs are compared by their mean absolute error whatever the loss.
            (default: :obj:`"mae"`)
    """

    def __init__(
        self,
        model: nn.Module,
        description: dict[str, Any] | None = None,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-4,
        schedule: Schedule = Schedule(),  # noqa: B008
        max_seconds: float | None = None,
        seed: int = 0,
        protocol: Protocol = Protocol(),  # noqa: B008
        loss: str = "mae",
    ) -> None:
        super().__init__()
        schedule.check()
        if loss not in LOSSES:
            choices = ", ".join(map(repr, LOSSES))
            raise ValueError(f"loss={loss!r} is unknown; choose from {choices}")
        self.model = model
        self.description = description
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.schedule, self.max_seconds = schedule, max_seconds
        self.seed, self.protocol, self.loss = seed, protocol, loss
        self.history: list[Row] = []
        self.validation: Row = {}
        self._validation_metrics = self._no_metrics()
        self._epoch_started: float | None = None

    def forward(self, batch: Data) -> Tensor:
        return self.model(batch)

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

    def on_train_batch_start(self, batch: Data, batch_idx: int) -> None:
        rate = self.learning_rate * self.schedule.factor(self._progress(batch_idx))
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def training_step(self, batch: Data, batch_idx: int) -> Tensor:
        loss = LOSSES[self.loss](self.model(batch).float(), batch.y, batch.y_mask)
        count = batch.y_mask.sum()
        self._loss_sum += loss.detach() * count
        self._loss_count += count
        get_aux_loss: Any = getattr(self.model, "get_aux_loss", None)
        return loss if get_aux_loss is None else loss + get_aux_loss()

    def train_loss(self) -> float:
        r"""Returns the mean loss of the observed targets of this epoch so far, in all processes."""
        sums = torch.stack([self._loss_sum, self._loss_count])
        if self.trainer.world_size > 1:
            sums = self.trainer.strategy.reduce(sums, reduce_op="sum")
        return float(sums[0] / sums[1].clamp(min=1))

    def on_validation_epoch_start(self) -> None:
        self._validation_metrics = self._no_metrics()

    def validation_step(self, batch: Data, batch_idx: int) -> None:
        self._validation_metrics.update(self.model(batch).float(), batch.y, batch.y_mask)

    def on_validation_epoch_end(self) -> None:
        metrics = self._validation_metrics
        if self.trainer.world_size > 1:
            sums = metrics._sums.to(self.device)
            metrics._sums = self.trainer.strategy.reduce(sums, reduce_op="sum").cpu()
        self.validation = cast(Row, metrics.compute()["average"])

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
        rows = [row for row in self.history if math.isfinite(row["val_mae"])]
        return int(min(rows, key=lambda row: row["val_mae"])["epoch"]) if rows else None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = [dict(row) for row in self.history]
        checkpoint["forecaster"] = self.description

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = [dict(row) for row in checkpoint["history"]]

    def _no_metrics(self) -> HorizonMetrics:
        return HorizonMetrics(self.protocol.horizon, self.protocol.report_steps)

    def _epoch_seconds(self) -> float:
        return 0.0 if self._epoch_started is None else time.monotonic() - self._epoch_started

    def _progress(self, batch_idx: int) -> Progress:
        per_epoch = self.trainer.num_training_batches
        step = len(self.history) * per_epoch + batch_idx + 0.5
        fraction = step / (per_epoch * (self.trainer.max_epochs or 1))
        if self.max_seconds is not None:
            fraction = max(fraction, self.seconds() / self.max_seconds)
        return Progress(min(fraction, 1.0), [row["val_mae"] for row in self.history])


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
