from __future__ import annotations

from copy import copy
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
    With :obj:`push_forward` the frames of a window are what the model itself predicts, several
    times over, as in `"Message Passing Neural PDE Solvers" <https://arxiv.org/abs/2202.03376>`_,
    but at all frames at once: after :math:`k` passes without gradients each frame is a prediction
    over :math:`k` steps, and the loss is that of the step from there to the true next frame.
    :math:`k` is drawn for each batch, up to a number that rises to :obj:`push_forward` in the
    first half of training. It costs a third of a step of training for each pass.

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
        push_forward (int, optional): Up to how many steps the frames of a training window are
            predicted by the model itself. (default: :obj:`0`)
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
        push_forward: int = 0,
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
        if not 0 <= push_forward < simulator.protocol.history:
            raise ValueError(
                f"push_forward={push_forward} must be at least 0 and below the "
                f"{simulator.protocol.history} frames of a window"
            )
        self.skip, self.push_forward = skip, push_forward
        self.history_frames = simulator.protocol.history

    def training_step(self, batch: Data, batch_idx: int) -> Tensor:
        model: Any = self.model
        if self.push_forward:
            fraction = min(1.0, 2 * self._progress(batch_idx).fraction)
            most = round(fraction * self.push_forward)
            batch = self.pushed_forward(batch, int(torch.randint(most + 1, ())))
        loss = model.loss(batch, self.skip)
        self.count_loss(loss, batch.num_graphs)
        get_aux_loss: Any = getattr(model, "get_aux_loss", None)
        return loss if get_aux_loss is None else loss + get_aux_loss()

    @torch.no_grad()
    def pushed_forward(self, batch: Data, passes: int) -> Data:
        r"""Returns windows of which each frame but the first, where the model predicts, is its
        prediction from the frames before, taken again and again.

        Args:
            batch (Data): The windows.
            passes (int): How often.
        """
        pushed = copy(batch)
        predicted, channels = batch.predicted.view(-1, 1, 1), batch.x.size(-1)
        for _ in range(passes):
            following = self.model(pushed)[:, :-1, :channels]
            frames = torch.where(predicted, following, batch.x[:, 1:])
            pushed.x = torch.cat([batch.x[:, :1], frames], dim=1)
        return pushed

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
