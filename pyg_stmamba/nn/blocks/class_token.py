from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class WithClassToken(NamedTuple):
    r"""Graphs to each of which :func:`add_class_token` has added a node.

    Args:
        x (torch.Tensor): The features, the class token of a graph before its nodes,
            :math:`(G + |\mathcal{V}|, *, T, C)`.
        edge_index (torch.Tensor, optional): The edges, and those from and to the class tokens.
        batch (torch.Tensor, optional): The graph of each class token and node.
        place (torch.Tensor, optional): Where the class tokens, then the nodes are found; if
            :obj:`None`, in this order.
        num_graphs (int): The number :math:`G` of class tokens.
    """

    x: Tensor
    edge_index: Tensor | None
    batch: Tensor | None
    place: Tensor | None
    num_graphs: int

    @property
    def class_places(self) -> Tensor:
        r"""The rows of the class tokens."""
        if self.place is not None:
            return self.place[: self.num_graphs]
        return torch.arange(self.num_graphs, device=self.x.device)

    def split(self, y: Tensor) -> tuple[Tensor, Tensor]:
        r"""Takes class tokens and nodes of :obj:`y` apart, which has the rows of :obj:`x`."""
        if self.place is not None:
            y = y[self.place]
        return y[: self.num_graphs], y[self.num_graphs :]


def add_class_token(
    x: Tensor, cls: Tensor, edge_index: Tensor | None = None, batch: Tensor | None = None
) -> WithClassToken:
    r"""Adds to each graph one more node that stands at every step, its class token; edges connect
    it with all nodes of its graph, both ways.

    Args:
        x (torch.Tensor): The node features.
        cls (torch.Tensor): The class tokens, one of all steps or one a step.
        edge_index (torch.Tensor, optional): The edges. (default: :obj:`None`)
        batch (torch.Tensor, optional): The graph of each node, ascending; without it there is one
            graph. (default: :obj:`None`)

    Shapes:
        - **input:** :math:`(|\mathcal{V}|, *, T, C)`, :math:`(G, *, 1, C)` or
          :math:`(G, *, T, C)`, edges :math:`(2, |\mathcal{E}|)`, :math:`(|\mathcal{V}|)`
    """
    graphs, nodes = cls.size(0), x.size(0)
    tokens = torch.cat([cls.expand(graphs, *x.shape[1:]), x])
    first = torch.arange(graphs, device=x.device)
    graph = x.new_zeros(nodes, dtype=torch.long) if batch is None else batch
    place = None
    if batch is not None:
        batch = torch.cat([first, batch])
        order = batch.argsort(stable=True)
        place = order.argsort()
        tokens, batch = tokens[order], batch[order]
    if edge_index is not None:
        node = graphs + torch.arange(nodes, device=x.device)
        down, up = torch.stack([graph, node]), torch.stack([node, graph])
        edge_index = torch.cat([edge_index + graphs, down, up], dim=1)
        if place is not None:
            edge_index = place[edge_index]
    return WithClassToken(tokens, edge_index, batch, place, graphs)
