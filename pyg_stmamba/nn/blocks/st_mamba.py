from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_stmamba.nn.auxiliary_loss import AuxiliaryLoss
from pyg_stmamba.nn.blocks.adjacency import read_graph
from pyg_stmamba.nn.blocks.pivot import pivot, unpivot
from pyg_stmamba.nn.blocks.spatial_transformer import SpatialTransformer
from pyg_stmamba.nn.blocks.temporal_transformer import TemporalTransformer
from pyg_stmamba.nn.dropout import Dropout
from pyg_stmamba.nn.spatial.resolver import spatial_resolver
from pyg_stmamba.nn.spatial.spatial_operator import SpatialOperator
from pyg_stmamba.nn.temporal.resolver import temporal_resolver
from pyg_stmamba.nn.temporal.temporal_operator import TemporalOperator
from pyg_stmamba.nn.transformer.feed_forward import FeedForwardBlock
from pyg_stmamba.nn.transformer.feed_forward_resolver import feed_forward_resolver


class STMambaBlock(AuxiliaryLoss):
    r"""A block for graphs whose nodes carry time series: each instant is seen by a graph
    attention (`"Graph Attention Networks" <https://arxiv.org/abs/1710.10903>`_), then each node
    over time by a selective state space (`"Mamba: Linear-Time Sequence Modeling with Selective
    State Spaces" <https://arxiv.org/abs/2312.00752>`_).

    .. math::
        \mathbf{h}_{:,t} &= \mathrm{Norm} \left( \mathbf{x}_{:,t}
        + \mathrm{Drop}(\mathrm{GAT}(\mathbf{x}_{:,t}, \mathcal{G})) \right)
        \quad \text{for each instant } t

        \mathbf{y}_{i,:} &= \mathrm{Norm} \left( \mathbf{h}_{i,:}
        + \mathrm{Drop}(\mathrm{Mamba}(\mathbf{h}_{i,:})) \right)
        \quad \text{for each node } i

    With :obj:`norm="pre"` a phase is :math:`\mathbf{x} + \mathrm{Drop}(f(\mathrm{Norm}(
    \mathbf{x})))` instead.

    .. code-block:: python

        block = STMambaBlock(64)
        y = block(x, edge_index)    # one graph or a batch of graphs: x[N, T, 64]
        y = block(x, adjacency)     # dense: x[B, T, N, 64], adjacency[target, source]
        y = block(data)             # data.x[N, T, 64], data.edge_index

    Args:
        channels (int): Size of each sample, in and out.
        d_state (int, optional): States of each inner channel of Mamba. (default: :obj:`16`)
        d_conv (int, optional): Steps the convolution of Mamba sees. (default: :obj:`4`)
        expand (int, optional): Inner channels of Mamba for each channel. (default: :obj:`2`)
        num_heads (int, optional): Heads of the attention, over nodes and over time.
            (default: :obj:`4`)
        dropout (float, optional): Dropout probability of what a phase adds.
            (default: :obj:`0.1`)
        spatial (str or torch.nn.Module, optional): The spatial operator, :obj:`"gat"`,
            :obj:`"gatv2"`, :obj:`"interaction"` (messages as in MeshGraphNets),
            :obj:`"attention"` (among all nodes), :obj:`"dot"` (dot product among neighbours), an
            instance of :class:`SpatialOperator` or of a PyG convolution; :obj:`None` leaves the
            phase out. (default: :obj:`"gat"`)
        temporal (str or torch.nn.Module, optional): The temporal operator, :obj:`"mamba"`,
            :obj:`"performer"`, :obj:`"attention"`, :obj:`"frequency"` (not causal),
            :obj:`"factorized"` (a whole transformer layer) or an instance of
            :class:`TemporalOperator`;
            :obj:`None` leaves the phase out. Random features of a Performer are drawn anew where
            the model calls :func:`redraw_when_due`. (default: :obj:`"mamba"`)
        edge_dim (int, optional): Size of the edge features; :obj:`None` leaves them unused.
            With :obj:`1` the weights of a dense adjacency matrix are used.
            (default: :obj:`None`)
        add_self_loops (bool, optional): Whether each node attends to itself.
            (default: :obj:`True`)
        norm (str, optional): Layer norm after each residual sum, :obj:`"post"`, or before each
            operator, :obj:`"pre"`. (default: :obj:`"post"`)
        concat (bool, optional): Whether the heads over nodes are concatenated or averaged.
            (default: :obj:`True`)
        negative_slope (float, optional): Angle of the LeakyReLU of the graph attention.
            (default: :obj:`0.2`)
        feed_forward (str or torch.nn.Module, optional): A third phase, on each node and step
            alone: :obj:`"swiglu"`, :obj:`"gelu"`, :obj:`"relu"`, :obj:`"silu"`, :obj:`"moe"` for
            a :class:`MixtureOfExperts`, whose balancing loss is :meth:`get_aux_loss`, or an
            instance. (default: :obj:`None`, no such phase)
        dim_feedforward (int, optional): Size within it, of an expert too.
            (default: :obj:`None`, four times :obj:`channels`)
        num_experts (int, optional): Number of experts. (default: :obj:`8`)
        top_k (int, optional): Number of experts of a node and step. (default: :obj:`2`)

    Shapes:
        - **input:** :math:`(|\mathcal{V}|, T, C)`, or :math:`(B, T, |\mathcal{V}|, C)`, or
          :math:`(|\mathcal{V}|, B, T, C)` with :obj:`nodes_first=True`; edges
          :math:`(2, |\mathcal{E}|)` or an adjacency matrix
          :math:`(|\mathcal{V}|, |\mathcal{V}|)`; edge features :math:`(|\mathcal{E}|, D)` or
          :math:`(|\mathcal{E}|, *, T, D)` *(optional)*; or a :class:`~torch_geometric.data.Data`
        - **output:** the shape of :obj:`x`
    """

    def __init__(
        self,
        channels: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        num_heads: int = 4,
        dropout: float = 0.1,
        *,
        spatial: str | nn.Module | None = "gat",
        temporal: str | TemporalOperator | None = "mamba",
        edge_dim: int | None = None,
        add_self_loops: bool = True,
        norm: Literal["post", "pre"] = "post",
        concat: bool = True,
        negative_slope: float = 0.2,
        feed_forward: str | nn.Module | None = None,
        dim_feedforward: int | None = None,
        num_experts: int = 8,
        top_k: int = 2,
    ) -> None:
        super().__init__()
        if norm not in ("post", "pre"):
            raise ValueError(f"unknown norm {norm!r}; choose 'post' or 'pre'")
        for kind, operator, transformer, name in (
            ("spatial", spatial, SpatialTransformer, "SpatialAttention or 'attention'"),
            ("temporal", temporal, TemporalTransformer, "TemporalFactorized or 'factorized'"),
        ):
            if isinstance(operator, transformer):
                raise ValueError(
                    f"{kind}={operator!r} has residuals and layouts of its own and is no operator "
                    f"of a block; take {name}"
                )
        self.channels = channels
        self.edge_dim = edge_dim
        self.norm = norm
        self.spatial = spatial_resolver(
            spatial, channels, num_heads, concat, negative_slope, add_self_loops, edge_dim
        )
        self.temporal = temporal_resolver(temporal, channels, d_state, d_conv, expand, num_heads)
        self.norm_spatial = nn.LayerNorm(channels) if self.spatial is not None else nn.Identity()
        self.norm_temporal = nn.LayerNorm(channels) if self.temporal is not None else nn.Identity()
        within = 4 * channels if dim_feedforward is None else dim_feedforward
        self.feed_forward = feed_forward_resolver(
            feed_forward, channels, within, dropout, num_experts, top_k
        )
        has_feed_forward = self.feed_forward is not None
        self.norm_feed_forward = nn.LayerNorm(channels) if has_feed_forward else nn.Identity()
        self.dropout = Dropout(dropout)

    @property
    def causal(self) -> bool:
        r"""Whether no output depends on later steps."""
        return self.temporal is None or bool(self.temporal.causal)

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        for module in self.children():
            reset: Any = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()

    def forward(
        self,
        x: Tensor | Data,
        edge_index: Tensor | None = None,
        edge_attr: Tensor | None = None,
        mask: Tensor | None = None,
        batch: Tensor | None = None,
        *,
        nodes_first: bool = False,
    ) -> Tensor:
        r"""Runs all phases.

        Args:
            x (torch.Tensor or torch_geometric.data.Data): The node features, or a
                :class:`~torch_geometric.data.Data` or :class:`~torch_geometric.data.Batch` from
                which :obj:`x`, :obj:`edge_index`, :obj:`edge_attr`, :obj:`batch` and
                :obj:`x_mask` are read.
            edge_index (torch.Tensor, optional): The edges, source to target, or a dense matrix
                :obj:`adj[target, source]`. (default: :obj:`None`)
            edge_attr (torch.Tensor, optional): The edge features. (default: :obj:`None`)
            mask (torch.Tensor, optional): :obj:`True` where a step of a node was observed, of the
                shape of :obj:`x` without channels. What an unobserved step holds has no
                influence, it enters as zero, and its output is zero. (default: :obj:`None`)
            batch (torch.Tensor, optional): The graph of each node. (default: :obj:`None`)
            nodes_first (bool, optional): Whether a 4-D :obj:`x` is
                :math:`(|\mathcal{V}|, B, T, C)` rather than :math:`(B, T, |\mathcal{V}|, C)`.
                (default: :obj:`False`)
        """
        if isinstance(x, Data):
            return self._forward_data(x)
        if x.dim() not in (3, 4):
            hint = "; one instant goes through step" if x.dim() == 2 else ""
            raise ValueError(
                f"{type(self).__name__} expects x[N, T, C], x[B, T, N, C] or, with "
                f"nodes_first=True, x[N, B, T, C], got a tensor of shape {list(x.shape)}{hint}"
            )
        if x.dim() == 3 or nodes_first:
            return self._run(x, edge_index, edge_attr, mask, batch)
        self._check(x, mask)
        mask = None if mask is None else pivot(mask.unsqueeze(-1)).squeeze(-1)
        return unpivot(self._run(pivot(x), edge_index, edge_attr, mask, batch))

    def prefill(
        self,
        x: Tensor,
        edge_index: Tensor | None = None,
        edge_attr: Tensor | None = None,
        state: Any = None,
        mask: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        r"""Runs over the next steps of the series and returns where it stopped.

        Args:
            x (torch.Tensor): The next steps, nodes first.
            edge_index (torch.Tensor, optional): The edges or a dense matrix.
                (default: :obj:`None`)
            edge_attr (torch.Tensor, optional): The edge features. (default: :obj:`None`)
            state (NamedTuple, optional): What an earlier call returned; :obj:`None` starts a new
                series. (default: :obj:`None`)
            mask (torch.Tensor, optional): :obj:`True` where a step was observed.
                (default: :obj:`None`)
            batch (torch.Tensor, optional): The graph of each node. (default: :obj:`None`)

        Shapes:
            - **input:** :math:`(|\mathcal{V}|, *, T, C)`, mask :math:`(|\mathcal{V}|, *, T)`
            - **output:** :math:`(|\mathcal{V}|, *, T, C)` and the state
        """
        self._check(x, mask)
        x = self._hide(x, mask)
        x = self._spatial_phase(x, edge_index, edge_attr, batch)
        if self.temporal is not None:
            change, state = self.temporal.prefill(self._enter(x, self.norm_temporal), state, mask)
            x = self._leave(x, change, self.norm_temporal)
        x = self._feed_forward_phase(x, mask)
        return self._hide(x, mask), state

    def step(
        self,
        x: Tensor,
        edge_index: Tensor | None = None,
        edge_attr: Tensor | None = None,
        state: Any = None,
        mask: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        r"""Runs over one step: :meth:`prefill` on series of length one.

        Shapes:
            - **input:** :math:`(|\mathcal{V}|, *, C)`, mask :math:`(|\mathcal{V}|, *)`, edge
              features :math:`(|\mathcal{E}|, *, D)`
            - **output:** :math:`(|\mathcal{V}|, *, C)` and the state
        """
        if edge_attr is not None and edge_attr.dim() > 2:
            edge_attr = edge_attr.unsqueeze(-2)
        if mask is not None:
            mask = mask.unsqueeze(-1)
        y, state = self.prefill(x.unsqueeze(-2), edge_index, edge_attr, state, mask, batch)
        return y.squeeze(-2), state

    def _forward_data(self, data: Data) -> Tensor:
        mask = data.get("x_mask")
        if mask is not None and mask.dim() == data.x.dim():
            mask = mask.any(dim=-1)
        return self._run(data.x, data.edge_index, data.edge_attr, mask, data.batch)

    def _run(
        self,
        x: Tensor,
        edge_index: Tensor | None,
        edge_attr: Tensor | None,
        mask: Tensor | None,
        batch: Tensor | None,
    ) -> Tensor:
        self._check(x, mask)
        x = self._hide(x, mask)
        x = self._spatial_phase(x, edge_index, edge_attr, batch)
        if self.temporal is not None:
            change = self.temporal(self._enter(x, self.norm_temporal), mask)
            x = self._leave(x, change, self.norm_temporal)
        x = self._feed_forward_phase(x, mask)
        return self._hide(x, mask)

    def _spatial_phase(
        self,
        x: Tensor,
        graph: Tensor | None,
        edge_attr: Tensor | None,
        batch: Tensor | None,
    ) -> Tensor:
        if self.spatial is None:
            return x
        if graph is None:
            raise ValueError(
                f"{self!r} has a spatial phase, but no graph was given: pass edges [2, E] or an "
                f"adjacency matrix as edge_index"
            )
        edge_index, edge_attr = read_graph(graph, edge_attr, x.size(0), self.edge_dim)
        options = {"batch": batch} if isinstance(self.spatial, SpatialOperator) else {}
        change = self.spatial(self._enter(x, self.norm_spatial), edge_index, edge_attr, **options)
        return self._leave(x, change, self.norm_spatial)

    def _feed_forward_phase(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if self.feed_forward is None:
            return x
        tokens = self._enter(x, self.norm_feed_forward)
        if isinstance(self.feed_forward, FeedForwardBlock):
            # Experts do not serve, nor are balanced by, what was not observed.
            hidden = None if mask is None else ~mask.flatten(0, -2)
            change, self._aux_loss = self.feed_forward(tokens.flatten(0, -3), hidden)
            change = change.reshape(x.shape)
        else:
            change = self.feed_forward(tokens)
        return self._leave(x, change, self.norm_feed_forward)

    def _enter(self, x: Tensor, norm: nn.Module) -> Tensor:
        return norm(x) if self.norm == "pre" else x

    def _leave(self, x: Tensor, change: Tensor, norm: nn.Module) -> Tensor:
        if change.shape != x.shape:
            raise ValueError(
                f"an operator of {self!r} must keep the shape, but turned {list(x.shape)} into "
                f"{list(change.shape)}"
            )
        x = x + self.dropout(change)
        return x if self.norm == "pre" else norm(x)

    def _check(self, x: Tensor, mask: Tensor | None) -> None:
        if x.dim() < 3 or x.size(-1) != self.channels:
            raise ValueError(
                f"{type(self).__name__} expects C = {self.channels} channels last and time "
                f"before them, got a tensor of shape {list(x.shape)}"
            )
        if mask is not None and (mask.shape != x.shape[:-1] or mask.dtype != torch.bool):
            raise ValueError(
                f"the mask must be boolean with one entry for each node and step, "
                f"{list(x.shape[:-1])} for x of shape {list(x.shape)}, got {list(mask.shape)} and "
                f"dtype {mask.dtype}"
            )

    @staticmethod
    def _hide(x: Tensor, mask: Tensor | None) -> Tensor:
        return x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0.0)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.channels}, spatial={self.spatial!r}, "
            f"temporal={self.temporal!r}, norm={self.norm!r})"
        )
