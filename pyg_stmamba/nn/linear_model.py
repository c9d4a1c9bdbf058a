from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn


class LinearModel(nn.Module):
    r"""The linear autoregression that forecasters such as that of the `"Long-Range Transformers
    for Dynamic Spatiotemporal Forecasting" <https://arxiv.org/abs/2109.12218>`_ paper add to what
    they learn: each step is a weighted sum of the :math:`W` steps before it, and forecasts are
    fed back.

    .. math::
        \hat{y}_{T+h} = b + \sum_{j=1}^{W} w_j \, z_{T+h-1-W+j}, \qquad
        z = (x_1, \ldots, x_T, \hat{y}_{T+1}, \ldots)

    for :math:`h = 1, \ldots, H`. What comes from the series and what comes from the forecasts are
    two parts of one band matrix :math:`[\mathbf{U} \, \mathbf{V}]`, :math:`\mathbf{V}` strictly
    lower triangular; so all steps follow from one product and one substitution,
    :math:`(\mathbf{I} - \mathbf{V}) \, \hat{\mathbf{y}} = \mathbf{U} \mathbf{x} + b`.

    Args:
        context_points (int): Number of steps :math:`W` that a step is made of. Of a longer series
            the last ones are used; a shorter one starts with its first value repeated.
        shared_weights (bool, optional): Whether all variables share the weights, and there may be
            any number of them. (default: :obj:`False`)
        d_yt (int, optional): Number of variables :math:`C`. (default: :obj:`7`)

    Shapes:
        - **input:** :math:`(*, L, C)`
        - **output:** :math:`(*, H, C)`
    """

    def __init__(self, context_points: int, shared_weights: bool = False, d_yt: int = 7) -> None:
        super().__init__()
        if context_points < 1 or d_yt < 1:
            raise ValueError(
                f"context_points and d_yt must be at least 1, got {context_points} and {d_yt}"
            )
        self.context_points, self.shared_weights, self.d_yt = context_points, shared_weights, d_yt
        groups = 1 if shared_weights else d_yt
        self.weight = nn.Parameter(torch.empty(groups, context_points))
        self.bias = nn.Parameter(torch.empty(groups))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew, uniformly in :math:`\pm 1 / \sqrt{W}`."""
        bound = self.context_points**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, context: Tensor, horizon: int) -> Tensor:
        r"""Runs the forward pass.

        Args:
            context (torch.Tensor): The series.
            horizon (int): Number of steps ahead :math:`H`.
        """
        self._check(context, horizon)
        recent = context[..., -self.context_points :, :]
        short = self.context_points - recent.size(-2)
        first = recent[..., :1, :].expand(*recent.shape[:-2], short, recent.size(-1))
        # A recursion carries rounding on, so it runs in float32 at least.
        dtype = torch.promote_types(context.dtype, torch.float32)
        window = torch.cat([first, recent], dim=-2).to(dtype)
        window = window.reshape(math.prod(context.shape[:-2]), *window.shape[-2:])
        with torch.autocast(context.device.type, enabled=False):
            window = rearrange(window, "b w (g v) -> g w (b v)", g=self.weight.size(0))
            of_series, of_forecasts = (
                self._band(horizon).to(dtype).tensor_split([self.context_points], dim=-1)
            )
            driven = of_series @ window + self.bias[:, None, None].to(dtype)
            # The ones on the diagonal of I - V are implied.
            y = torch.linalg.solve_triangular(
                -of_forecasts, driven, upper=False, unitriangular=True
            )
        y = rearrange(y, "g h (b v) -> b h (g v)", v=context.size(-1) // self.weight.size(0))
        return y.reshape(*context.shape[:-2], *y.shape[-2:]).to(context.dtype)

    def _band(self, horizon: int) -> Tensor:
        """The weight of each step of series and forecasts, [groups, H, W + H]."""
        device = self.weight.device
        steps = torch.arange(self.context_points + horizon, device=device)
        place = steps - torch.arange(horizon, device=device).unsqueeze(-1)
        outside = (place < 0) | (place >= self.context_points)
        weight = self.weight[:, place.clamp(0, self.context_points - 1)]
        return weight.masked_fill(outside, 0.0)

    def _check(self, context: Tensor, horizon: int) -> None:
        fits = self.shared_weights or context.size(-1) == self.d_yt
        if context.dim() < 2 or context.size(-2) < 1 or not fits:
            channels = "C" if self.shared_weights else self.d_yt
            raise ValueError(
                f"{self!r} takes series [..., L, {channels}] with a step or more, got "
                f"{tuple(context.shape)}"
            )
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1, got {horizon}")

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.context_points}, "
            f"shared_weights={self.shared_weights}, d_yt={self.d_yt})"
        )
