from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn.inits import reset

from pyg_stmamba.nn.blocks.attention_layer import AttentionLayer
from pyg_stmamba.nn.blocks.space_time_input import read_space_time
from pyg_stmamba.nn.embedding.temporal_position import TemporalPositionalEncoding
from pyg_stmamba.nn.temporal.attention import TemporalAttention


class TemporalTransformer(nn.Module):
    r"""The encoder of the `"Attention Is All You Need" <https://arxiv.org/abs/1706.03762>`_ paper
    over time: each patch of a video, or node of a graph, attends to its own steps.

    .. math::
        \mathbf{h} &= \mathrm{Norm}(\mathbf{x} + \mathrm{Attention}(\mathbf{x}))

        \mathbf{y} &= \mathrm{Norm}(\mathbf{h} + \mathbf{W}_2 \, \mathrm{GELU}(\mathbf{W}_1
        \mathbf{h}))

    .. code-block:: python

        transformer = TemporalTransformer(64, num_heads=4)
        y = transformer(x)     # a batch of series: x[T, B, 64]
        y = transformer(x)     # a batch of videos: x[B, T, N, 64]
        y = transformer(data)  # data.x[N, T, 64]

    Args:
        dim (int): Size :math:`D` of each step, in and out.
        num_heads (int): Number of heads; they share the channels.
        num_layers (int, optional): Number of layers. (default: :obj:`1`)
        mlp_ratio (float, optional): Inner size of the feed-forward network for each of
            :obj:`dim`. (default: :obj:`4.0`)
        dropout (float, optional): Dropout of the attention weights, of what each phase adds and
            within the feed-forward network. (default: :obj:`0.0`)
        max_len (int, optional): Number of learned positions, added once at the entrance, hence the
            longest series. Without them the order of the steps is seen only by a causal
            transformer. (default: :obj:`None`)
        causal (bool, optional): Whether a step sees itself and earlier ones only.
            (default: :obj:`False`)
        batch_first (bool, optional): Whether a 3-D input is :math:`(B, T, D)` rather than
            :math:`(T, B, D)`. (default: :obj:`False`)
        norm_first (bool, optional): Whether to normalize before each phase rather than after; the
            output of the last layer then is not normalized. (default: :obj:`False`)

    Shapes:
        - **input:** :math:`(T, B, D)`, or :math:`(B, T, D)` with :obj:`batch_first=True`, or
          :math:`(B, T, |\mathcal{V}|, D)`, or :math:`(|\mathcal{V}|, B, T, D)` with
          :obj:`nodes_first=True`, or a :class:`~torch_geometric.data.Data`
        - **output:** the shape of :obj:`x`
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_layers: int = 1,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        max_len: int | None = None,
        causal: bool = False,
        batch_first: bool = False,
        norm_first: bool = False,
    ) -> None:
        super().__init__()
        self.dim, self.num_heads = dim, num_heads
        self.causal, self.batch_first = causal, batch_first
        self.position = None if max_len is None else TemporalPositionalEncoding(dim, max_len)
        self.layers = nn.ModuleList(
            AttentionLayer(
                TemporalAttention(dim, num_heads, dropout, causal, position=None),
                dim,
                mlp_ratio,
                dropout,
                norm_first,
            )
            for _ in range(num_layers)
        )

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        for module in self.children():
            reset(module)

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
            x (torch.Tensor or torch_geometric.data.Data): The series, or a
                :class:`~torch_geometric.data.Data` or :class:`~torch_geometric.data.Batch` from
                which :obj:`x` and :obj:`x_mask` are read.
            edge_index (torch.Tensor, optional): Not used, nor are :obj:`edge_attr` and
                :obj:`batch`: no node sees another. (default: :obj:`None`)
            mask (torch.Tensor, optional): :obj:`True` where a step was observed, of the shape of
                :obj:`x` without channels. An unobserved step has no influence, and its output is
                zero. (default: :obj:`None`)
            nodes_first (bool, optional): Whether :obj:`x` is :math:`(|\mathcal{V}|, B, T, D)` or
                :math:`(|\mathcal{V}|, T, D)`. (default: :obj:`False`)
        """
        time_first = (
            isinstance(x, Tensor) and x.dim() == 3 and not (self.batch_first or nodes_first)
        )
        if time_first:
            x = x.transpose(0, 1)
            mask = None if mask is None else mask.transpose(0, 1)
        inputs = read_space_time(x, mask=mask, channels=self.dim, nodes_first=nodes_first)
        h = inputs.x if self.position is None else self.position(inputs.x)
        for layer in self.layers:
            h = layer(h, inputs.mask)
        y = inputs.restore(h)
        return y.transpose(0, 1) if time_first else y

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.dim}, num_heads={self.num_heads}, "
            f"num_layers={len(self.layers)}, causal={self.causal})"
        )
