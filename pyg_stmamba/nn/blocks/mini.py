from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_stmamba.nn.blocks.padded_graphs import pad_graphs
from pyg_stmamba.nn.blocks.space_time_input import read_space_time


class SpaceTimeMaps(NamedTuple):
    r"""Who attends to whom in a :class:`MiniSpaceTimeTransformer`; each row sums to one."""

    spatial: Tensor  # [B, T, N, N], row: the patch that looks
    temporal: Tensor  # [B, N, T, T], row: the frame that looks


class MiniSpaceTimeTransformer(nn.Module):
    r"""The least that mixes space and time: an attention among the patches of each frame and an
    attention among the frames of each patch, one after the other, without residuals, norms or
    feed-forward networks.

    .. math::
        \mathbf{h}_{t, :} &= \mathrm{Attention}_{\mathrm{space}}(\mathbf{x}_{t, :})
        \quad \text{for each frame } t

        \mathbf{y}_{:, n} &= \mathrm{Attention}_{\mathrm{time}}(\mathbf{h}_{:, n})
        \quad \text{for each patch } n

    The `"ViViT" <https://arxiv.org/abs/2103.15691>`_ paper sees space first, the `"TimeSformer"
    <https://arxiv.org/abs/2102.05095>`_ paper time first. Each of both attentions needs
    :obj:`batch_first=True` in :class:`torch.nn.MultiheadAttention`; without it, on
    :obj:`x[B, N, D]`, the videos of a batch attend to each other.

    Args:
        dim (int, optional): Size :math:`D` of each token. (default: :obj:`3`)
        num_heads (int, optional): Number of heads; they share the channels. (default: :obj:`1`)
        order (str, optional): :obj:`"space_first"` or :obj:`"time_first"`.
            (default: :obj:`"space_first"`)

    Shapes:
        - **input:** :math:`(B, T, N, D)`, or :math:`(N, B, T, D)` with :obj:`nodes_first=True`, or
          :math:`(N, T, D)`, or a :class:`~torch_geometric.data.Data`
        - **output:** the shape of :obj:`x`, and the :class:`SpaceTimeMaps` if wanted

    Raises:
        ValueError: If the order is unknown or the heads do not divide the channels.
    """

    def __init__(
        self,
        dim: int = 3,
        num_heads: int = 1,
        order: Literal["space_first", "time_first"] = "space_first",
    ) -> None:
        super().__init__()
        if order not in ("space_first", "time_first"):
            raise ValueError(f"unknown order {order!r}; choose 'space_first' or 'time_first'")
        if dim % num_heads != 0:
            raise ValueError(f"dim ({dim}) must be divisible by num_heads ({num_heads})")
        self.dim, self.num_heads, self.order = dim, num_heads, order
        self.spatial = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.temporal = nn.MultiheadAttention(dim, num_heads, batch_first=True)

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        for attention in (self.spatial, self.temporal):
            attention._reset_parameters()
            attention.out_proj.reset_parameters()
            nn.init.zeros_(attention.out_proj.bias)

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
    ) -> Tensor | tuple[Tensor, SpaceTimeMaps]:
        r"""Runs both attentions.

        Args:
            x (torch.Tensor or torch_geometric.data.Data): The tokens, or a
                :class:`~torch_geometric.data.Data` or :class:`~torch_geometric.data.Batch` from
                which :obj:`x`, :obj:`batch` and :obj:`x_mask` are read.
            edge_index (torch.Tensor, optional): Not used, nor is :obj:`edge_attr`.
                (default: :obj:`None`)
            mask (torch.Tensor, optional): :obj:`True` where a token was observed, of the shape of
                :obj:`x` without channels. No token attends to an unobserved one, whose output is
                zero. (default: :obj:`None`)
            batch (torch.Tensor, optional): The graph of each node. (default: :obj:`None`)
            nodes_first (bool, optional): Whether a 4-D :obj:`x` is :math:`(N, B, T, D)`.
                (default: :obj:`False`)
            return_attention (bool, optional): Whether to return who attended to whom, the mean
                over the heads. (default: :obj:`False`)
        """
        inputs = read_space_time(
            x, None, None, mask, batch, channels=self.dim, nodes_first=nodes_first
        )
        graphs = pad_graphs(inputs)
        h, hidden = graphs.x, graphs.hidden
        if self.order == "space_first":
            h, spatial = _attend(self.spatial, h, hidden, return_attention)
            h, temporal = self._over_time(h, hidden, return_attention)
        else:
            h, temporal = self._over_time(h, hidden, return_attention)
            h, spatial = _attend(self.spatial, h, hidden, return_attention)
        y = inputs.restore(graphs.restore(h))
        if spatial is None or temporal is None:
            return y
        return y, SpaceTimeMaps(spatial, temporal)

    def _over_time(
        self, h: Tensor, hidden: Tensor | None, return_attention: bool
    ) -> tuple[Tensor, Tensor | None]:
        hidden = None if hidden is None else hidden.transpose(1, 2)
        h, weights = _attend(self.temporal, h.transpose(1, 2), hidden, return_attention)
        return h.transpose(1, 2), weights

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.dim}, num_heads={self.num_heads}, order={self.order!r})"
        )


def _attend(
    attention: nn.MultiheadAttention, x: Tensor, hidden: Tensor | None, return_attention: bool
) -> tuple[Tensor, Tensor | None]:
    """Attention along the last dimension but one of x[V, S, L, D], the others are a batch."""
    rows = x.flatten(0, 1)
    if hidden is not None:
        # Where all is hidden, all is seen, so that no softmax is over nothing.
        hidden = (hidden & ~hidden.all(-1, keepdim=True)).flatten(0, 1)
    y, weights = attention(rows, rows, rows, hidden, need_weights=return_attention)
    shape = x.shape[:2]
    return y.unflatten(0, shape), None if weights is None else weights.unflatten(0, shape)
