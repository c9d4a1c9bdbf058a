from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

NextStep = Callable[[Tensor, Tensor, int], Tensor]


def roll_out(
    next_step: NextStep,
    values: Tensor,
    known: Tensor,
    start_len: int = 0,
    truth_ratio: float = 0.0,
    progress: bool = False,
) -> Tensor:
    r"""Forecasts one step after the other and feeds each forecast back; gradients flow through
    what is fed back.

    Args:
        next_step (callable): Forecasts step :obj:`t` from the values and flags before it, called
            as :obj:`next_step(values, known, t)`. Both have their full length: what has not been
            forecast yet is unknown and zero.
        values (torch.Tensor): True values.
        known (torch.Tensor): Boolean, which of them are known.
        start_len (int, optional): How many steps are given. (default: :obj:`0`)
        truth_ratio (float, optional): The probability with which a true value is fed back in the
            place of a forecast, as in `"Scheduled Sampling for Sequence Prediction with Recurrent
            Neural Networks" <https://arxiv.org/abs/1506.03099>`_. (default: :obj:`0.0`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`False`)

    Shapes:
        - **input:** :math:`(B, L, M)`; a step's forecast is :math:`(*, B, M)`, and the first of
          several is fed back
        - **output:** :math:`(*, B, L - \textrm{start\\_len}, M)`
    """
    steps = values.size(1)
    series = list(values[:, :start_len].unbind(1))
    flags = list(known[:, :start_len].unbind(1))
    nothing = torch.zeros_like(values[:, 0])
    forecasts = []
    for t in tqdm(range(start_len, steps), desc="forecast", disable=not progress, leave=False):
        left = steps - t
        so_far = torch.stack(series + [nothing] * left, 1)
        y = next_step(so_far, torch.stack(flags + [nothing.bool()] * left, 1), t)
        forecasts.append(y)
        own = y if y.dim() == 2 else y[0]
        flag = torch.ones_like(own, dtype=torch.bool)
        if truth_ratio > 0:
            true = torch.rand_like(own) < truth_ratio
            own, flag = values[:, t].where(true, own), known[:, t].where(true, flag)
        series.append(own)
        flags.append(flag)
    return torch.stack(forecasts, -2)


def sampling_ratio(passes: int, k: float) -> float:
    r"""The probability with which training feeds a true value back, by inverse sigmoid decay.

    .. math::
        \frac{k}{k + e^{s / k}}

    Args:
        passes (int): The number :math:`s` of training passes so far.
        k (float): How slowly it decays.
    """
    # As 1 / (1 + e^{s/k} / k), whose exponential does not overflow.
    exponent = min(passes / k, 700.0)
    return 1 / (1 + math.exp(exponent) / k)
