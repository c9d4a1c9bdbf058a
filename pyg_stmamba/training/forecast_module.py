from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_stmamba.data import Protocol
from pyg_stmamba.nn.losses import LOSSES

from .metrics import HorizonMetrics
from .run_module import Row, RunModule
from .schedule import Schedule


class ForecastModule(RunModule):
    r"""Trains a forecaster: a masked loss in original units, and a validation error over the whole
    validation set.

    What the model returns from :obj:`get_aux_loss()`, if it has that, is added to the loss, but not
    to the training loss that is reported.

    Args:
        model (torch.nn.Module): The forecaster; it takes a batch of windows and returns
            forecasts of the shape of :obj:`batch.y`.
        description (dict, optional): Plain values that a checkpoint carries, from which
            the model can be built again. (default: :obj:`None`)
        learning_rate (float, optional): The highest learning rate. (default: :obj:`2e-3`)
        weight_decay (float, optional): Weight decay of AdamW, see :class:`RunModule`.
            (default: :obj:`1e-4`)
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
        super().__init__(
            model, description, learning_rate, weight_decay, schedule, max_seconds, seed
        )
        if loss not in LOSSES:
            choices = ", ".join(map(repr, LOSSES))
            raise ValueError(f"loss={loss!r} is unknown; choose from {choices}")
        self.protocol, self.loss = protocol, loss
        self._validation_metrics = self._no_metrics()

    def forward(self, batch: Data) -> Tensor:
        return self.model(batch)

    def training_step(self, batch: Data, batch_idx: int) -> Tensor:
        loss = LOSSES[self.loss](self.model(batch).float(), batch.y, batch.y_mask)
        self.count_loss(loss, batch.y_mask.sum())
        get_aux_loss: Any = getattr(self.model, "get_aux_loss", None)
        return loss if get_aux_loss is None else loss + get_aux_loss()

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

    def _no_metrics(self) -> HorizonMetrics:
        return HorizonMetrics(self.protocol.horizon, self.protocol.report_steps)
