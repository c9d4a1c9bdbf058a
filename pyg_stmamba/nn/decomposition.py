from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MovingAvg(nn.Module):
    r"""The moving average of series, which start and end with their first and last value
    repeated.

    .. math::
        \bar{x}_t = \frac{1}{k} \sum_{j=-\lfloor k/2 \rfloor}^{\lceil k/2 \rceil - 1}
        x_{\min(\max(t + j, 1), L)}

    or, if causal, over :math:`t - k + 1, \ldots, t`. The length is kept for even :math:`k` too.

    Args:
        kernel_size (int): Number of steps :math:`k` of the average.
        stride (int, optional): Gives the average of every so many steps, the first among them.
            (default: :obj:`1`)
        causal (bool, optional): Whether to average over a step and those before it only.
            (default: :obj:`False`)

    Shapes:
        - **input:** :math:`(*, L, C)`
        - **output:** :math:`(*, \lceil L / \textrm{stride} \rceil, C)`
    """

    def __init__(self, kernel_size: int, stride: int = 1, causal: bool = False) -> None:
        super().__init__()
        if kernel_size < 1 or stride < 1:
            raise ValueError(
                f"kernel_size and stride must be at least 1, got {kernel_size} and {stride}"
            )
        self.kernel_size, self.stride, self.causal = kernel_size, stride, causal

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 2 or x.size(-2) < 1:
            raise ValueError(
                f"{self!r} takes series [..., L, C] with a step or more, got {tuple(x.shape)}"
            )
        after = 0 if self.causal else (self.kernel_size - 1) // 2
        before = self.kernel_size - 1 - after
        first = x[..., :1, :].expand(*x.shape[:-2], before, x.size(-1))
        last = x[..., -1:, :].expand(*x.shape[:-2], after, x.size(-1))
        padded = torch.cat([first, x, last], dim=-2)
        # Pooling knows [batch, C, L] only.
        padded = padded.reshape(math.prod(x.shape[:-2]), *padded.shape[-2:]).transpose(1, 2)
        average = F.avg_pool1d(padded, self.kernel_size, self.stride).transpose(1, 2)
        return average.reshape(*x.shape[:-2], *average.shape[-2:])

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.kernel_size}, stride={self.stride}, "
            f"causal={self.causal})"
        )


class SeriesDecomposition(nn.Module):
    r"""The series decomposition of the `"Autoformer: Decomposition Transformers with
    Auto-Correlation for Long-Term Series Forecasting" <https://arxiv.org/abs/2106.13008>`_ paper:
    a moving average is the trend, the rest is the seasonal part.

    .. math::
        \mathbf{x} = \mathbf{x}^{\textrm{seasonal}} + \mathbf{x}^{\textrm{trend}}, \qquad
        \mathbf{x}^{\textrm{trend}} = \textrm{MovingAvg}(\mathbf{x})

    Args:
        kernel_size (int): Number of steps of the average.
        causal (bool, optional): Whether to average over a step and those before it only.
            (default: :obj:`False`)

    Shapes:
        - **input:** :math:`(*, L, C)`
        - **output:** the seasonal part and the trend, :math:`(*, L, C)` each
    """

    def __init__(self, kernel_size: int, causal: bool = False) -> None:
        super().__init__()
        self.moving_avg = MovingAvg(kernel_size, causal=causal)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        trend = self.moving_avg(x)
        return x - trend, trend

    def __repr__(self) -> str:
        moving_avg = self.moving_avg
        return f"{self.__class__.__name__}({moving_avg.kernel_size}, causal={moving_avg.causal})"
