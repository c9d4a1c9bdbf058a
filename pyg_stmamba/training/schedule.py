from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Progress(NamedTuple):
    r"""Where a training run stands; all that a schedule may look at, so that the learning rate
    of a resumed run is that of an uninterrupted one.

    Args:
        fraction (float): Part of the budget that is used, in :math:`[0, 1]`.
        val_errors (Sequence[float]): Validation errors of the finished epochs.
    """

    fraction: float
    val_errors: Sequence[float]


class Schedule(NamedTuple):
    r"""A learning-rate schedule: linear warm-up, then a shape chosen by name.

    Args:
        name (str, optional): :obj:`"cosine"` falls to zero over the whole budget,
            :obj:`"constant"` stays, :obj:`"multistep"` is multiplied by :obj:`decay` after each
            of the :obj:`milestones`, :obj:`"plateau"` whenever the validation error has not
            improved for :obj:`patience` epochs. (default: :obj:`"cosine"`)
        warmup (float, optional): Part of the budget in which the rate rises linearly.
            (default: :obj:`0.02`)
        milestones (tuple[int, ...], optional): Epochs, counted from one, after which
            :obj:`"multistep"` decays. (default: :obj:`(20, 30)`)
        decay (float, optional): Factor of :obj:`"multistep"` and :obj:`"plateau"`.
            (default: :obj:`0.1`)
        patience (int, optional): Epochs without improvement that :obj:`"plateau"` waits.
            (default: :obj:`5`)
    """

    name: str = "cosine"
    warmup: float = 0.02
    milestones: tuple[int, ...] = (20, 30)
    decay: float = 0.1
    patience: int = 5

    def check(self) -> None:
        r"""Raises :class:`ValueError` where an option makes no sense."""
        if self.name not in SHAPES:
            choices = ", ".join(repr(name) for name in SHAPES)
            raise ValueError(f"schedule={self.name!r} is unknown; choose from {choices}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup={self.warmup} must lie in [0, 1): it is a part of the budget")

    def factor(self, progress: Progress) -> float:
        r"""Returns what the base learning rate is multiplied with."""
        if progress.fraction < self.warmup:
            return progress.fraction / self.warmup
        return SHAPES[self.name](self, progress)


def _cosine(schedule: Schedule, progress: Progress) -> float:
    fraction = (min(progress.fraction, 1.0) - schedule.warmup) / (1 - schedule.warmup)
    return 0.5 * (1 + math.cos(math.pi * fraction))


def _constant(schedule: Schedule, progress: Progress) -> float:
    return 1.0


def _multistep(schedule: Schedule, progress: Progress) -> float:
    passed = sum(len(progress.val_errors) >= milestone for milestone in schedule.milestones)
    return schedule.decay**passed


def _plateau(schedule: Schedule, progress: Progress) -> float:
    best, waited, decays = math.inf, 0, 0
    for error in progress.val_errors:
        if error < best:
            best, waited = error, 0
        else:
            waited += 1
        if waited == schedule.patience:
            waited, decays = 0, decays + 1
    return schedule.decay**decays


SHAPES: dict[str, Callable[[Schedule, Progress], float]] = {
    "cosine": _cosine,
    "constant": _constant,
    "multistep": _multistep,
    "plateau": _plateau,
}
