from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn.inits import reset

from pyg_stmamba.nn.blocks.class_token import add_class_token
from pyg_stmamba.nn.blocks.space_time_input import read_space_time
from pyg_stmamba.nn.drop_path import DropPath
from pyg_stmamba.nn.dropout import Dropout
from pyg_stmamba.nn.spacetime.feed_forward import FeedForward
from pyg_stmamba.nn.spatial.attention import SpatialAttention
from pyg_stmamba.nn.temporal.attention import TemporalAttention

ORDERS = ("time_first", "space_first")
EPS = 1e-6


class DividedSpaceTimeBlock(nn.Module):
    r"""The divided space-time attention of the `"Is Space-Time Attention All You Need for Video
    Understanding?" <https://arxiv.org/abs/2102.05095>`_ paper: each node, or patch, looks along
    its own time, then all nodes of an instant look at each other.

    .. math::
        \mathbf{h}_{i,t} &= \mathbf{x}_{i,t} + \mathbf{W}_t \, \mathrm{MSA}_{\textrm{time}} \left(
        \mathrm{LN}(\mathbf{x}_{i,:}) \right)_t + \mathbf{b}_t

        \mathbf{g}_{i,t} &= \mathbf{h}_{i,t} + \mathrm{MSA}_{\textrm{space}} \left(
        \mathrm{LN}([\mathbf{c} \, \Vert \, \mathbf{h}_{:,t}]) \right)_i

        \mathbf{y}_{i,t} &= \mathbf{g}_{i,t} + \mathrm{MLP} \left( \mathrm{LN}(\mathbf{g}_{i,t})
        \right)

    A class token :math:`\mathbf{c}`, if there is one, has no place in time: it takes part in the
    attention of every instant, and what the instants add to it is averaged. With
    :math:`\mathbf{W}_t = \mathbf{b}_t = 0`, as they start, the block is a layer of a Vision
    Transformer on each frame.

    Args:
        dim (int): Size :math:`D` of each token.
        num_heads (int, optional): Number of heads of both attentions. (default: :obj:`4`)
        mlp_ratio (float, optional): Width within the MLP for each channel. (default: :obj:`4`)
        drop_path (float, optional): Probability that a sample goes past a branch in training, see
            :class:`DropPath`. (default: :obj:`0.0`)
        dropout (float, optional): Dropout probability of what a branch adds, and within the MLP.
            (default: :obj:`0.0`)
        order (str, optional): :obj:`"time_first"` or :obj:`"space_first"`.
            (default: :obj:`"time_first"`)
        zero_init_temporal (bool, optional): Whether :math:`\mathbf{W}_t` and
            :math:`\mathbf{b}_t` start as zeros. (default: :obj:`True`)
        causal (bool, optional): Whether a step sees itself and earlier ones only; not together
            with a class token, which sees all steps. (default: :obj:`False`)
        neighbors_only (bool, optional): Whether a node looks at itself and at the nodes that have
            an edge to it, instead of at all nodes; the class token and the nodes of its graph
            always see each other. (default: :obj:`False`)

    Shapes:
        - **input:** :math:`(B, T, N, D)`, or :math:`(|\mathcal{V}|, T, D)`, or
          :math:`(|\mathcal{V}|, B, T, D)` with :obj:`nodes_first=True`; edges
          :math:`(2, |\mathcal{E}|)` or an adjacency matrix
          :math:`(|\mathcal{V}|, |\mathcal{V}|)` *(optional)*; class tokens :math:`(B, 1, D)`, or
          one a graph :math:`(G, *, 1, D)` where nodes come first *(optional)*; or a
          :class:`~torch_geometric.data.Data`
        - **output:** the shape of :obj:`x`, and with class tokens a tuple of that and theirs

    Raises:
        ValueError: If the heads do not share the channels, an option is unknown, an input does
            not fit, or edges are needed and absent.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 4,
        mlp_ratio: float = 4,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        order: Literal["time_first", "space_first"] = "time_first",
        zero_init_temporal: bool = True,
        causal: bool = False,
        neighbors_only: bool = False,
    ) -> None:
        super().__init__()
        if order not in ORDERS:
            raise ValueError(f"unknown order {order!r}; choose 'time_first' or 'space_first'")
        self.dim, self.order, self.zero_init_temporal = dim, order, zero_init_temporal
        self.norm_temporal = nn.LayerNorm(dim, eps=EPS)
        self.temporal = TemporalAttention(dim, num_heads, causal=causal, position=None)
        self.temporal_fc = nn.Linear(dim, dim)
        self.norm_spatial = nn.LayerNorm(dim, eps=EPS)
        self.spatial = SpatialAttention(dim, num_heads, neighbors_only=neighbors_only)
        self.norm_feed_forward = nn.LayerNorm(dim, eps=EPS)
        self.feed_forward = FeedForward(dim, int(mlp_ratio * dim), dropout)
        self.dropout = Dropout(dropout)
        self.drop_path = DropPath(drop_path)
        self.reset_parameters()

    @property
    def causal(self) -> bool:
        r"""Whether no output depends on later steps."""
        return self.temporal.causal

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        for module in self.children():
            reset(module)
        if self.zero_init_temporal:
            nn.init.zeros_(self.temporal_fc.weight)
            nn.init.zeros_(self.temporal_fc.bias)

    def forward(
        self,
        x: Tensor | Data,
        edge_index: Tensor | None = None,
        edge_attr: Tensor | None = None,
        mask: Tensor | None = None,
        batch: Tensor | None = None,
        cls: Tensor | None = None,
        *,
        nodes_first: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        r"""Runs the three branches.

        Args:
            x (torch.Tensor or torch_geometric.data.Data): The tokens, or a
                :class:`~torch_geometric.data.Data` or :class:`~torch_geometric.data.Batch` from
                which :obj:`x`, :obj:`edge_index`, :obj:`batch` and :obj:`x_mask` are read.
            edge_index (torch.Tensor, optional): The edges, source to target, or a dense matrix
                :obj:`adj[target, source]`. (default: :obj:`None`)
            edge_attr (torch.Tensor, optional): Not used. (default: :obj:`None`)
            mask (torch.Tensor, optional): :obj:`True` where a step of a node was observed, of the
                shape of :obj:`x` without channels. What an unobserved step holds has no
                influence, it enters as zero, and its output is zero. (default: :obj:`None`)
            batch (torch.Tensor, optional): The graph of each node. (default: :obj:`None`)
            cls (torch.Tensor, optional): The class tokens. (default: :obj:`None`)
            nodes_first (bool, optional): Whether a 4-D :obj:`x` is
                :math:`(|\mathcal{V}|, B, T, D)` rather than :math:`(B, T, |\mathcal{V}|, D)`.
                (default: :obj:`False`)
        """
        inputs = read_space_time(
            x, edge_index, None, mask, batch, channels=self.dim, nodes_first=nodes_first
        )
        if cls is not None:
            cls = cls.unsqueeze(0) if inputs.dense else cls
            self._check_class_token(cls, inputs.x, inputs.batch)
        h, batch = inputs.x, inputs.batch
        if self.order == "time_first":
            h = self._over_time(h, batch, inputs.mask)
        h, cls = self._over_space(h, cls, inputs.edge_index, batch)
        if self.order == "space_first":
            h = self._over_time(h, batch, inputs.mask)
        change, cls_change = self.drop_path(
            self._feed_forward(h), None if cls is None else self._feed_forward(cls), batch
        )
        y = inputs.restore(h + change)
        if cls is None:
            return y
        cls = cls + cls_change
        return y, cls.squeeze(0) if inputs.dense else cls

    def _over_time(self, x: Tensor, batch: Tensor | None, mask: Tensor | None) -> Tensor:
        change = self.temporal_fc(self.temporal(self.norm_temporal(x), mask))
        change, _ = self.drop_path(self.dropout(change), None, batch)
        return x + change

    def _over_space(
        self, x: Tensor, cls: Tensor | None, edge_index: Tensor | None, batch: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        if cls is None:
            change = self.spatial(self.norm_spatial(x), edge_index, batch=batch)
            change, _ = self.drop_path(self.dropout(change), None, batch)
            return x + change, None
        edges = edge_index if self.spatial.neighbors_only else None
        joined = add_class_token(x, cls, edges, batch)
        change = self.spatial(self.norm_spatial(joined.x), joined.edge_index, batch=joined.batch)
        cls_change, change = joined.split(self.dropout(change))
        cls_change = cls_change.mean(-2, keepdim=True)
        change, cls_change = self.drop_path(change, cls_change, batch)
        return x + change, cls + cls_change

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.feed_forward(self.norm_feed_forward(x))

    def _check_class_token(self, cls: Tensor, x: Tensor, batch: Tensor | None) -> None:
        if self.causal:
            raise ValueError(
                "a causal block takes no class token: it gathers all steps and would tell the "
                "earlier ones about the later ones"
            )
        graphs = 1
        if batch is not None:
            graphs = max(cls.size(0), int(batch.max()) + 1 if batch.numel() > 0 else 0)
        if cls.shape != (graphs, *x.shape[1:-2], 1, self.dim):
            raise ValueError(
                f"expected class tokens [B, 1, {self.dim}] for x[B, T, N, {self.dim}], or one a "
                f"graph, [G, ..., 1, {self.dim}], where nodes come first; nodes first they are "
                f"{list(cls.shape)}, but should be {[graphs, *x.shape[1:-2], 1, self.dim]}"
            )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.dim}, num_heads={self.temporal.heads}, "
            f"order={self.order!r}, causal={self.causal}, "
            f"neighbors_only={self.spatial.neighbors_only})"
        )
