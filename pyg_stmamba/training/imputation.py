from __future__ import annotations

import copy
import math
import sys
import time
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from pyg_stmamba.data import TemporalGraph, Windows
from pyg_stmamba.data.series_data import SeriesData
from pyg_stmamba.models.imputer import Imputer

from .averaging import warm_ema
from .forecast_data import random_seed
from .hiding import Hiding
from .imputation_split import ImputationSplit, starts_within
from .impute import device_of
from .metrics import masked_mae
from .run import seconds_of
from .run_module import Row, parameter_groups
from .schedule import Progress, Schedule


class ImputerResult(NamedTuple):
    r"""What :func:`fit_imputer` returns.

    Args:
        model (Imputer): The imputer of the best epoch, in evaluation mode.
        history (list[dict]): One row an epoch.
    """

    model: Imputer
    history: list[Row]


class HiddenWindows(NamedTuple):
    r"""Windows of which observed entries are hidden.

    Args:
        batch (SeriesData): The windows without them, as an imputer takes them.
        target (torch.Tensor): The values :math:`[N, B, T, C]`.
        hidden (torch.Tensor): Which of them are hidden, boolean.
    """

    batch: SeriesData
    target: Tensor
    hidden: Tensor


def fit_imputer(
    model: Imputer,
    graph: TemporalGraph,
    split: ImputationSplit,
    *,
    window: int = 36,
    stride: int = 6,
    hiding: Hiding = Hiding(),  # noqa: B008
    max_epochs: int = 100,
    max_time: str | float | None = None,
    batch_size: int = 4,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-4,
    schedule: str = "cosine",
    warmup: float = 0.05,
    gradient_clip: float = 5.0,
    ema_decay: float = 0.995,
    seed: int = 0,
    progress: bool = True,
) -> ImputerResult:
    r"""Trains an imputer to give back observed values that are hidden from it, and keeps the epoch
    with the lowest error on those hidden in the validation part.

    .. code-block:: python

        graph = AQI36(root, masked=True)[0]
        split = split_months(graph)
        result = fit_imputer(PerformerImputer(), graph, split, max_time=10)
        print(imputation_errors(impute(result.model, graph), graph, split.test)["mae"])

    Which entries are hidden is drawn anew at each step of training, once for validation. The loss
    is the mean absolute error over them; what is kept and validated is an exponential moving
    average of the weights. Entries that are missing in :obj:`graph`, those in :obj:`graph.target`
    included, and steps outside of :obj:`split.train` and :obj:`split.val` are never looked at. The
    random state outside is left as it was.

    Args:
        model (Imputer): The imputer, on the device where it is trained; its :meth:`fit` is called
            first.
        graph (TemporalGraph): The series.
        split (ImputationSplit): Which steps train, and which validate.
        window (int, optional): Steps of a window. (default: :obj:`36`)
        stride (int, optional): An epoch takes one of :obj:`stride` training windows, at random.
            (default: :obj:`6`)
        hiding (Hiding, optional): What is hidden.
        max_epochs (int, optional): Number of epochs. (default: :obj:`100`)
        max_time (str or float, optional): Training time, as minutes or as :obj:`"HH:MM:SS"`.
            (default: :obj:`None`)
        batch_size (int, optional): Windows a batch. (default: :obj:`4`)
        learning_rate (float, optional): The highest learning rate. (default: :obj:`3e-3`)
        weight_decay (float, optional): Weight decay of AdamW. (default: :obj:`1e-4`)
        schedule (str, optional): Shape of the learning rate, see :class:`Schedule`.
            (default: :obj:`"cosine"`)
        warmup (float, optional): Part of the budget in which the learning rate rises.
            (default: :obj:`0.05`)
        gradient_clip (float, optional): Largest norm of the gradient. (default: :obj:`5.0`)
        ema_decay (float, optional): Decay of the moving average of the weights; it rises to that
            from the first steps on. (default: :obj:`0.995`)
        seed (int, optional): Seed of order, hiding and dropout. (default: :obj:`0`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`True`)
    """
    if max_epochs < 1 or stride < 1 or batch_size < 1:
        raise ValueError(
            f"max_epochs={max_epochs}, stride={stride} and batch_size={batch_size} must be at "
            "least 1"
        )
    hiding.check()
    shape = Schedule(schedule, warmup)
    shape.check()
    max_seconds = seconds_of(max_time)
    train = _windows_within(graph, split.train, window, "train")
    model.fit(graph, split.train)
    optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay), lr=learning_rate)
    average = AveragedModel(model, multi_avg_fn=warm_ema(ema_decay))  # type: ignore[arg-type]
    validation = _validation(graph, split, train, hiding, batch_size, seed)
    steps_per_epoch = math.ceil(len(train) / stride / batch_size)
    chance = torch.Generator().manual_seed(random_seed(seed, 0))
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    history: list[Row] = []
    best: dict[str, Any] = {}
    best_mae = math.inf
    seconds = 0.0
    bar = tqdm(
        # Where the clock ends training, no one knows after how many batches.
        total=None if max_time else max_epochs * steps_per_epoch,
        unit="batch",
        disable=not progress,
        dynamic_ncols=True,
        mininterval=0.2 if sys.stderr.isatty() else 20.0,
    )
    with bar, torch.random.fork_rng(devices=gpus):
        torch.manual_seed(random_seed(seed, 1))
        for epoch in range(max_epochs):
            started = time.monotonic()
            losses = []
            model.train()
            order = torch.randperm(len(train), generator=chance)
            for step, part in enumerate(order.split(batch_size)[:steps_per_epoch]):
                used = (epoch + (step + 0.5) / steps_per_epoch) / max_epochs
                if max_seconds is not None:
                    used = max(used, (seconds + time.monotonic() - started) / max_seconds)
                if used >= 1:
                    break
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate * shape.factor(Progress(used, ()))
                batch, target, hidden = _hide(train, part, train, hiding, chance)
                loss = masked_mae(*_on_device(model, batch, target, hidden))
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), gradient_clip)
                optimizer.step()
                average.update_parameters(model)
                losses.append(float(loss.detach()))
                bar.update()
            seconds += time.monotonic() - started
            val_mae = _hidden_mae(average.module, validation)
            train_loss = sum(losses) / max(len(losses), 1)
            row = {"epoch": epoch + 1, "train_loss": train_loss, "val_mae": val_mae}
            history.append({**row, "seconds": seconds})
            if val_mae < best_mae:
                best_mae, best = val_mae, copy.deepcopy(average.module.state_dict())
            bar.set_postfix_str(f"train {train_loss:.4g}, val {val_mae:.4g}", refresh=False)
            if max_seconds is not None and seconds >= max_seconds:
                break
    if not best:
        raise ValueError(
            "training diverged: the validation error was never finite. Try a lower learning_rate"
        )
    model.load_state_dict(best)
    return ImputerResult(model.eval(), history)


def _windows_within(graph: TemporalGraph, steps: Tensor, window: int, name: str) -> Windows:
    starts = starts_within(steps, window)
    if not len(starts):
        raise ValueError(f"no window of {window} steps lies within the steps of split.{name}")
    return Windows(graph, window, 0, starts, targets=False)


def _hide(
    windows: Windows, part: Tensor, donors: Windows, hiding: Hiding, chance: torch.Generator
) -> HiddenWindows:
    batch = windows.batch(part)
    others = torch.randint(len(donors), (len(part),), generator=chance)
    hidden = hiding.draw(batch.x_mask, donors.batch(others).x_mask, chance)
    target = batch.x
    batch.x, batch.x_mask = target.masked_fill(hidden, 0.0), batch.x_mask & ~hidden
    return HiddenWindows(batch, target, hidden)


def _validation(
    graph: TemporalGraph,
    split: ImputationSplit,
    train: Windows,
    hiding: Hiding,
    batch_size: int,
    seed: int,
) -> list[HiddenWindows]:
    windows = _windows_within(graph, split.val, train.window, "val")
    chance = torch.Generator().manual_seed(random_seed(seed, 2))
    # Windows that overlap by more than a half tell little more.
    parts = torch.arange(0, len(windows), max(1, train.window // 6)).split(batch_size)
    return [_hide(windows, part, train, hiding, chance) for part in parts]


@torch.no_grad()
def _hidden_mae(model: nn.Module, validation: list[HiddenWindows]) -> float:
    model.eval()
    total, count = 0.0, 0
    for windows in validation:
        filled, target, hidden = _on_device(model, *windows)
        total += float((filled - target).abs()[hidden].double().sum())
        count += int(hidden.sum())
    return total / count if count else math.nan


def _on_device(
    model: nn.Module, batch: SeriesData, target: Tensor, hidden: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    device = device_of(model)
    return model(batch.to(device)), target.to(device), hidden.to(device)
