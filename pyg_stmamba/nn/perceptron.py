from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Perceptron(nn.Module):
    r"""A multilayer perceptron with ReLU, and a layer norm at its end if asked for.

    .. math::
        \mathbf{h}_0 = \mathbf{W}_0 \mathbf{x} + \mathbf{b}_0, \qquad
        \mathbf{h}_l = \mathbf{W}_l \, \mathrm{ReLU}(\mathbf{h}_{l-1}) + \mathbf{b}_l, \qquad
        \mathbf{y} = \mathrm{Norm}(\mathbf{h}_L)

    Args:
        in_channels (int): Size of the input.
        hidden_channels (int): Width of the hidden layers.
        out_channels (int): Size of the output.
        num_layers (int, optional): Number of hidden layers :math:`L`, at least 1.
            (default: :obj:`1`)
        norm (bool, optional): Whether the output is normalized. (default: :obj:`False`)

    Shapes:
        - **input:** :math:`(*, C_{in})`
        - **output:** :math:`(*, C_{out})`

    Raises:
        ValueError: If there is no hidden layer.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_layers: int = 1,
        norm: bool = False,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {num_layers}")
        self.first = nn.Linear(in_channels, hidden_channels)
        self.inner = nn.ModuleList(
            nn.Linear(hidden_channels, hidden_channels) for _ in range(num_layers - 1)
        )
        self.last = nn.Linear(hidden_channels, out_channels)
        self.norm = nn.LayerNorm(out_channels) if norm else nn.Identity()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        for linear in (self.first, *self.inner, self.last):
            linear.reset_parameters()  # type: ignore[operator]
        if isinstance(self.norm, nn.LayerNorm):
            self.norm.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.last(self.hidden(self.first(x))))

    def hidden(self, h: Tensor) -> Tensor:
        r"""Returns what the last linear map takes, from what the first one gives, in place."""
        h = F.relu(h, inplace=True)
        for linear in self.inner:
            h = F.relu(linear(h), inplace=True)
        return h

    def __repr__(self) -> str:
        norm = ", norm=True" if isinstance(self.norm, nn.LayerNorm) else ""
        return (
            f"{type(self).__name__}({self.first.in_features}, {self.first.out_features}, "
            f"{self.last.out_features}, num_layers={len(self.inner) + 1}{norm})"
        )
