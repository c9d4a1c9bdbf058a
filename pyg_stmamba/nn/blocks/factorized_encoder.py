from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn.inits import reset

from pyg_stmamba.nn.blocks.class_token import add_class_token
from pyg_stmamba.nn.blocks.graph_pooling import count_graphs, mean_over_nodes
from pyg_stmamba.nn.blocks.space_time_input import SpaceTimeInput, read_space_time
from pyg_stmamba.nn.blocks.spatial_transformer import SpatialTransformer
from pyg_stmamba.nn.blocks.temporal_transformer import TemporalTransformer
from pyg_stmamba.nn.embedding.temporal_position import TemporalPositionalEncoding

POOLS = ("cls", "mean")
POSITION_STD = 0.5


class FactorizedEncoder(nn.Module):
    r"""The factorised encoder, model 2 of the `"ViViT: A Video Vision Transformer"
    <https://arxiv.org/abs/2103.15691>`_ paper: a transformer over space turns each frame, or each
    instant of a graph, into one vector, and a transformer over time these into one for all.

    .. math::
        \mathbf{h}_t = \mathrm{Pool} \left( \mathrm{LN} \left( \mathrm{Transformer}_{\textrm{space}}
        (\mathbf{x}_{:,t}) \right) \right), \qquad
        \mathbf{y} = \mathrm{Pool} \left( \mathrm{LN} \left( \mathrm{Transformer}_{\textrm{time}}
        (\mathbf{h}_1 + \mathbf{p}_1, \ldots, \mathbf{h}_T + \mathbf{p}_T) \right) \right)

    where the pool reads a class token that goes along, or takes the mean. Layers normalize before
    each phase.

    Args:
        dim (int): Size :math:`D` of each token.
        num_heads (int, optional): Number of heads. (default: :obj:`4`)
        spatial_layers (int, optional): Number of layers over space. (default: :obj:`2`)
        temporal_layers (int, optional): Number of layers over time. (default: :obj:`2`)
        mlp_ratio (float, optional): Inner size of the feed-forward networks for each of
            :obj:`dim`. (default: :obj:`4.0`)
        dropout (float, optional): Dropout of the attention weights, of what each phase adds and
            within the feed-forward networks. (default: :obj:`0.0`)
        pool (str, optional): :obj:`"cls"`, a class token a frame and one for all frames, or
            :obj:`"mean"`. (default: :obj:`"cls"`)
        max_len (int, optional): Number of learned positions :math:`\mathbf{p}_t`, interpolated
            for series of another length; without them the order of the frames has no influence.
            (default: :obj:`None`)
        neighbors_only (bool, optional): Whether a node attends to its neighbors in the graph, to
            itself and to the class token rather than to all nodes. (default: :obj:`False`)

    Shapes:
        - **input:** :math:`(B, T, N, D)`, or :math:`(|\mathcal{V}|, T, D)`, or
          :math:`(|\mathcal{V}|, B, T, D)` with :obj:`nodes_first=True`; edges
          :math:`(2, |\mathcal{E}|)` or an adjacency matrix
          :math:`(|\mathcal{V}|, |\mathcal{V}|)` *(optional)*; or a
          :class:`~torch_geometric.data.Data`
        - **output:** one vector a video :math:`(B, D)`, or a graph :math:`(G, D)`, and on request
          those of its frames :math:`(B, T, D)` or :math:`(G, T, D)`

    Raises:
        ValueError: If the pool is unknown, or an input does not fit.
    """

    token_space: Tensor | None
    token_time: Tensor | None

    def __init__(
        self,
        dim: int,
        num_heads: int = 4,
        spatial_layers: int = 2,
        temporal_layers: int = 2,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        pool: Literal["cls", "mean"] = "cls",
        max_len: int | None = None,
        neighbors_only: bool = False,
    ) -> None:
        super().__init__()
        if pool not in POOLS:
            raise ValueError(f"unknown pool {pool!r}; choose 'cls' or 'mean'")
        self.dim, self.num_heads, self.pool = dim, num_heads, pool
        for name in ("token_space", "token_time"):
            token = nn.Parameter(torch.empty(dim)) if pool == "cls" else None
            self.register_parameter(name, token)
        self.spatial = SpatialTransformer(
            dim, num_heads, spatial_layers, mlp_ratio, dropout, True, neighbors_only
        )
        self.norm_spatial = nn.LayerNorm(dim)
        self.position = (
            None if max_len is None else TemporalPositionalEncoding(dim, max_len, interpolate=True)
        )
        self.temporal = TemporalTransformer(
            dim, num_heads, temporal_layers, mlp_ratio, dropout, norm_first=True
        )
        self.norm_temporal = nn.LayerNorm(dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        for module in self.children():
            reset(module)
        for token in (self.token_space, self.token_time):
            if token is not None:
                nn.init.trunc_normal_(token, std=0.02)
        if self.position is not None:
            # The frames are normalized: on their scale, 0.02 would be next to nothing.
            nn.init.trunc_normal_(self.position.table.embedding.weight, std=POSITION_STD)

    def forward(
        self,
        x: Tensor | Data,
        edge_index: Tensor | None = None,
        edge_attr: Tensor | None = None,
        mask: Tensor | None = None,
        batch: Tensor | None = None,
        *,
        nodes_first: bool = False,
        return_frames: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        r"""Runs both transformers.

        Args:
            x (torch.Tensor or torch_geometric.data.Data): The tokens, or a
                :class:`~torch_geometric.data.Data` or :class:`~torch_geometric.data.Batch` from
                which :obj:`x`, :obj:`edge_index`, :obj:`batch` and :obj:`x_mask` are read.
            edge_index (torch.Tensor, optional): The edges, source to target, or a dense matrix
                :obj:`adj[target, source]`. (default: :obj:`None`)
            edge_attr (torch.Tensor, optional): Not used. (default: :obj:`None`)
            mask (torch.Tensor, optional): :obj:`True` where a token was observed, of the shape of
                :obj:`x` without channels. An unobserved token enters as zero and counts in no
                mean; a frame without any observed one is not seen. (default: :obj:`None`)
            batch (torch.Tensor, optional): The graph of each node. (default: :obj:`None`)
            nodes_first (bool, optional): Whether a 4-D :obj:`x` is
                :math:`(|\mathcal{V}|, B, T, D)` rather than :math:`(B, T, |\mathcal{V}|, D)`.
                (default: :obj:`False`)
            return_frames (bool, optional): Whether to return the vectors of the frames, too.
                (default: :obj:`False`)
        """
        inputs = read_space_time(
            x, edge_index, None, mask, batch, channels=self.dim, nodes_first=nodes_first
        )
        y, frames = self.encode(inputs, count_graphs(x, inputs.batch))
        if inputs.x.dim() == 4 and inputs.batch is None:  # the windows of the one graph
            y, frames = y.squeeze(0), frames.squeeze(0)
        return (y, frames) if return_frames else y

    def encode(self, inputs: SpaceTimeInput, num_graphs: int) -> tuple[Tensor, Tensor]:
        r"""Runs both transformers on an input that is read already, and returns the vectors of
        the graphs :math:`(G, *, D)` and of their frames :math:`(G, *, T, D)`."""
        frames = self._over_space(inputs, num_graphs)
        seen = None
        if inputs.mask is not None:
            observed = inputs.mask.unsqueeze(-1).float()
            seen = mean_over_nodes(observed, None, inputs.batch, num_graphs).squeeze(-1) > 0
        return self._over_time(frames, seen), frames

    def _over_space(self, inputs: SpaceTimeInput, graphs: int) -> Tensor:
        x, batch = inputs.x, inputs.batch
        edges = inputs.edge_index if self.spatial.neighbors_only else None
        if self.token_space is None:
            y = self.norm_spatial(self.spatial(x, edges, batch=batch, nodes_first=True))
            return mean_over_nodes(y, inputs.mask, batch, graphs)
        token = self.token_space.to(x.dtype).expand(graphs, *x.shape[1:-2], 1, -1)
        joined = add_class_token(x, token, edges, batch)
        y = self.spatial(joined.x, joined.edge_index, batch=joined.batch, nodes_first=True)
        return self.norm_spatial(joined.split(y)[0])

    def _over_time(self, frames: Tensor, seen: Tensor | None) -> Tensor:
        h = frames if self.position is None else self.position(frames)
        if self.token_time is None:
            y = self.norm_temporal(self.temporal(h, mask=seen, nodes_first=True))
            each = torch.arange(y.size(0), device=y.device)
            return mean_over_nodes(y, seen, each, y.size(0), over_time=True).squeeze(-2)
        token = self.token_time.to(h.dtype).expand(*h.shape[:-2], 1, -1)
        if seen is not None:
            seen = torch.cat([seen.new_ones(*seen.shape[:-1], 1), seen], -1)
        y = self.temporal(torch.cat([token, h], -2), mask=seen, nodes_first=True)
        return self.norm_temporal(y[..., 0, :])

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.dim}, num_heads={self.num_heads}, "
            f"spatial_layers={len(self.spatial.layers)}, "
            f"temporal_layers={len(self.temporal.layers)}, pool={self.pool!r})"
        )
