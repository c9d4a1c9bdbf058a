from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyg_stmamba.nn.decomposition import MovingAvg, SeriesDecomposition
from pyg_stmamba.nn.linear_model import LinearModel
from pyg_stmamba.nn.norm import GlobalNorm, InstanceStatistics, RevIN


class Framed(NamedTuple):
    r"""What :class:`SeriesFrame` keeps of a context to bring forecasts back.

    Args:
        seasonal (torch.Tensor): What the transformer sees of the context :math:`(B, L, N)`.
        observed (torch.Tensor): Which targets were observed :math:`(B, L, M)`.
        filled (torch.Tensor): The normalized context of the targets :math:`(B, L, M)`, with the
            last observed value where one is missing.
        trend (torch.Tensor): Its trend, or the same where nothing is decomposed.
        stats (InstanceStatistics, optional): What RevIN took out.
    """

    seasonal: Tensor
    observed: Tensor
    filled: Tensor
    trend: Tensor
    stats: InstanceStatistics | None


class SeriesFrame(nn.Module):
    r"""What happens to series before and after a transformer forecasts them: normalized,
    decomposed, a linear model on the trend, and back.

    .. math::
        \hat{\mathbf{y}} = \mathrm{Norm}^{-1} \left( f(\mathbf{s}) + \mathrm{Linear}(\mathbf{t})
        \right), \qquad \mathbf{s} + \mathbf{t} = \mathrm{Norm}(\mathbf{y})

    Without decomposition both branches see the whole series; without anything the frame is empty.

    Args:
        num_context (int): Number :math:`N` of context variables.
        target_index (Sequence[int]): The context variable of each of the :math:`M` targets.
        global_norm (GlobalNorm, optional): Statistics of the training data.
            (default: :obj:`None`)
        use_revin (bool, optional): Whether each window is normalized by its own statistics.
            (default: :obj:`False`)
        kernel_size (int, optional): Number of steps of the moving average that is the trend;
            :obj:`None` for no decomposition. (default: :obj:`None`)
        linear_window (int, optional): Number of steps that the linear model sees; :obj:`0` for
            none. (default: :obj:`0`)
        linear_shared_weights (bool, optional): Whether all variables share its weights.
            (default: :obj:`True`)
    """

    def __init__(
        self,
        num_context: int,
        target_index: Sequence[int],
        global_norm: GlobalNorm | None = None,
        use_revin: bool = False,
        kernel_size: int | None = None,
        linear_window: int = 0,
        linear_shared_weights: bool = True,
    ) -> None:
        super().__init__()
        if kernel_size is not None and not linear_window:
            raise ValueError(
                "use_seasonal_decomp=True takes the trend out and needs a linear model that "
                "forecasts it, got linear_window=0"
            )
        self.target_index = list(target_index)
        self.global_norm = global_norm
        self.revin = RevIN(num_context) if use_revin else None
        self.decomposition = None if kernel_size is None else SeriesDecomposition(kernel_size)
        # What a decoder is given must not know of what comes later.
        self.causal_trend = None if kernel_size is None else MovingAvg(kernel_size, causal=True)
        self.linear = None
        if linear_window:
            self.linear = LinearModel(linear_window, linear_shared_weights, len(self.target_index))

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters; fitted statistics stay."""
        for module in (self.revin, self.linear):
            if module is not None:
                module.reset_parameters()

    def context(self, y: Tensor, observed: Tensor) -> Framed:
        r"""Normalizes and decomposes a context.

        Args:
            y (torch.Tensor): The values :math:`(B, L, N)`.
            observed (torch.Tensor): Boolean, :obj:`True` = observed.
        """
        y = y.masked_fill(~observed, 0.0)
        if self.global_norm is not None:
            y = self.global_norm.norm(y).masked_fill(~observed, 0.0)
        stats = None
        if self.revin is not None:
            y, stats = self.revin.norm(y, observed)
        filled = fill_forward(y, observed)
        seasonal, trend = y, filled
        if self.decomposition is not None:
            seasonal, trend = self.decomposition(filled)
        observed, filled, trend = (v[..., self.target_index] for v in (observed, filled, trend))
        return Framed(seasonal, observed, filled, trend, stats)

    def normalize_targets(self, y: Tensor, observed: Tensor, framed: Framed) -> Tensor:
        r"""Normalizes target values :math:`(B, L', M)` as their context was."""
        y = y.masked_fill(~observed, 0.0)
        if self.global_norm is not None:
            y = self.global_norm.norm(y, self.target_index)
        if self.revin is not None and framed.stats is not None:
            y, _ = self.revin.norm(y, stats=framed.stats, channels=self.target_index)
        return y.masked_fill(~observed, 0.0)

    def start(
        self, values: Tensor, known: Tensor, framed: Framed, start_len: int
    ) -> tuple[Tensor, Tensor]:
        r"""What the transformer sees of normalized target values when only the first
        :obj:`start_len` are given, the last of the context."""
        steps = torch.arange(values.size(1), device=values.device).unsqueeze(-1)
        known = known & (steps < start_len)
        if self.decomposition is not None:
            length = framed.trend.size(1)
            trend = framed.trend[:, length - start_len :]
            values = values - F.pad(trend, (0, 0, 0, values.size(1) - start_len))
        return values.masked_fill(~known, 0.0), known

    def shifted(
        self, values: Tensor, known: Tensor, framed: Framed, start_len: int
    ) -> tuple[Tensor, Tensor]:
        r"""What the transformer sees of normalized target values when each step shows the one
        before it, and whether that one is known; the first shows the context, where it goes back
        that far. No value has an influence on what earlier steps show.

        Args:
            values (torch.Tensor): The values :math:`(B, L', M)`, the first :obj:`start_len` of
                which are the last of the context.
            known (torch.Tensor): Boolean, which of them are known.
            framed (Framed): The context.
            start_len (int): How many lie in the context.
        """
        before = framed.filled.size(1) - start_len
        past = framed.filled[:, :before]
        series = torch.cat([past, values], 1)
        if self.causal_trend is not None:
            series = fill_forward(series, torch.cat([torch.ones_like(past).bool(), known], 1))
            series = series - self.causal_trend(series)
        nothing = torch.zeros_like(values[:, :1])
        seen = torch.cat([nothing, series], 1)
        given = torch.cat([nothing.bool(), framed.observed[:, :before], known], 1)
        steps = values.size(1) + 1
        return seen[:, -steps:-1], given[:, -steps:-1]

    def baseline(self, framed: Framed, horizon: int) -> Tensor | float:
        r"""Returns the linear forecast of the trend :math:`(B, H, M)`, or zero."""
        return 0.0 if self.linear is None else self.linear(framed.trend, horizon)

    def restore(self, y: Tensor, framed: Framed) -> Tensor:
        r"""Brings normalized forecasts :math:`(*, B, H, M)` back to original units."""
        if self.revin is not None and framed.stats is not None:
            y = self.revin.denorm(y, framed.stats, self.target_index)
        if self.global_norm is not None:
            y = self.global_norm.denorm(y, self.target_index)
        return y


def fill_forward(y: Tensor, observed: Tensor) -> Tensor:
    r"""Puts the last observed value in the place of each missing one, and zero where there is no
    earlier one.

    Args:
        y (torch.Tensor): Series :math:`(*, L, N)`.
        observed (torch.Tensor): Boolean, :obj:`True` = observed.
    """
    steps = torch.arange(y.size(-2), device=y.device).unsqueeze(-1)
    last = steps.where(observed, -1).cummax(-2).values
    return y.gather(-2, last.clamp(min=0)).masked_fill(last < 0, 0.0)
