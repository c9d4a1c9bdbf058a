from __future__ import annotations

import torch
from torch import Tensor, nn

from pyg_stmamba.nn.decomposition import SeriesDecomposition


class LinearOverTime(nn.Module):
    r"""A linear map from the steps of a window to the steps ahead.

    .. math::
        \hat{y}_{h,c} = \sum_{t=1}^{L} W_{h,t} \, x_{t,c} + b_h

    Args:
        context_points (int): Number of steps in :math:`L`.
        horizon (int): Number of steps ahead :math:`H`.
        shared_weights (bool, optional): Whether all features share the weights; else
            each has :math:`\mathbf{W}` and :math:`\mathbf{b}` of its own. (default: :obj:`True`)
        num_features (int, optional): Number of features :math:`C`, needed for weights that are
            not shared. (default: :obj:`None`, any number)

    Shapes:
        - **input:** :math:`(*, L, C)`
        - **output:** :math:`(*, H, C)`
    """

    def __init__(
        self,
        context_points: int,
        horizon: int,
        shared_weights: bool = True,
        num_features: int | None = None,
    ) -> None:
        super().__init__()
        if context_points < 1 or horizon < 1:
            raise ValueError(
                f"context_points and horizon must be at least 1, got {context_points} and {horizon}"
            )
        groups = []
        if not shared_weights:
            if num_features is None:
                raise ValueError("shared_weights=False needs num_features, got None")
            groups = [num_features]
        self.context_points, self.horizon = context_points, horizon
        self.shared_weights, self.num_features = shared_weights, num_features
        self.weight = nn.Parameter(torch.empty(*groups, horizon, context_points))
        self.bias = nn.Parameter(torch.empty(*groups, horizon))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew, uniformly in :math:`\pm 1 / \sqrt{L}`."""
        bound = self.context_points**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        features = x.size(-1) if self.num_features is None else self.num_features
        if x.dim() < 2 or x.shape[-2:] != (self.context_points, features):
            raise ValueError(
                f"{self!r} takes series [..., {self.context_points}, {self.num_features or 'C'}], "
                f"got {tuple(x.shape)}"
            )
        if self.shared_weights:
            return self.weight @ x + self.bias.unsqueeze(-1)
        return torch.einsum("cht,...tc->...hc", self.weight, x) + self.bias.t()

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.context_points}, {self.horizon}, "
            f"shared_weights={self.shared_weights})"
        )


class DLinear(nn.Module):
    r"""The decomposition-linear forecaster of the `"Are Transformers Effective for Time Series
    Forecasting?" <https://arxiv.org/abs/2205.13504>`_ paper: one linear map over time for the
    trend, one for the rest.

    .. math::
        \hat{\mathbf{y}} = \mathbf{W}_s \, \mathbf{x}^{\textrm{seasonal}} + \mathbf{b}_s +
        \mathbf{W}_t \, \mathbf{x}^{\textrm{trend}} + \mathbf{b}_t

    Args:
        context_points (int): Number of steps in :math:`L`.
        horizon (int): Number of steps ahead :math:`H`.
        kernel_size (int, optional): Number of steps of the moving average.
            (default: :obj:`25`)
        shared_weights (bool, optional): Whether all features share the weights.
            (default: :obj:`True`)
        num_features (int, optional): Number of features :math:`C`, needed for weights that are
            not shared. (default: :obj:`None`, any number)

    Shapes:
        - **input:** :math:`(*, L, C)`
        - **output:** :math:`(*, H, C)`
    """

    def __init__(
        self,
        context_points: int,
        horizon: int,
        kernel_size: int = 25,
        shared_weights: bool = True,
        num_features: int | None = None,
    ) -> None:
        super().__init__()
        self.decomposition = SeriesDecomposition(kernel_size)
        self.seasonal = LinearOverTime(context_points, horizon, shared_weights, num_features)
        self.trend = LinearOverTime(context_points, horizon, shared_weights, num_features)

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        self.seasonal.reset_parameters()
        self.trend.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        seasonal, trend = self.decomposition(x)
        return self.seasonal(seasonal) + self.trend(trend)


class NLinear(nn.Module):
    r"""The normalization-linear forecaster of the `"Are Transformers Effective for Time Series
    Forecasting?" <https://arxiv.org/abs/2205.13504>`_ paper: a linear map over time of what a
    series differs from its last value.

    .. math::
        \hat{\mathbf{y}} = \mathbf{W} \left( \mathbf{x} - x_L \right) + \mathbf{b} + x_L

    Args:
        context_points (int): Number of steps in :math:`L`.
        horizon (int): Number of steps ahead :math:`H`.
        shared_weights (bool, optional): Whether all features share the weights.
            (default: :obj:`True`)
        num_features (int, optional): Number of features :math:`C`, needed for weights that are
            not shared. (default: :obj:`None`, any number)

    Shapes:
        - **input:** :math:`(*, L, C)`
        - **output:** :math:`(*, H, C)`
    """

    def __init__(
        self,
        context_points: int,
        horizon: int,
        shared_weights: bool = True,
        num_features: int | None = None,
    ) -> None:
        super().__init__()
        self.linear = LinearOverTime(context_points, horizon, shared_weights, num_features)

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        self.linear.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        last = x[..., -1:, :]
        return self.linear(x - last) + last
