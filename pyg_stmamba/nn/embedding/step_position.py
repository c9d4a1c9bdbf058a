from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn


class StepPosition(nn.Module):
    r"""What tells the steps of a series apart: a learned vector each, or the waves of the
    `"Attention Is All You Need" <https://arxiv.org/abs/1706.03762>`_ paper.

    .. math::
        p_{t, 2i} = \sin \left( t / 10000^{2i / C} \right), \qquad
        p_{t, 2i + 1} = \cos \left( t / 10000^{2i / C} \right)

    Args:
        channels (int): Size :math:`C` of a step.
        kind (str, optional): :obj:`"learned"`, :obj:`"sinusoidal"`, or :obj:`None` for zeros.
            (default: :obj:`"learned"`)
        max_length (int, optional): Number of learned positions. (default: :obj:`512`)

    Shapes:
        - **input:** the first step and the number of steps
        - **output:** :math:`(T, C)`
    """

    weight: Tensor | None

    def __init__(
        self,
        channels: int,
        kind: Literal["learned", "sinusoidal"] | None = "learned",
        max_length: int = 512,
    ) -> None:
        super().__init__()
        if kind not in ("learned", "sinusoidal", None):
            raise ValueError(f"unknown position {kind!r}; choose 'learned', 'sinusoidal' or None")
        self.channels, self.kind, self.max_length = channels, kind, max_length
        weight = nn.Parameter(torch.empty(max_length, channels)) if kind == "learned" else None
        self.register_parameter("weight", weight)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws learned positions anew."""
        if self.weight is not None:
            nn.init.normal_(self.weight, std=0.02)

    def forward(self, start: int, steps: int, like: Tensor) -> Tensor:
        r"""Returns the positions of the steps from :obj:`start` on, with the dtype and on the
        device of :obj:`like`."""
        if self.weight is not None:
            if start + steps > self.max_length:
                raise ValueError(
                    f"there are {self.max_length} learned positions, but the series reaches "
                    f"{start + steps} steps; build the operator with a larger max_length, or with "
                    f"position='sinusoidal' or None"
                )
            return self.weight[start : start + steps].to(like)
        if self.kind is None:
            return like.new_zeros(steps, self.channels)
        time = torch.arange(start, start + steps, device=like.device, dtype=torch.float64)
        half = torch.arange(0, self.channels, 2, device=like.device, dtype=torch.float64)
        phase = time[:, None] * torch.exp(-math.log(10000.0) / self.channels * half)
        waves = torch.stack([phase.sin(), phase.cos()], dim=-1).flatten(-2)
        return waves[:, : self.channels].to(like)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, kind={self.kind!r})"
