from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.nn.inits import glorot, zeros

from pyg_stmamba.nn.spatial.self_loops import REDUCTIONS, with_self_loops
from pyg_stmamba.nn.spatial.spatial_operator import SpatialOperator
from pyg_stmamba.ops.graph_attention import graph_attention


class SpatialGAT(SpatialOperator):
    r"""The graph attentional operator from the `"Graph Attention Networks"
    <https://arxiv.org/abs/1710.10903>`_ paper, at each instant on its own.

    .. math::
        \mathbf{x}^{\prime}_{i,t} = \sum_{j \in \mathcal{N}(i) \cup \{ i \}}
        \alpha_{i,j,t} \mathbf{\Theta} \mathbf{x}_{j,t}, \qquad
        \alpha_{i,j,t} = \mathrm{softmax}_j \, \mathrm{LeakyReLU} \left(
        \mathbf{a}^{\top}_{s} \mathbf{\Theta} \mathbf{x}_{j,t}
        + \mathbf{a}^{\top}_{d} \mathbf{\Theta} \mathbf{x}_{i,t}
        + \mathbf{a}^{\top}_{e} \mathbf{\Theta}_{e} \mathbf{e}_{i,j,t} \right)

    It holds exactly the parameters of :class:`torch_geometric.nn.GATConv`, so state dictionaries
    interchange, and equals it instant by instant without repeating the edges.

    Args:
        in_channels (int): Size of each input sample.
        out_channels (int): Size of each output sample, for each head.
        heads (int, optional): Number of heads. (default: :obj:`1`)
        concat (bool, optional): If set to :obj:`False`, the heads are averaged instead of
            concatenated. (default: :obj:`True`)
        negative_slope (float, optional): Angle of the LeakyReLU. (default: :obj:`0.2`)
        dropout (float, optional): Dropout probability of the attention coefficients.
            (default: :obj:`0.0`)
        add_self_loops (bool, optional): If set to :obj:`False`, no self loops are added.
            (default: :obj:`True`)
        edge_dim (int, optional): Size of the edge features; :obj:`None` leaves them unused.
            (default: :obj:`None`)
        fill_value (float or torch.Tensor or str, optional): Edge features of the self loops:
            given, or reduced from the edges into the node by :obj:`"add"`, :obj:`"mean"`,
            :obj:`"min"`, :obj:`"max"` or :obj:`"mul"`. (default: :obj:`"mean"`)
        bias (bool, optional): Whether there is an additive bias. (default: :obj:`True`)
        residual (bool, optional): Whether a learnable skip connection is added.
            (default: :obj:`False`)
        implementation (str, optional): Forces one implementation of the attention and refuses
            where it cannot run; the best one for these tensors if not given.
            (default: :obj:`None`)

    Shapes:
        - **input:** :math:`(|\mathcal{V}|, *, F_{in})`, edges :math:`(2, |\mathcal{E}|)`,
          edge features :math:`(|\mathcal{E}|, D)` or, for each instant,
          :math:`(|\mathcal{E}|, *, D)` *(optional)*
        - **output:** :math:`(|\mathcal{V}|, *, H \cdot F_{out})`; with
          :obj:`return_attention_weights=True` also
          :math:`((2, |\mathcal{E}|), (|\mathcal{E}|, *, H))`
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        add_self_loops: bool = True,
        edge_dim: int | None = None,
        fill_value: float | Tensor | str = "mean",
        bias: bool = True,
        residual: bool = False,
        implementation: str | None = None,
    ) -> None:
        super().__init__()
        if isinstance(fill_value, str) and fill_value not in REDUCTIONS:
            raise ValueError(f"unknown fill_value {fill_value!r}; choose one of {REDUCTIONS}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.heads = heads
        self.concat = concat
        self.negative_slope = negative_slope
        self.dropout = dropout
        self.add_self_loops = add_self_loops
        self.edge_dim = edge_dim
        self.fill_value = fill_value
        self.residual = residual
        self.implementation = implementation

        width = out_channels * (heads if concat else 1)
        self.lin = Linear(in_channels, heads * out_channels, False, weight_initializer="glorot")
        self.att_src = nn.Parameter(torch.empty(1, heads, out_channels))
        self.att_dst = nn.Parameter(torch.empty(1, heads, out_channels))
        self.lin_edge: Linear | None = None
        self.register_parameter("att_edge", None)
        if edge_dim is not None:
            self.lin_edge = Linear(
                edge_dim, heads * out_channels, False, weight_initializer="glorot"
            )
            self.att_edge = nn.Parameter(torch.empty(1, heads, out_channels))
        self.res: Linear | None = None
        if residual:
            self.res = Linear(in_channels, width, False, weight_initializer="glorot")
        if bias:
            self.bias = nn.Parameter(torch.empty(width))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        for linear in (self.lin, self.lin_edge, self.res):
            if linear is not None:
                linear.reset_parameters()
        glorot(self.att_src)
        glorot(self.att_dst)
        glorot(self.att_edge)
        zeros(self.bias)

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        batch: Tensor | None = None,
        return_attention_weights: bool = False,
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
        r"""Runs over all instants.

        Args:
            x (torch.Tensor): The node features.
            edge_index (torch.Tensor): The edges, source to target.
            edge_attr (torch.Tensor, optional): The edge features. (default: :obj:`None`)
            batch (torch.Tensor, optional): Not used; a node sees its neighbours only.
                (default: :obj:`None`)
            return_attention_weights (bool, optional): If set to :obj:`True`, also returns the
                edges, self loops included, and the attention coefficients on them.
                (default: :obj:`False`)
        """
        self._check(x, self.in_channels)
        edge_attr = None if self.lin_edge is None else self._edge_features(edge_attr, edge_index)
        ignored: Tensor | None = None
        if self.add_self_loops:
            edge_index, edge_attr, ignored = with_self_loops(
                edge_index, edge_attr, x.size(0), self.fill_value
            )
        value = self.lin(x)
        source_logit, target_logit = F.linear(value, self._logit_weight()).chunk(2, dim=-1)
        value = value.unflatten(-1, (self.heads, self.out_channels))
        out = graph_attention(
            value,
            source_logit,
            target_logit,
            edge_index,
            self._edge_logit(edge_attr, ignored, value),
            negative_slope=self.negative_slope,
            dropout=self.dropout if self.training else 0.0,
            return_attention=return_attention_weights,
            implementation=self.implementation,
        )
        attention: Tensor | None = None
        if isinstance(out, tuple):
            out, attention = out
        out = out.flatten(-2) if self.concat else out.mean(dim=-2)
        if self.res is not None:
            out = out + self.res(x)
        if self.bias is not None:
            out = out + self.bias
        if attention is None:
            return out
        return out, (edge_index, attention)

    def _logit_weight(self) -> Tensor:
        r"""The vectors :math:`\mathbf{a}` as one matrix, so that a product gives the logits of all
        heads and nothing of the size of the values is made for it."""
        vectors = torch.cat([self.att_src, self.att_dst])
        heads = torch.eye(self.heads, dtype=vectors.dtype, device=vectors.device)
        return torch.einsum("khc,hg->kghc", vectors, heads).reshape(2 * self.heads, -1)

    def _edge_features(self, edge_attr: Tensor | None, edge_index: Tensor) -> Tensor | None:
        if edge_attr is None:
            return None
        given = list(edge_attr.shape)
        if edge_attr.dim() == 1:
            edge_attr = edge_attr.unsqueeze(-1)
        if edge_attr.shape[:1] != edge_index.shape[1:] or edge_attr.size(-1) != self.edge_dim:
            raise ValueError(
                f"{type(self).__name__} expects edge features of shape [E, {self.edge_dim}] or "
                f"[E, ..., {self.edge_dim}] for E = {edge_index.size(1)} edges, got {given}"
            )
        return edge_attr

    def _edge_logit(
        self, edge_attr: Tensor | None, ignored: Tensor | None, value: Tensor
    ) -> Tensor | None:
        logit: Tensor | None = None
        if edge_attr is not None and self.lin_edge is not None:
            # One number a head: a_e · (Θ_e e) without ever forming Θ_e e.
            weight = self.lin_edge.weight.view(self.heads, self.out_channels, -1)
            logit = edge_attr @ torch.einsum("hcd,hc->dh", weight, self.att_edge.squeeze(0))
            instants = (1,) * (value.dim() - 1 - logit.dim())
            logit = logit.reshape(logit.size(0), *instants, *logit.shape[1:])
        if ignored is not None:
            shut = value.new_zeros(ignored.shape).masked_fill(ignored, float("-inf"))
            shut = shut.reshape(-1, *(1,) * (value.dim() - 2))
            logit = shut if logit is None else logit + shut
        return logit

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}({self.in_channels}, {self.out_channels}, heads={self.heads})"
