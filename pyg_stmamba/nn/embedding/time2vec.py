from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Time2Vec(nn.Module):
    r"""The vector of a time of the `"Time2Vec: Learning a Vector Representation of Time"
    <https://arxiv.org/abs/1907.05321>`_ paper, for each of several features of a time.

    .. math::
        \mathbf{y}_{c} = \left[ w_{c,0} x_c + b_{c,0}, \; f(w_{c,1} x_c + b_{c,1}), \; \ldots, \;
        f(w_{c,k-1} x_c + b_{c,k-1}) \right], \qquad k = D / C

    The first entry of each feature is linear, the others are periodic; the entries of one feature
    stand side by side.

    Args:
        input_dim (int): Number of features :math:`C`.
        embed_dim (int): Size of the output :math:`D`, a multiple of :obj:`input_dim`; :obj:`0`
            hands the input on as it is.
        act_function (callable, optional): The periodic function :math:`f`.
            (default: :obj:`torch.sin`)

    Shapes:
        - **input:** :math:`(*, C)`
        - **output:** :math:`(*, D)`, or :math:`(*, C)` if :obj:`embed_dim` is :obj:`0`

    Raises:
        ValueError: If there is no feature, or :obj:`embed_dim` is not a multiple of their number.
    """

    def __init__(
        self,
        input_dim: int,
        embed_dim: int,
        act_function: Callable[[Tensor], Tensor] = torch.sin,
    ) -> None:
        super().__init__()
        if input_dim < 1:
            raise ValueError(f"input_dim must be at least 1, got {input_dim}")
        if embed_dim < 0 or embed_dim % input_dim != 0:
            raise ValueError(
                f"embed_dim must be 0 or a multiple of input_dim ({input_dim}), got {embed_dim}"
            )
        self.input_dim = input_dim
        self.embed_dim = embed_dim
        self.enabled = embed_dim > 0
        self.act_function = act_function
        if self.enabled:
            shape = (input_dim, embed_dim // input_dim)
            self.weight = nn.Parameter(torch.empty(shape))
            self.bias = nn.Parameter(torch.empty(shape))
        else:
            self.register_parameter("weight", None)
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew, from the standard normal distribution."""
        for parameter in self.parameters(recurse=False):
            nn.init.normal_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 0 or x.size(-1) != self.input_dim:
            raise ValueError(
                f"expected {self.input_dim} feature(s) in the last dimension, got a tensor of "
                f"shape {list(x.shape)}"
            )
        if not self.enabled:
            return x
        phase = x.unsqueeze(-1) * self.weight + self.bias
        waves = self.act_function(phase[..., 1:])
        return torch.cat([phase[..., :1], waves], dim=-1).flatten(-2)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.input_dim}, {self.embed_dim})"
