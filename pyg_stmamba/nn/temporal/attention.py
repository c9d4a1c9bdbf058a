from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from pyg_stmamba.nn.embedding.step_position import StepPosition
from pyg_stmamba.nn.softmax_attention import softmax_attention
from pyg_stmamba.nn.temporal.temporal_operator import TemporalOperator


class AttentionState(NamedTuple):
    r"""Keys and values of the steps seen by a :class:`TemporalAttention`; it grows with them."""

    key: Tensor  # [..., heads, S, C / heads]
    value: Tensor  # [..., heads, S, C / heads]
    mask: Tensor  # [..., S], True where the step was observed


class TemporalAttention(TemporalOperator):
    r"""The softmax attention of the `"Attention Is All You Need"
    <https://arxiv.org/abs/1706.03762>`_ paper, over the time of each node.

    .. math::
        \mathbf{y}_t = \mathbf{W}_o \sum_{s} \mathrm{softmax}_s \left(
        \frac{\mathbf{q}_t^{\top} \mathbf{k}_s}{\sqrt{d}} \right) \mathbf{v}_s, \qquad
        (\mathbf{q}_t, \mathbf{k}_t, \mathbf{v}_t) =
        \mathbf{W}_{qkv} (\mathbf{x}_t + \mathbf{p}_t)

    where :math:`s \leq t` if the operator is causal.

    Args:
        channels (int): Size of each step, in and out.
        heads (int, optional): Number of heads; they share the channels. (default: :obj:`4`)
        dropout (float, optional): Dropout probability of the attention weights.
            (default: :obj:`0.0`)
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
        dropout: float = 0.0,
        causal: bool = True,
        position: Literal["learned", "sinusoidal"] | None = "learned",
        max_length: int = 512,
    ) -> None:
        super().__init__()
        if channels % heads != 0:
            raise ValueError(f"channels ({channels}) must be divisible by heads ({heads})")
        self.channels = channels
        self.heads = heads
        self.dropout = dropout
        self.causal = causal
        self.position = StepPosition(channels, position, max_length)
        self.in_proj = nn.Linear(channels, 3 * channels)
        self.out_proj = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        nn.init.xavier_uniform_(self.in_proj.weight)
        nn.init.zeros_(self.in_proj.bias)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)
        self.position.reset_parameters()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        query, key, value = self._project(x, mask, start=0)
        return self._attend(query, key, value, mask, mask)

    def prefill(
        self, x: Tensor, state: AttentionState | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, AttentionState]:
        self._check_streams()
        start = 0 if state is None else state.key.size(-2)
        query, key, value = self._project(x, mask, start)
        seen = mask
        observed = x.new_ones(x.shape[:-1], dtype=torch.bool) if mask is None else mask
        if state is not None:
            key = torch.cat([state.key, key], dim=-2)
            value = torch.cat([state.value, value], dim=-2)
            observed = torch.cat([state.mask, observed], dim=-1)
            seen = observed
        return self._attend(query, key, value, mask, seen), AttentionState(key, value, observed)

    def _project(self, x: Tensor, mask: Tensor | None, start: int) -> tuple[Tensor, ...]:
        self._check(x, mask, self.channels)
        if mask is not None:
            x = x.masked_fill(~mask.unsqueeze(-1), 0.0)
        if self.position.kind is not None:
            x = x + self.position(start, x.size(-2), x)
        heads = self.in_proj(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = heads.movedim(-3, 0).transpose(-3, -2).unbind(0)
        return query, key, value

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        seen: Tensor | None,
    ) -> Tensor:
        allowed = self._allowed(query.size(-2), key.size(-2), seen, query.device)
        y = softmax_attention(
            query,
            key,
            value,
            allowed,
            causal=self.causal and allowed is None,
            dropout=self.dropout if self.training else 0.0,
        )
        y = self.out_proj(y.transpose(-3, -2).flatten(-2))
        return y if mask is None else y.masked_fill(~mask.unsqueeze(-1), 0.0)

    def _allowed(
        self, steps: int, length: int, seen: Tensor | None, device: torch.device
    ) -> Tensor | None:
        if seen is None and (not self.causal or length == steps):
            return None
        allowed = torch.ones(steps, length, dtype=torch.bool, device=device)
        if self.causal:
            allowed = allowed.tril(length - steps)
        if seen is not None:
            # Unobserved steps look at themselves, so that no softmax is over nothing.
            itself = torch.eye(length, dtype=torch.bool, device=device)[length - steps :]
            allowed = (allowed & seen[..., None, None, :]) | itself
        return allowed

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.channels}, heads={self.heads}, causal={self.causal}, "
            f"position={self.position.kind!r})"
        )
