from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data


def count_graphs(x: Tensor | Data, batch: Tensor | None) -> int:
    r"""Returns how many graphs an input holds; a :class:`~torch_geometric.data.Batch` knows of
    empty ones at its end, too.

    Args:
        x (torch.Tensor or torch_geometric.data.Data): The input.
        batch (torch.Tensor, optional): The graph of each node.
    """
    if batch is None:
        return 1
    if isinstance(x, Batch):
        return x.num_graphs
    return int(batch.max()) + 1 if batch.numel() > 0 else 0


def mean_over_nodes(
    x: Tensor,
    mask: Tensor | None = None,
    batch: Tensor | None = None,
    num_graphs: int = 1,
    over_time: bool = False,
) -> Tensor:
    r"""Averages the observed nodes of each graph, at each step or over all steps at once; where
    nothing is observed the mean is zero.

    Args:
        x (torch.Tensor): The features.
        mask (torch.Tensor, optional): :obj:`True` = observed. (default: :obj:`None`)
        batch (torch.Tensor, optional): The graph of each node. (default: :obj:`None`)
        num_graphs (int, optional): The number of graphs :math:`G`. (default: :obj:`1`)
        over_time (bool, optional): Whether the steps are averaged too. (default: :obj:`False`)

    Shapes:
        - **input:** :math:`(|\mathcal{V}|, *, T, C)`, mask :math:`(|\mathcal{V}|, *, T)`,
          :math:`(|\mathcal{V}|)`
        - **output:** :math:`(G, *, T, C)`, or :math:`(G, *, 1, C)` over all steps
    """
    if mask is None:
        there = x.new_ones(x.size(0), *(1,) * (x.dim() - 3), x.size(-2), 1, dtype=torch.float)
    else:
        there = mask.unsqueeze(-1).float()
        x = x.masked_fill(~mask.unsqueeze(-1), 0.0)
    total, count = (_sum_over_nodes(each, batch, num_graphs) for each in (x, there))
    if over_time:
        total, count = total.sum(-2, keepdim=True), count.sum(-2, keepdim=True)
    return total / count.clamp(min=1).to(x.dtype)


def _sum_over_nodes(x: Tensor, batch: Tensor | None, num_graphs: int) -> Tensor:
    if batch is None:
        return x.sum(0, keepdim=True)
    return x.new_zeros(num_graphs, *x.shape[1:]).index_add(0, batch, x)
