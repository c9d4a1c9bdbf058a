from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.utils import to_dense_batch

from pyg_stmamba.nn.softmax_attention import softmax_attention
from pyg_stmamba.nn.spatial.self_loops import with_self_loops
from pyg_stmamba.nn.spatial.spatial_operator import SpatialOperator
from pyg_stmamba.ops.graph_attention import graph_attention


class SpatialAttention(SpatialOperator):
    r"""The softmax attention of the `"Attention Is All You Need"
    <https://arxiv.org/abs/1706.03762>`_ paper among the nodes of a graph, at each instant on its
    own.

    .. math::
        \mathbf{x}^{\prime}_{i,t} = \mathbf{W}_o \sum_{j} \mathrm{softmax}_j \left(
        \frac{\mathbf{q}_{i,t}^{\top} \mathbf{k}_{j,t}}{\sqrt{d}} \right) \mathbf{v}_{j,t}, \qquad
        (\mathbf{q}, \mathbf{k}, \mathbf{v}) = \mathbf{W}_{qkv} \mathbf{x}

    where :math:`j` runs over all nodes of the same graph, or over
    :math:`\mathcal{N}(i) \cup \{ i \}` with :obj:`neighbors_only=True`.

    Args:
        channels (int): Size of each sample, in and out.
        heads (int, optional): Number of heads; they share the channels. (default: :obj:`4`)
        dropout (float, optional): Dropout probability of the attention weights.
            (default: :obj:`0.0`)
        neighbors_only (bool, optional): If set to :obj:`True`, a node attends to its neighbours
            and itself, at a cost that grows with the edges. (default: :obj:`False`)

    Shapes:
        - **input:** :math:`(|\mathcal{V}|, *, C)`, edges :math:`(2, |\mathcal{E}|)`, the graph of
          each node :math:`(|\mathcal{V}|)`, ascending *(optional)*; edge features are not used
        - **output:** :math:`(|\mathcal{V}|, *, C)`
    """

    def __init__(
        self, channels: int, heads: int = 4, dropout: float = 0.0, neighbors_only: bool = False
    ) -> None:
        super().__init__()
        if channels % heads != 0:
            raise ValueError(f"channels ({channels}) must be divisible by heads ({heads})")
        self.channels = channels
        self.heads = heads
        self.dropout = dropout
        self.neighbors_only = neighbors_only
        self.local = neighbors_only
        self.in_proj = nn.Linear(channels, 3 * channels)
        self.out_proj = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        for linear in (self.in_proj, self.out_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor | None = None,
        edge_attr: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> Tensor:
        self._check(x, self.channels)
        heads = self.in_proj(x).unflatten(-1, (3, self.heads, -1))
        if not self.neighbors_only:
            out = self._among_all(heads, batch)
        elif edge_index is None:
            raise ValueError(f"{self!r} attends along the edges, but edge_index is None")
        else:
            out = self._among_neighbors(heads, edge_index)
        return self.out_proj(out.flatten(-2))

    def _among_all(self, heads: Tensor, batch: Tensor | None) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        if batch is None:
            query, key, value = heads.movedim(0, -2).unbind(-4)  # [..., heads, N, C / heads]
            return softmax_attention(query, key, value, dropout=dropout).movedim(-2, 0)
        if bool((batch.diff() < 0).any()):
            raise ValueError("batch must be ascending: the nodes of a graph follow each other")
        padded, there = to_dense_batch(heads, batch)
        allowed = there.clone()
        allowed[:, 0] = True  # so that a graph without nodes has no softmax over nothing
        allowed = allowed.reshape(allowed.size(0), *(1,) * (heads.dim() - 2), -1)
        query, key, value = padded.movedim(1, -2).unbind(-4)
        out = softmax_attention(query, key, value, allowed, dropout=dropout)
        return out.movedim(-2, 1)[there]

    def _among_neighbors(self, heads: Tensor, edge_index: Tensor) -> Tensor:
        edge_index, _, ignored = with_self_loops(edge_index, None, heads.size(0))
        query, key, value = heads.unbind(-3)
        scale = query.size(-1) ** -0.5
        logit = (query[edge_index[1]] * key[edge_index[0]]).sum(-1) * scale
        if ignored is not None:
            shut = ignored.reshape(-1, *(1,) * (logit.dim() - 1))
            logit = logit.masked_fill(shut, float("-inf"))
        zero = torch.zeros_like(logit[:1]).expand(heads.size(0), *logit.shape[1:])
        out = graph_attention(
            value,
            zero,
            zero,
            edge_index,
            logit,
            negative_slope=1.0,  # the logits are complete already
            dropout=self.dropout if self.training else 0.0,
        )
        return out[0] if isinstance(out, tuple) else out

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.channels}, heads={self.heads}, "
            f"neighbors_only={self.neighbors_only})"
        )
