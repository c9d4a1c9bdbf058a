from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_stmamba.nn.blocks.adjacency import read_graph
from pyg_stmamba.nn.blocks.pivot import pivot, unpivot


class SpaceTimeInput(NamedTuple):
    r"""What a block over space and time was given, nodes first whatever layout it came in."""

    x: Tensor  # [N, *, T, C], zero where unobserved
    edge_index: Tensor | None  # [2, E], source to target
    edge_attr: Tensor | None
    mask: Tensor | None  # [N, *, T], True = observed
    batch: Tensor | None  # [N], the graph of each node
    dense: bool  # whether x came as [B, T, N, C]

    def restore(self, y: Tensor) -> Tensor:
        r"""Brings an output :math:`(|\mathcal{V}|, *, T, C)` into the layout that the input had,
        with zeros where that was unobserved."""
        if self.mask is not None:
            y = y.masked_fill(~self.mask.unsqueeze(-1), 0.0)
        return unpivot(y) if self.dense else y


def read_space_time(
    x: Tensor | Data,
    edge_index: Tensor | None = None,
    edge_attr: Tensor | None = None,
    mask: Tensor | None = None,
    batch: Tensor | None = None,
    *,
    channels: int,
    nodes_first: bool = False,
    edge_dim: int | None = None,
) -> SpaceTimeInput:
    r"""Reads what a block over space and time takes, in any of its layouts, and checks it.

    .. code-block:: python

        inputs = read_space_time(x, edge_index, mask=mask, channels=64)
        y = inputs.restore(operator(inputs.x, inputs.edge_index))

    Args:
        x (torch.Tensor or torch_geometric.data.Data): The node features, or a
            :class:`~torch_geometric.data.Data` or :class:`~torch_geometric.data.Batch` from which
            :obj:`x`, :obj:`edge_index`, :obj:`edge_attr`, :obj:`batch` and :obj:`x_mask` are read.
        edge_index (torch.Tensor, optional): The edges, source to target, or a dense matrix
            :obj:`adj[target, source]`. (default: :obj:`None`)
        edge_attr (torch.Tensor, optional): The edge features. (default: :obj:`None`)
        mask (torch.Tensor, optional): :obj:`True` where a step of a node was observed, of the
            shape of :obj:`x` without channels. (default: :obj:`None`)
        batch (torch.Tensor, optional): The graph of each node. (default: :obj:`None`)
        channels (int): The channels that :obj:`x` must have.
        nodes_first (bool, optional): Whether a 4-D :obj:`x` is
            :math:`(|\mathcal{V}|, B, T, C)` rather than :math:`(B, T, |\mathcal{V}|, C)`.
            (default: :obj:`False`)
        edge_dim (int, optional): Size of the edge features wanted, as in :func:`read_graph`.
            (default: :obj:`None`)

    Shapes:
        - **input:** :math:`(|\mathcal{V}|, T, C)`, or :math:`(B, T, |\mathcal{V}|, C)`, or
          :math:`(|\mathcal{V}|, B, T, C)` with :obj:`nodes_first=True`

    Raises:
        ValueError: If :obj:`x` has none of these shapes, or mask, batch or graph do not fit it.
    """
    if isinstance(x, Data):
        data, nodes_first = x, True
        x, edge_index, edge_attr, batch = data.x, data.edge_index, data.edge_attr, data.batch
        mask = data.get("x_mask")
        if mask is not None and mask.dim() == x.dim():
            mask = mask.any(dim=-1)
    if x.dim() not in (3, 4) or x.size(-1) != channels:
        raise ValueError(
            f"expected x[N, T, C], x[B, T, N, C] or, with nodes_first=True, x[N, B, T, C] with "
            f"C = {channels} channels last, got a tensor of shape {list(x.shape)}"
        )
    if mask is not None and (mask.shape != x.shape[:-1] or mask.dtype != torch.bool):
        raise ValueError(
            f"the mask must be boolean with one entry for each node and step, "
            f"{list(x.shape[:-1])} for x of shape {list(x.shape)}, got {list(mask.shape)} and "
            f"dtype {mask.dtype}"
        )
    dense = x.dim() == 4 and not nodes_first
    if dense:
        x = pivot(x)
        mask = None if mask is None else pivot(mask.unsqueeze(-1)).squeeze(-1)
    if batch is not None and batch.shape != x.shape[:1]:
        raise ValueError(
            f"batch must name the graph of each of {x.size(0)} nodes, [{x.size(0)}], got "
            f"{list(batch.shape)}"
        )
    if edge_index is not None:
        edge_index, edge_attr = read_graph(edge_index, edge_attr, x.size(0), edge_dim)
    if mask is not None:
        x = x.masked_fill(~mask.unsqueeze(-1), 0.0)
    return SpaceTimeInput(x, edge_index, edge_attr, mask, batch, dense)
