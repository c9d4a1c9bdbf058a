from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn.inits import reset

from pyg_stmamba.nn.blocks.attention_layer import AttentionLayer
from pyg_stmamba.nn.blocks.padded_graphs import pad_graphs
from pyg_stmamba.nn.blocks.space_time_input import read_space_time
from pyg_stmamba.nn.embedding.temporal_position import TemporalPositionalEncoding
from pyg_stmamba.nn.multi_head_attention import create_full_attention


class JointAttention(nn.Module):
    r"""The softmax attention of the `"Attention Is All You Need"
    <https://arxiv.org/abs/1706.03762>`_ paper among tokens that each have a time.

    Args:
        dim (int): Size :math:`D` of each token, in and out.
        num_heads (int): Number of heads; they share the channels.
        dropout (float, optional): Dropout of the attention weights. (default: :obj:`0.0`)

    Shapes:
        - **input:** tokens :math:`(B, L, D)`, attention mask :math:`(B, L)` *(optional)*, time
          index :math:`(L)` *(optional)*
        - **output:** :math:`(B, L, D)`
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % num_heads != 0:
            raise ValueError(f"dim ({dim}) must be divisible by num_heads ({num_heads})")
        size = dim // num_heads
        self.heads = create_full_attention(dim, size, size, num_heads, dropout=dropout)

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        self.heads.reset_parameters()

    def forward(
        self,
        x: Tensor,
        attention_mask: Tensor | None = None,
        time_index: Tensor | None = None,
    ) -> Tensor:
        r"""Attends.

        Args:
            x (torch.Tensor): The tokens.
            attention_mask (torch.Tensor, optional): Booleans, :obj:`True` where a token must not
                be attended to. (default: :obj:`None`)
            time_index (torch.Tensor, optional): The time of each token; with it a token sees
                those of its own time and of earlier ones. (default: :obj:`None`)
        """
        return self.heads(x, x, x, attention_mask, time_index=time_index)[0]

    def attention_map(
        self,
        x: Tensor,
        attention_mask: Tensor | None = None,
        time_index: Tensor | None = None,
    ) -> Tensor:
        r"""Returns how much each token, a row, attends to each, the mean over the heads
        :math:`(B, L, L)`; the arguments are those of :meth:`forward`."""
        _, weights = self.heads(x, x, x, attention_mask, True, time_index)
        return weights.mean(1)


class JointSpaceTimeTransformer(nn.Module):
    r"""Joint attention over space and time, as in the `"Is Space-Time Attention All You Need for
    Video Understanding?" <https://arxiv.org/abs/2102.05095>`_ paper: all nodes, or patches, at all
    steps are the tokens of one sequence.

    .. math::
        \mathbf{y}_{t, n} = \mathbf{W}_o \sum_{s} \sum_{m} \mathrm{softmax}_{s, m} \left(
        \frac{\mathbf{q}_{t, n}^{\top} \mathbf{k}_{s, m}}{\sqrt{d}} \right) \mathbf{v}_{s, m}

    Attention is followed by a feed-forward network, each with a residual and a layer norm. Its
    cost grows with :math:`(T \cdot N)^2`, where space and time apart take
    :math:`T \cdot N \cdot (T + N)`.

    .. code-block:: python

        transformer = JointSpaceTimeTransformer(64, num_heads=4)
        y = transformer(x)     # a batch of videos: x[B, T, N, 64]
        y = transformer(data)  # data.x[N, T, 64]

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
        causal (bool, optional): Whether a token sees those of its own and of earlier steps only.
            (default: :obj:`False`)
        max_len (int, optional): Number of learned positions in time, added once at the entrance,
            hence the longest series. Without them only a causal transformer tells steps from
            nodes. (default: :obj:`None`)

    Shapes:
        - **input:** :math:`(B, T, |\mathcal{V}|, D)`, or :math:`(|\mathcal{V}|, B, T, D)` with
          :obj:`nodes_first=True`, or :math:`(|\mathcal{V}|, T, D)`, or a
          :class:`~torch_geometric.data.Data`
        - **output:** the shape of :obj:`x`, and the attention maps if wanted
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_layers: int = 1,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        norm_first: bool = False,
        causal: bool = False,
        max_len: int | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.num_heads, self.causal = dim, num_heads, causal
        self.position = None if max_len is None else TemporalPositionalEncoding(dim, max_len)
        self.layers = nn.ModuleList(
            AttentionLayer(
                JointAttention(dim, num_heads, dropout), dim, mlp_ratio, dropout, norm_first
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
        return_attention: bool = False,
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        r"""Runs all layers.

        Args:
            x (torch.Tensor or torch_geometric.data.Data): The tokens, or a
                :class:`~torch_geometric.data.Data` or :class:`~torch_geometric.data.Batch` from
                which :obj:`x`, :obj:`batch` and :obj:`x_mask` are read.
            edge_index (torch.Tensor, optional): Not used, nor is :obj:`edge_attr`: each node sees
                all of its graph. (default: :obj:`None`)
            mask (torch.Tensor, optional): :obj:`True` where a token was observed, of the shape of
                :obj:`x` without channels. No token attends to an unobserved one, whose output is
                zero. (default: :obj:`None`)
            batch (torch.Tensor, optional): The graph of each node. (default: :obj:`None`)
            nodes_first (bool, optional): Whether a 4-D :obj:`x` is
                :math:`(|\mathcal{V}|, B, T, D)`. (default: :obj:`False`)
            return_attention (bool, optional): Whether to return how much each token attends to
                each, the mean over the heads, :math:`(V, T \cdot N, T \cdot N)` in each layer for
                :math:`V` videos or graphs; tokens are ordered by step, then by node.
                (default: :obj:`False`)
        """
        inputs = read_space_time(
            x, None, None, mask, batch, channels=self.dim, nodes_first=nodes_first
        )
        if self.position is not None:
            inputs = inputs._replace(x=self.position(inputs.x))
        graphs = pad_graphs(inputs)
        steps, nodes = graphs.x.shape[1:3]
        hidden = None if graphs.hidden is None else graphs.hidden.flatten(1)
        time = None
        if self.causal:
            time = torch.arange(steps, device=graphs.x.device).repeat_interleave(nodes)

        h, maps = graphs.x.flatten(1, 2), []
        layer: Any
        for layer in self.layers:
            if return_attention:
                maps.append(layer.attention.attention_map(layer.enter(h), hidden, time))
            h = layer(h, hidden, time)
        y = inputs.restore(graphs.restore(h.unflatten(1, (steps, nodes))))
        return (y, maps) if return_attention else y

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.dim}, num_heads={self.num_heads}, "
            f"num_layers={len(self.layers)}, causal={self.causal})"
        )
