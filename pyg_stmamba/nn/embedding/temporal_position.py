from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pyg_stmamba.nn.embedding.position import PositionEmbedding


class TemporalPositionalEncoding(nn.Module):
    r"""Adds to each step, or frame, a learned vector that says when it was, as the `"Is Space-Time
    Attention All You Need for Video Understanding?" <https://arxiv.org/abs/2102.05095>`_ paper
    does.

    .. math::
        \mathbf{y}_t = \mathbf{x}_t + \mathbf{p}_t

    Args:
        dim (int): Size :math:`D` of each step.
        max_len (int): Number of learned vectors.
        interpolate (bool, optional): Whether the vectors span series of any length, stretched or
            squeezed linearly where that is not :obj:`max_len`. Otherwise step :math:`t` has vector
            :math:`t`, and no series may be longer. (default: :obj:`False`)

    Shapes:
        - **input:** :math:`(*, T, D)`
        - **output:** :math:`(*, T, D)`

    Raises:
        ValueError: If :obj:`max_len` is not positive, or a series is longer although
            :obj:`interpolate` is :obj:`False`.
    """

    def __init__(self, dim: int, max_len: int, interpolate: bool = False) -> None:
        super().__init__()
        if max_len < 1:
            raise ValueError(f"max_len must be at least 1, got {max_len}")
        self.dim, self.max_len, self.interpolate = dim, max_len, interpolate
        self.table = PositionEmbedding(dim, "learned", max_len)

    def reset_parameters(self) -> None:
        r"""Draws the vectors anew."""
        self.table.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        steps = x.size(-2)
        if self.interpolate and steps != self.max_len:
            every = self.table(self.max_len).t().unsqueeze(0)
            place = F.interpolate(every, steps, mode="linear").squeeze(0).t()
        elif steps > self.max_len:
            raise ValueError(
                f"{self!r} knows {self.max_len} steps, got a series of {steps}; build it with a "
                f"larger max_len or with interpolate=True"
            )
        else:
            place = self.table(steps)
        return x + place.to(x.dtype)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.dim}, max_len={self.max_len}, "
            f"interpolate={self.interpolate})"
        )
