from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pyg_stmamba.nn import Dropout


class Readout(nn.Module):
    r"""A residual multilayer perceptron from features to forecasts, as in `"Spatial-Temporal
    Identity: A Simple yet Effective Baseline for Multivariate Time Series Forecasting"
    <https://arxiv.org/abs/2208.05233>`_.

    .. math::
        \mathbf{h}_0 = \mathbf{W} \mathbf{x} + \mathbf{b}, \qquad
        \mathbf{h}_l = \mathbf{h}_{l-1} + \mathbf{V}_l \, \mathrm{Drop} \left( \mathrm{ReLU}
        \left( \mathbf{U}_l \mathbf{h}_{l-1} \right) \right), \qquad
        \mathbf{y} = \mathbf{W}_o \mathbf{h}_L

    Args:
        in_channels (int): Size of the features.
        hidden_channels (int): Width of the hidden representation.
        out_channels (int): Size of the output.
        num_layers (int, optional): Number of residual layers; with :obj:`0` the map is linear.
            (default: :obj:`2`)
        dropout (float, optional): Dropout within the residual layers. (default: :obj:`0.1`)

    Shapes:
        - **input:** :math:`(*, C_{in})`
        - **output:** :math:`(*, C_{out})`
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_layers: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.first = nn.Linear(in_channels, hidden_channels)
        self.inner = nn.ModuleList(
            nn.Linear(hidden_channels, hidden_channels) for _ in range(num_layers)
        )
        self.outer = nn.ModuleList(
            nn.Linear(hidden_channels, hidden_channels) for _ in range(num_layers)
        )
        self.last = nn.Linear(hidden_channels, out_channels)
        self.dropout = Dropout(dropout)

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters."""
        for linear in (self.first, *self.inner, *self.outer, self.last):
            linear.reset_parameters()  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        for inner, outer in zip(self.inner, self.outer):
            h = h + outer(self.dropout(F.relu(inner(h))))
        return self.last(h)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.first.in_features}, {self.first.out_features}, "
            f"{self.last.out_features}, num_layers={len(self.inner)})"
        )
