from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyg_stmamba.nn.norm.reversible_norm import ReversibleNorm, at_least_float32, unknown_mode


class InstanceStatistics(NamedTuple):
    r"""What :class:`RevIN` takes away from a series, and gives back to its forecast.

    Args:
        mean (torch.Tensor): The mean, or the last observed value, :math:`(*, 1, C)`.
        std (torch.Tensor): The standard deviation :math:`(*, 1, C)`.
    """

    mean: Tensor
    std: Tensor


class RevIN(ReversibleNorm):
    r"""The reversible instance normalization of the `"Reversible Instance Normalization for
    Accurate Time-Series Forecasting against Distribution Shift"
    <https://openreview.net/forum?id=cGDAkQo1C0p>`_ paper: each series is normalized by its own
    statistics over time, and its forecast brought back with them.

    .. math::
        \hat{x}_{t,c} = w_c \, \frac{x_{t,c} - \mu_c}{\sigma_c} + b_c, \qquad
        \mu_c = \frac{\sum_t m_{t,c} \, x_{t,c}}{\sum_t m_{t,c}}, \qquad
        \sigma_c^2 = \frac{\sum_t m_{t,c} \, (x_{t,c} - \mu_c)^2}{\sum_t m_{t,c}} + \epsilon

    over the observed steps (:math:`m = 1`). Where nothing is observed :math:`\mu = 0` and
    :math:`\sigma = 1`; missing values are zero after :meth:`norm`, whatever they hold. The module
    keeps nothing between calls: the statistics go along with the series.

    .. code-block:: python

        x_hat, stats = revin.norm(x)
        y = revin.denorm(model(x_hat), stats)

    Args:
        num_features (int): Number of channels :math:`C`.
        eps (float, optional): What is added to the variance, and the smallest weight.
            (default: :obj:`1e-5`)
        affine (bool, optional): If set to :obj:`False`, there are no :math:`w` and :math:`b`.
            (default: :obj:`True`)
        subtract_last (bool, optional): Whether the last observed value takes the place of
            :math:`\mu` in the first formula. (default: :obj:`False`)
        detach_stats (bool, optional): If set to :obj:`False`, gradients also flow through the
            statistics. (default: :obj:`True`)

    Shapes:
        - **input:** series :math:`(*, L, C)`, mask :math:`(*, L, C)` *(optional)*
        - **output:** series :math:`(*, L, C)` and their :class:`InstanceStatistics`
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        subtract_last: bool = False,
        detach_stats: bool = True,
    ) -> None:
        super().__init__(num_features, eps, affine)
        self.subtract_last, self.detach_stats = subtract_last, detach_stats

    def norm(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        stats: InstanceStatistics | None = None,
        channels: Sequence[int] | None = None,
    ) -> tuple[Tensor, InstanceStatistics]:
        r"""Normalizes series, and returns the statistics beside them.

        Args:
            x (torch.Tensor): The series.
            mask (torch.Tensor, optional): Boolean, :obj:`True` = observed, of the shape of
                :obj:`x`. (default: :obj:`None`, all observed)
            stats (InstanceStatistics, optional): Those of other series, as for what a decoder is
                given of the future. (default: :obj:`None`, those of :obj:`x`)
            channels (Sequence[int], optional): Which channels of the given statistics :obj:`x`
                holds, where it does not hold all. (default: :obj:`None`)

        Raises:
            ValueError: If shapes or data types do not fit, or :obj:`channels` are given without
                statistics.
        """
        if stats is None and channels is not None:
            raise ValueError(f"channels={channels} choose among given statistics; pass stats=...")
        self._check(x, channels)
        missing = None if mask is None else ~self._checked_mask(x, mask)
        values = at_least_float32(x)
        if missing is not None:
            values = values.masked_fill(missing, 0.0)
        if stats is None:
            stats = self._statistics(values.detach() if self.detach_stats else values, missing)
        x_hat = self._normalize(values, *stats, channels)
        if missing is not None:
            x_hat = x_hat.masked_fill(missing, 0.0)
        return x_hat.to(x.dtype), stats

    def denorm(
        self, y: Tensor, stats: InstanceStatistics, channels: Sequence[int] | None = None
    ) -> Tensor:
        r"""Brings forecasts of normalized series back to the units of the series.

        Args:
            y (torch.Tensor): The forecasts :math:`(*, H, C')`.
            stats (InstanceStatistics): What :meth:`norm` returned.
            channels (Sequence[int], optional): Which channels :obj:`y` holds, where it does not
                hold all. (default: :obj:`None`)
        """
        self._check(y, channels)
        return self._denormalize(y, *stats, channels)

    def forward(
        self,
        x: Tensor,
        mode: str = "norm",
        mask: Tensor | None = None,
        stats: InstanceStatistics | None = None,
        channels: Sequence[int] | None = None,
    ) -> tuple[Tensor, InstanceStatistics] | Tensor:
        r"""Runs :meth:`norm` or :meth:`denorm`.

        Args:
            mode (str, optional): :obj:`"norm"` or :obj:`"denorm"`. (default: :obj:`"norm"`)
        """
        if mode == "norm":
            return self.norm(x, mask, stats, channels)
        if mode != "denorm":
            raise unknown_mode(mode)
        if stats is None:
            raise ValueError("mode='denorm' needs the stats that mode='norm' returned")
        return self.denorm(x, stats, channels)

    def _statistics(self, values: Tensor, missing: Tensor | None) -> InstanceStatistics:
        """Those of series that are zero where they are missing."""
        if missing is None:
            missing = torch.zeros_like(values, dtype=torch.bool)
        observed = (~missing).sum(-2, keepdim=True)
        count = observed.clamp(min=1)
        mean = values.sum(-2, keepdim=True) / count
        deviation = (values - mean).masked_fill(missing, 0.0)
        # The mean of large values has lost digits, which the mean of the deviations gives back.
        rest = deviation.sum(-2, keepdim=True) / count
        square = (deviation - rest).masked_fill(missing, 0.0).square()
        std = (square.sum(-2, keepdim=True) / count + self.eps).sqrt()
        if self.subtract_last:
            steps = torch.arange(values.size(-2), device=values.device).unsqueeze(-1)
            last = steps.expand_as(values).masked_fill(missing, 0).amax(-2, keepdim=True)
            mean = values.gather(-2, last)
        else:
            mean = mean + rest
        return InstanceStatistics(mean, std.masked_fill(observed == 0, 1.0))

    def _checked_mask(self, x: Tensor, mask: Tensor) -> Tensor:
        if mask.shape != x.shape or mask.dtype != torch.bool:
            raise ValueError(
                f"mask must be boolean (True = observed) and of the shape of x, {tuple(x.shape)}, "
                f"got {tuple(mask.shape)} and dtype {mask.dtype}"
            )
        return mask

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.num_features}, affine={self.affine}, "
            f"subtract_last={self.subtract_last})"
        )
