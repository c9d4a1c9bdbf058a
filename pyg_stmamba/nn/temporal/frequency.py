from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from pyg_stmamba.nn.temporal.temporal_operator import TemporalOperator
from pyg_stmamba.nn.transformer.frequency_attention import FrequencyAttention


class TemporalFrequency(TemporalOperator):
    r"""The frequency attention of the `"FEDformer: Frequency Enhanced Decomposed Transformer for
    Long-term Series Forecasting" <https://arxiv.org/abs/2201.12740>`_ paper, over the time of each
    node; see :class:`FrequencyAttention`.

    It is non-causal and cannot stream: each output depends on the whole series. Unobserved steps
    enter the Fourier transform as zero.

    Args:
        channels (int): Size of each step, in and out.
        heads (int, optional): Number of heads; they share the channels. (default: :obj:`4`)
        modes (int, optional): Number of frequencies; a series of :math:`T` steps has
            :math:`\lfloor T / 2 \rfloor + 1`, and all are taken if there are no more.
            (default: :obj:`32`)
        mode_select (str, optional): Which ones, :obj:`"low"` or :obj:`"random"`.
            (default: :obj:`"low"`)
        activation (str, optional): Of products of queries and keys, :obj:`"tanh"` or
            :obj:`"softmax"`. (default: :obj:`"tanh"`)
        variant (str, optional): :obj:`"fea"` for attention among frequencies, :obj:`"feb"` for a
            learned matrix at each. (default: :obj:`"fea"`)
        dropout (float, optional): Dropout probability of Fourier coefficients.
            (default: :obj:`0.0`)

    Shapes:
        - **input:** :math:`(*, T, C)`, mask :math:`(*, T)` *(optional)*
        - **output:** :math:`(*, T, C)`
    """

    causal = False

    def __init__(
        self,
        channels: int,
        heads: int = 4,
        modes: int = 32,
        mode_select: Literal["low", "random"] = "low",
        activation: Literal["tanh", "softmax"] = "tanh",
        variant: Literal["fea", "feb"] = "fea",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if channels % heads != 0:
            raise ValueError(f"channels ({channels}) must be divisible by heads ({heads})")
        self.channels = channels
        self.heads = heads
        self.attention = FrequencyAttention(
            channels, heads, modes, mode_select, activation, variant, dropout
        )

    def reset_parameters(self) -> None:
        r"""Draws all parameters and random frequencies anew."""
        self.attention.reset_parameters()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        self._check(x, mask, self.channels)
        return self.attention(x, key_padding_mask=None if mask is None else ~mask)

    def prefill(
        self, x: Tensor, state: Any = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        self._check_streams()
        return super().prefill(x, state, mask)

    def __repr__(self) -> str:
        modes = self.attention.block.modes
        return (
            f"{type(self).__name__}({self.channels}, heads={self.heads}, modes={modes.modes}, "
            f"mode_select={modes.mode_select!r}, variant={self.attention.variant!r})"
        )
