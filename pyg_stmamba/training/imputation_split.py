from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyg_stmamba.data import TemporalGraph

PARTS = ("train", "val", "test")


class ImputationSplit(NamedTuple):
    r"""Which steps of a series train an imputer, choose its best epoch, and measure it.

    Args:
        train (torch.Tensor): Boolean :math:`[T]`.
        val (torch.Tensor): Boolean :math:`[T]`.
        test (torch.Tensor): Boolean :math:`[T]`.
    """

    train: Tensor
    val: Tensor
    test: Tensor


def split_months(
    graph: TemporalGraph, test_months: Sequence[int] = (3, 6, 9, 12), val: float = 0.1
) -> ImputationSplit:
    r"""Tests on some months of the year, as published results on AQI-36 do, and trains on the
    others but for the last part of each uninterrupted stretch of them, which validates.

    Args:
        graph (TemporalGraph): The series, with time stamps.
        test_months (Sequence[int], optional): From 1 to 12. (default: :obj:`(3, 6, 9, 12)`)
        val (float, optional): The part of the training steps that validates.
            (default: :obj:`0.1`)
    """
    if graph.timestamps is None:
        raise ValueError("a split by months needs a graph with time stamps; use split_time")
    if not set(test_months) <= set(range(1, 13)) or not test_months:
        raise ValueError(f"test_months={tuple(test_months)} must be some of 1 to 12")
    stamps = graph.timestamps[0].cpu().numpy().astype("datetime64[s]")
    month = stamps.astype("datetime64[M]").astype(int) % 12 + 1
    return _hold_out(torch.from_numpy(np.isin(month, list(test_months))), val)


def split_time(graph: TemporalGraph, val: float = 0.1, test: float = 0.2) -> ImputationSplit:
    r"""Tests on the last part of the series, and validates on the last part of what is before.

    Args:
        graph (TemporalGraph): The series.
        val (float, optional): The part of the training steps that validates.
            (default: :obj:`0.1`)
        test (float, optional): The part of all steps that tests. (default: :obj:`0.2`)
    """
    steps = torch.arange(graph.num_steps)
    return _hold_out(steps >= round((1 - test) * graph.num_steps), val)


def starts_within(steps: Tensor, window: int) -> Tensor:
    r"""Returns the first steps of all windows that lie within the given steps :math:`[T]`
    as a whole."""
    inside = torch.cat([torch.zeros(1, dtype=torch.long), steps.long().cumsum(0)])
    return (inside[window:] - inside[:-window] == window).nonzero().flatten()


def _hold_out(test: Tensor, val: float) -> ImputationSplit:
    train = ~test
    held = torch.zeros_like(train)
    edges = torch.diff(torch.cat([torch.tensor([0]), train.long(), torch.tensor([0])]))
    for first, last in zip((edges == 1).nonzero().flatten(), (edges == -1).nonzero().flatten()):
        held[last - round(val * int(last - first)) : last] = True
    return ImputationSplit(train & ~held, held, test)
