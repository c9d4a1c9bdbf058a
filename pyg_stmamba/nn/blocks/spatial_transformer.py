from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn.inits import reset

from pyg_stmamba.nn.blocks.adjacency import read_graph
from pyg_stmamba.nn.blocks.attention_layer import AttentionLayer
from pyg_stmamba.nn.blocks.space_time_input import read_space_time
from pyg_stmamba.nn.spatial.attention import SpatialAttention


class SpatialTransformer(nn.Module):
    r"""The encoder of the `"Attention Is All You Need" <https://arxiv.org/abs/1706.03762>`_ paper
    over space: the patches of a frame, or the nodes of a graph, attend to each other at each
    instant on its own.

    .. math::
        \mathbf{h} &= \mathrm{Norm}(\mathbf{x} + \mathrm{Attention}(\mathbf{x}))

        \mathbf{y} &= \mathrm{Norm}(\mathbf{h} + \mathbf{W}_2 \, \mathrm{GELU}(\mathbf{W}_1
        \mathbf{h}))

    .. code-block:: python

        transformer = SpatialTransformer(64, num_heads=4)
        y = transformer(x)     # a batch of images: x[B, N, 64]
        y = transformer(x)     # a batch of videos: x[B, T, N, 64]
        y = transformer(data)  # data.x[N, T, 64]

    It has its residuals within. As the spatial phase of a block, which adds its own, take
    :class:`SpatialAttention`.

    Args:
        dim (int): Size :math:`D` of each token, in and out.
        num_heads (int): Number of heads; they share the channels.
        num_layers (int, optional): Number of layers. (default: :obj:`1`)
        mlp_ratio (float, optional): Inner size of the feed-forward network for each of
            :obj:`dim`. (default: :obj:`4.0`)
        dropout (float, optional): Dropout of the attention weights, of what each phase adds and
            within the feed-forward network. (default: :obj:`0.0`)
        norm_first (bool, optional): Whether to normalize before each phase rather than after; the
            output of the last layer then is not normalized. (default: :obj:`False`)
        neighbors_only (bool, optional): Whether a node attends to its neighbors in the graph and
            to itself rather than to all nodes. (default: :obj:`False`)
        adjacency (torch.Tensor, optional): The graph where none is given with the input, a dense
            matrix :obj:`adj[target, source]`; it implies :obj:`neighbors_only=True`.
            (default: :obj:`None`)

    Shapes:
        - **input:** :math:`(B, |\mathcal{V}|, D)`, or :math:`(B, T, |\mathcal{V}|, D)`; with
          :obj:`nodes_first=True` :math:`(|\mathcal{V}|, T, D)` or
          :math:`(|\mathcal{V}|, B, T, D)`; or a :class:`~torch_geometric.data.Data`; edges
          :math:`(2, |\mathcal{E}|)` or an adjacency matrix
          :math:`(|\mathcal{V}|, |\mathcal{V}|)` *(optional)*
        - **output:** the shape of :obj:`x`
    """

    adjacency: Tensor | None

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_layers: int = 1,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        norm_first: bool = False,
        neighbors_only: bool = False,
        adjacency: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.num_heads = dim, num_heads
        self.neighbors_only = neighbors_only or adjacency is not None
        self.register_buffer("adjacency", adjacency)
        self.layers = nn.ModuleList(
            AttentionLayer(
                SpatialAttention(dim, num_heads, dropout, self.neighbors_only),
                dim,
                mlp_ratio,
                dropout,
                norm_first,
            )
            for _ in range(num_layers)
        )

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        reset(self.layers)

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
        r"""Runs all layers.

        Args:
            x (torch.Tensor or torch_geometric.data.Data): The tokens, or a
                :class:`~torch_geometric.data.Data` or :class:`~torch_geometric.data.Batch` from
                which :obj:`x`, :obj:`edge_index`, :obj:`batch` and :obj:`x_mask` are read.
            edge_index (torch.Tensor, optional): The edges, source to target, or a dense matrix
                :obj:`adj[target, source]`. (default: :obj:`None`)
            edge_attr (torch.Tensor, optional): Not used. (default: :obj:`None`)
            mask (torch.Tensor, optional): :obj:`True` where a token was observed, of the shape of
                :obj:`x` without channels. What an unobserved token holds has no influence, it
                enters as zero, and its output is zero. (default: :obj:`None`)
            batch (torch.Tensor, optional): The graph of each node. (default: :obj:`None`)
            nodes_first (bool, optional): Whether :obj:`x` is :math:`(|\mathcal{V}|, T, D)` or
                :math:`(|\mathcal{V}|, B, T, D)`. (default: :obj:`False`)
        """
        images = isinstance(x, Tensor) and x.dim() == 3 and not nodes_first
        if images:
            x = x.transpose(0, 1)
            mask = None if mask is None else mask.transpose(0, 1)
        inputs = read_space_time(
            x, edge_index, None, mask, batch, channels=self.dim, nodes_first=nodes_first
        )
        edge_index = inputs.edge_index
        if edge_index is None and self.adjacency is not None:
            edge_index, _ = read_graph(self.adjacency, None, inputs.x.size(0))
        h = inputs.x
        for layer in self.layers:
            h = layer(h, edge_index, None, inputs.batch)
        y = inputs.restore(h)
        return y.transpose(0, 1) if images else y

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.dim}, num_heads={self.num_heads}, "
            f"num_layers={len(self.layers)}, neighbors_only={self.neighbors_only})"
        )
