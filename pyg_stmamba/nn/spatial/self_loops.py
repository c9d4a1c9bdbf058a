from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from pyg_stmamba.nn.spatial.once_per_graph import once_per_graph

REDUCTIONS = ("add", "sum", "mean", "min", "max", "mul")


def with_self_loops(
    edge_index: Tensor,
    edge_attr: Tensor | None,
    num_nodes: int,
    fill_value: float | Tensor | str = "mean",
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    r"""Replaces the self loops of a graph by exactly one at each node, put after all other edges.

    Eager code drops the loops that were there.
    A traced graph cannot depend on how many there are, so there they stay in place and are named
    by the third value, for the caller to give them no weight.

    Args:
        edge_index (torch.Tensor): The edges, source to target.
        edge_attr (torch.Tensor, optional): Their features.
        num_nodes (int): Number of nodes.
        fill_value (float or torch.Tensor or str, optional): Features of the new loops: given, or
            reduced from the other edges into the node by :obj:`"add"`, :obj:`"mean"`,
            :obj:`"min"`, :obj:`"max"` or :obj:`"mul"`. (default: :obj:`"mean"`)

    Shapes:
        - **input:** :math:`(2, |\mathcal{E}|)`, :math:`(|\mathcal{E}|, *, D)`
        - **output:** edges :math:`(2, E^{\prime})`, features :math:`(E^{\prime}, *, D)` and, when
          traced, a boolean :math:`(E^{\prime})` that is :obj:`True` at the edges to ignore
    """
    looped, kept, ignored = _loop_edges(edge_index, num_nodes)
    if edge_attr is None:
        return looped, None, ignored
    target, edges = looped[1], looped.size(1) - num_nodes
    if kept is not None:
        edge_attr = edge_attr[kept]
    if isinstance(fill_value, str):
        into = target[:edges]
        if ignored is not None:  # old loops are reduced into a row beyond the last node
            into = into.masked_fill(ignored[:edges], num_nodes)
        loop_attr = scatter(edge_attr, into, 0, num_nodes + 1, fill_value)[:num_nodes]
    elif isinstance(fill_value, Tensor):
        loop_attr = fill_value.to(edge_attr).expand(num_nodes, *edge_attr.shape[1:])
    else:
        loop_attr = edge_attr.new_full((num_nodes, *edge_attr.shape[1:]), fill_value)
    return looped, torch.cat([edge_attr, loop_attr]), ignored


@once_per_graph
def _loop_edges(edge_index: Tensor, num_nodes: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
    loop = torch.arange(num_nodes, device=edge_index.device).expand(2, -1)
    old = edge_index[0] == edge_index[1]
    if torch.compiler.is_compiling():
        ignored = torch.cat([old, old.new_zeros(num_nodes)])
        return torch.cat([edge_index, loop], dim=1), None, ignored
    kept = (~old).nonzero().squeeze(-1)
    return torch.cat([edge_index[:, kept], loop], dim=1), kept, None
