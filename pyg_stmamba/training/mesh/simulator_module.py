from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_stmamba.training.run_module import RunModule
from pyg_stmamba.training.schedule import Schedule

from .rollout import predicted_frames
from .simulator import KIND, Simulator, describe_simulator


class SimulatorModule(RunModule):
    r"""Trains a surrogate on the changes from frame to frame, and validates it by itself.

    The loss is the mean square error of scaled changes and outputs over all frames of a window.
    With :obj:`unroll`, after a quarter of training, the last frames of a window are what the
    model itself has predicted, with gradients through all steps, see
    :meth:`~pyg_stmamba.models.mesh_model.MeshModel.loss`. Their number rises from none then to
    :obj:`unroll` at half of training. Training takes a quarter more time with 4 of 8 frames and
    no memory, more with more of them.

    Two errors of the state are measured on validation windows over the predicted nodes: of one
    step from true frames, :obj:`val_rmse`, and of a rollout, :obj:`val_rollout_rmse`, by which
    epochs are compared. Both are roots of means over nodes and steps of squared distances.

    Args:
        simulator (Simulator): The model and what it reads.
        learning_rate (float, optional): The highest learning rate. (default: :obj:`1e-3`)
        weight_decay (float, optional): Weight decay of AdamW. (default: :obj:`1e-4`)
        schedule (Schedule, optional): The learning-rate schedule.
        max_seconds (float, optional): Training time. (default: :obj:`None`)
        seed (int, optional): Seed of whatever is drawn in training. (default: :obj:`0`)
        skip (int, optional): Frames at the start of a window whose errors do not count.
            (default: :obj:`0`)
        unroll (int, optional): How many frames at the end of a training window are what the model
            itself has predicted, after a quarter of training. (default: :obj:`0`)
    """

    kind = KIND
    monitor = "val_rollout_rmse"

    def __init__(
        self,
        simulator: Simulator,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        schedule: Schedule = Schedule(),  # noqa: B008
        max_seconds: float | None = None,
        seed: int = 0,
        skip: int = 0,
        unroll: int = 0,
    ) -> None:
        super().__init__(
            simulator.model,
            describe_simulator(simulator),
            learning_rate,
            weight_decay,
            schedule,
            max_seconds,
            seed,
        )
        if not 0 <= skip < simulator.protocol.history:
            raise ValueError(
                f"skip={skip} must be at least 0 and below the {simulator.protocol.history} "
                "frames of a window"
            )
        most = simulator.protocol.history - 1 - skip
        if not 0 <= unroll <= most:
            raise ValueError(
                f"unroll={unroll} must be at least 0 and at most {most}, so that skip={skip} "
                f"leaves a frame of the {simulator.protocol.history} of a window"
            )
        self.skip, self.unroll = skip, unroll
        self.history_frames = simulator.protocol.history

    def training_step(self, batch: Data, batch_idx: int) -> Tensor:
        model: Any = self.model
        unroll = 0
        if self.unroll:
            late = min(max(4 * self._progress(batch_idx).fraction - 1, 0.0), 1.0)
            unroll = round(late * self.unroll)
        loss = model.loss(batch, self.skip, unroll=unroll)
        self.count_loss(loss, batch.num_graphs)
        get_aux_loss: Any = getattr(model, "get_aux_loss", None)
        return loss if get_aux_loss is None else loss + get_aux_loss()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        data.train_windows.set_epoch(len(self.history))

    def on_validation_epoch_start(self) -> None:
        # Squared errors of one step and of rollouts, and how many there are.
        self._squares = torch.zeros(3, dtype=torch.double, device=self.device)

    def validation_step(self, batch: Data, batch_idx: int) -> None:
        model: Any = self.model
        channels, first = model.state_channels, self.history_frames - 1
        wanted = batch.y[batch.predicted, first:, :channels]
        one_step = self.model(batch)[batch.predicted, first:, :channels]
        path = predicted_frames(
            model,
            batch,
            batch.x[:, : first + 1],
            lambda step, _: batch.y[:, first + step, :channels],
        )
        steps = wanted.size(1)
        rollout = torch.stack([next(path)[batch.predicted, :channels] for _ in range(steps)], 1)
        self._squares += torch.stack(
            [
                (one_step - wanted).double().square().sum(),
                (rollout - wanted).double().square().sum(),
                torch.tensor(wanted[..., 0].numel(), dtype=torch.double, device=self.device),
            ]
        )

    def on_validation_epoch_end(self) -> None:
        squares = self._squares
        if self.trainer.world_size > 1:
            squares = self.trainer.strategy.reduce(squares, reduce_op="sum")
        one_step, rollout = (squares[:2] / squares[2]).sqrt().tolist()
        self.validation = {"rmse": one_step, "rollout_rmse": rollout}
