from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch_geometric.nn.inits import reset

from pyg_stmamba.nn.dropout import Dropout
from pyg_stmamba.nn.spacetime.feed_forward import FeedForward


class AttentionLayer(nn.Module):
    r"""A layer of the encoder of the `"Attention Is All You Need"
    <https://arxiv.org/abs/1706.03762>`_ paper around any self-attention.

    .. math::
        \mathbf{h} &= \mathrm{Norm}(\mathbf{x} + \mathrm{Drop}(\mathrm{Attention}(\mathbf{x})))

        \mathbf{y} &= \mathrm{Norm}(\mathbf{h} + \mathrm{FeedForward}(\mathbf{h}))

    With :obj:`norm_first=True` both phases are :math:`\mathbf{x} + f(\mathrm{Norm}(\mathbf{x}))`
    instead (`"On Layer Normalization in the Transformer Architecture"
    <https://arxiv.org/abs/2002.04745>`_).

    Args:
        attention (torch.nn.Module): The self-attention, called with :obj:`x` and whatever else
            the layer is called with; it keeps the shape.
        dim (int): Size :math:`D` of each token.
        mlp_ratio (float, optional): Inner size of the feed-forward network for each of
            :obj:`dim`. (default: :obj:`4.0`)
        dropout (float, optional): Dropout of what both phases add and within the feed-forward
            network. (default: :obj:`0.0`)
        norm_first (bool, optional): Whether to normalize before each phase rather than after.
            (default: :obj:`False`)

    Shapes:
        - **input:** :math:`(*, D)`
        - **output:** :math:`(*, D)`
    """

    def __init__(
        self,
        attention: nn.Module,
        dim: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        norm_first: bool = False,
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.attention = attention
        self.norm1 = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, int(mlp_ratio * dim), dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew, those of the attention included."""
        for module in self.children():
            reset(module)

    def enter(self, x: Tensor) -> Tensor:
        r"""Returns what the attention sees of :obj:`x`."""
        return self.norm1(x) if self.norm_first else x

    def forward(self, x: Tensor, *given: Any) -> Tensor:
        x = x + self.dropout(self.attention(self.enter(x), *given))
        if self.norm_first:
            return x + self.feed_forward(self.norm2(x))
        x = self.norm1(x)
        return self.norm2(x + self.feed_forward(x))
