from __future__ import annotations

import torch
from torch import Tensor

from pyg_stmamba.nn.spatial.once_per_graph import once_per_graph


def read_graph(
    graph: Tensor, edge_attr: Tensor | None, num_nodes: int, edge_dim: int | None = None
) -> tuple[Tensor, Tensor | None]:
    r"""Reads the edges of a graph given as edges or as a dense adjacency matrix, and checks them.

    A dense matrix is :obj:`adj[target, source]`: row :math:`i` lists what node :math:`i` receives
    from.
    That is the transpose of what :func:`torch_geometric.utils.to_dense_adj` returns.
    Its weights become edge features where one is wanted, :obj:`edge_dim=1`; otherwise only its
    pattern counts.
    An integer tensor of two rows is read as edges.

    Args:
        graph (torch.Tensor): Edges, or a dense adjacency matrix.
        edge_attr (torch.Tensor, optional): Features of the edges.
        num_nodes (int): Number of nodes.
        edge_dim (int, optional): Size of the edge features wanted. (default: :obj:`None`)

    Shapes:
        - **input:** edges :math:`(2, |\mathcal{E}|)` or a matrix
          :math:`(|\mathcal{V}|, |\mathcal{V}|)`
        - **output:** edges :math:`(2, |\mathcal{E}|)`, source to target, and their features

    Raises:
        ValueError: If the graph is neither, or does not fit the nodes.
    """
    shape, dtype = list(graph.shape), graph.dtype
    if graph.dim() != 2:
        raise ValueError(
            f"expected edges [2, E] of dtype int64 or an adjacency matrix [{num_nodes}, "
            f"{num_nodes}], got a tensor of shape {shape} and dtype {dtype}"
        )
    integer = not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)
    if integer and graph.size(0) == 2:
        if graph.dtype != torch.int64:
            raise ValueError(
                f"edge_index must have dtype torch.int64, got {dtype}; convert it by .long()"
            )
        _check_range(graph, num_nodes)
        if edge_attr is not None and edge_attr.size(0) != graph.size(1):
            raise ValueError(
                f"expected one row of edge features for each of {graph.size(1)} edges, got "
                f"edge_attr of shape {list(edge_attr.shape)}"
            )
        return graph, edge_attr

    if graph.size(0) != graph.size(1):
        hint = f"; edges [2, E] need dtype int64, got {dtype}" if graph.size(0) == 2 else ""
        raise ValueError(f"an adjacency matrix must be square, got shape {shape}{hint}")
    if graph.size(0) != num_nodes:
        raise ValueError(
            f"an adjacency matrix for {num_nodes} nodes must be [{num_nodes}, {num_nodes}], got "
            f"{shape}"
        )
    if edge_attr is not None:
        raise ValueError("edge_attr belongs to edges [2, E]; it cannot go with a dense matrix")
    target, source = graph.nonzero(as_tuple=True)
    if edge_dim == 1:
        weight = graph[target, source].unsqueeze(-1)
        edge_attr = weight if dtype.is_floating_point else weight.to(torch.get_default_dtype())
    return torch.stack([source, target]), edge_attr


@once_per_graph
def _check_range(edge_index: Tensor, num_nodes: int) -> None:
    if torch.compiler.is_compiling() or edge_index.numel() == 0:
        return  # a traced graph cannot branch on values
    low, high = (int(v) for v in edge_index.aminmax())
    if low < 0 or high >= num_nodes:
        raise ValueError(
            f"edge_index holds node {low if low < 0 else high}, but x has {num_nodes} nodes "
            f"(0 to {num_nodes - 1}); nodes come first in x[N, T, C]"
        )
