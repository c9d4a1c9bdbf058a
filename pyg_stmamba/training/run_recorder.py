from __future__ import annotations

import math
import sys
from typing import Any

from lightning.pytorch import Callback, Trainer
from tqdm import tqdm

from .run_folder import RunFolder


class RunRecorder(Callback):
    r"""Writes what an epoch leaves behind, and says when training ends.

    After each epoch the history gets a row, the checkpoint :obj:`last.ckpt` is written, and
    copied to :obj:`best.ckpt` if no earlier epoch has a lower validation error. Training ends
    early when the error has not improved for :obj:`patience` epochs, when it is not finite any
    more, or when the time is up; an epoch that the clock cuts short can become the best one, but
    is not kept in :obj:`last.ckpt`, so that a resumed run starts it anew.

    Args:
        folder (RunFolder): Where to write.
        patience (int, optional): Epochs without improvement. (default: :obj:`None`, no limit)
        max_seconds (float, optional): Training time. (default: :obj:`None`, no limit)
    """

    def __init__(
        self, folder: RunFolder, patience: int | None = None, max_seconds: float | None = None
    ) -> None:
        self.folder = folder
        self.patience, self.max_seconds = patience, max_seconds
        self._cut_short = False

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if pl_module.history:
            self._write_history(trainer, pl_module)
        self._stop_if_finished(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.max_seconds is None:
            return
        time_is_up = trainer.strategy.reduce_boolean_decision(
            pl_module.seconds() >= self.max_seconds, all=False
        )
        if time_is_up:
            trainer.should_stop = True
            self._cut_short = batch_idx + 1 < trainer.num_training_batches

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        pl_module.finish_epoch()
        is_best = pl_module.best_epoch() == len(pl_module.history)
        if self._cut_short:
            if is_best:
                trainer.save_checkpoint(self.folder.best, weights_only=False)
        else:
            trainer.save_checkpoint(self.folder.last, weights_only=False)
            if is_best and trainer.is_global_zero:
                self.folder.copy_last_to_best()
        self._write_history(trainer, pl_module)
        self._stop_if_finished(trainer, pl_module)

    def _write_history(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            self.folder.write_history(pl_module.history)

    def _stop_if_finished(self, trainer: Trainer, pl_module: Any) -> None:
        history = pl_module.history
        if not history:
            return
        waited = len(history) - (pl_module.best_epoch() or 0)
        out_of_patience = self.patience is not None and waited >= self.patience
        out_of_time = self.max_seconds is not None and pl_module.seconds() >= self.max_seconds
        diverged = not math.isfinite(history[-1]["train_loss"])
        if out_of_patience or out_of_time or diverged:
            trainer.should_stop = True


class RunProgress(Callback):
    r"""One progress bar for a whole run, on standard error."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            per_epoch = int(trainer.num_training_batches)
            self._bar = tqdm(
                total=per_epoch * (trainer.max_epochs or 0),
                initial=per_epoch * len(pl_module.history),
                unit="batch",
                dynamic_ncols=True,
                # A log file gets a line now and then, a terminal a moving bar.
                mininterval=0.2 if sys.stderr.isatty() else 20.0,
            )
            self._describe(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bar is not None:
            self._bar.update()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self._bar is not None:
            self._describe(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _describe(self, trainer: Trainer, pl_module: Any) -> None:
        bar, history = self._bar, pl_module.history
        if bar is None:
            return
        current = min(len(history) + 1, trainer.max_epochs or 0)
        bar.set_description(f"epoch {current}/{trainer.max_epochs}", refresh=False)
        if history:
            best, error = pl_module.best_epoch(), pl_module.monitor
            text = f"train {history[-1]['train_loss']:.4g}, val {history[-1][error]:.4g}"
            if best is not None:
                text += f", best {history[best - 1][error]:.4g} (epoch {best})"
            bar.set_postfix_str(text, refresh=False)
