from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def warm_ema(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    r"""Returns the step of an exponential moving average that forgets the initial weights at
    once, to be used as :obj:`multi_avg_fn` of :class:`torch.optim.swa_utils.AveragedModel`:

    .. math::
        \bar{\mathbf{w}}_n = d_n \bar{\mathbf{w}}_{n-1} + (1 - d_n) \mathbf{w}_n, \qquad
        d_n = \min \left( d, \tfrac{1 + n}{10 + n} \right)

    With a constant decay of 0.999, a tenth of what is validated would still be the untrained
    weights after 2300 steps.

    Args:
        decay (float): The decay :math:`d` that is reached in the end, in :math:`[0, 1)`.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"ema_decay={decay} must lie in [0, 1), as 0.999 does")

    @torch.no_grad()
    def update(averages: list[Tensor], weights: list[Tensor], count: Tensor) -> None:
        n = float(count)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + n) / (10 + n)))

    return update
