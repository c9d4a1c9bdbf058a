from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch_geometric.nn.inits import reset

from pyg_stmamba.nn.dropout import Dropout
from pyg_stmamba.nn.spacetime.feed_forward import FeedForward
from pyg_stmamba.nn.temporal.attention import AttentionState, TemporalAttention
from pyg_stmamba.nn.temporal.temporal_operator import TemporalOperator


class TemporalFactorized(TemporalOperator):
    r"""The temporal half of a factorized encoder, as in the `"ViViT: A Video Vision Transformer"
    <https://arxiv.org/abs/2103.15691>`_ paper: a whole transformer layer, attention and
    feed-forward network, over the time of each node.

    .. math::
        \mathbf{a} &= \mathrm{Drop}(\mathrm{Attention}(\mathrm{Norm}(\mathbf{x})))

        \mathbf{y} &= \mathbf{a} + \mathrm{FeedForward}(\mathrm{Norm}(\mathbf{x} + \mathbf{a}))

    The output :math:`\mathbf{y}` is what the layer adds, not the sum: the layer itself is
    :math:`\mathbf{x} + \mathbf{y}`. A block adds the output of its operator to its input, so
    there is one residual and not two.

    Args:
        channels (int): Size of each step, in and out.
        heads (int, optional): Number of heads; they share the channels. (default: :obj:`4`)
        mlp_ratio (float, optional): Inner size of the feed-forward network for each of the
            channels. (default: :obj:`4.0`)
        dropout (float, optional): Dropout of the attention weights, of what the attention adds and
            within and behind the feed-forward network. (default: :obj:`0.0`)
        causal (bool, optional): If set to :obj:`False`, a step also sees later ones, and the
            operator cannot stream. (default: :obj:`True`)
        position (str, optional): How a step knows its place, :obj:`"learned"`,
            :obj:`"sinusoidal"` or :obj:`None` for not at all. (default: :obj:`"learned"`)
        max_length (int, optional): Number of learned positions, hence the longest series, streamed
            steps counted; the other choices have no limit. (default: :obj:`512`)

    Shapes:
        - **input:** :math:`(*, T, C)`, mask :math:`(*, T)` *(optional)*
        - **output:** :math:`(*, T, C)`
    """

    def __init__(
        self,
        channels: int,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        causal: bool = True,
        position: Literal["learned", "sinusoidal"] | None = "learned",
        max_length: int = 512,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.causal = causal
        self.norm1 = nn.LayerNorm(channels)
        self.attention = TemporalAttention(channels, heads, dropout, causal, position, max_length)
        self.norm2 = nn.LayerNorm(channels)
        self.feed_forward = FeedForward(channels, int(mlp_ratio * channels), dropout)
        self.dropout = Dropout(dropout)

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        for module in self.children():
            reset(module)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self._observed(x, mask)
        return self._feed_forward(x, self.attention(self.norm1(x), mask), mask)

    def prefill(
        self, x: Tensor, state: AttentionState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, AttentionState]:
        self._check_streams()
        x = self._observed(x, mask)
        change, state = self.attention.prefill(self.norm1(x), state, mask)
        return self._feed_forward(x, change, mask), state

    def _observed(self, x: Tensor, mask: Tensor | None) -> Tensor:
        self._check(x, mask, self.channels)
        return x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0.0)

    def _feed_forward(self, x: Tensor, change: Tensor, mask: Tensor | None) -> Tensor:
        change = self.dropout(change)
        change = change + self.feed_forward(self.norm2(x + change))
        return change if mask is None else change.masked_fill(~mask.unsqueeze(-1), 0.0)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.channels}, heads={self.attention.heads}, "
            f"causal={self.causal}, position={self.attention.position.kind!r})"
        )
