from __future__ import annotations

from typing import NamedTuple

from einops import rearrange
from torch import Tensor
from torch_geometric.utils import to_dense_batch

from pyg_stmamba.nn.blocks.space_time_input import SpaceTimeInput


class PaddedGraphs(NamedTuple):
    r"""The graphs of a :class:`SpaceTimeInput` as videos of equally many nodes :math:`M`, one for
    each graph and window; smaller graphs are filled up."""

    x: Tensor  # [V, T, M, C], zero where there is nothing
    hidden: Tensor | None  # [V, T, M], True = padding or unobserved; None if that is nowhere
    nodes: Tensor | None  # [G, M], True = a node, False = padding; None with one graph
    windows: int | None  # the windows of each graph, None without that dimension

    def restore(self, y: Tensor) -> Tensor:
        r"""Brings an output :math:`(V, T, M, C)` back to :math:`(|\mathcal{V}|, *, T, C)`."""
        windows = 1 if self.windows is None else self.windows
        y = rearrange(
            y, "(graph window) time node channel -> graph node window time channel", window=windows
        )
        y = y[0] if self.nodes is None else y[self.nodes]
        return y.squeeze(1) if self.windows is None else y


def pad_graphs(inputs: SpaceTimeInput) -> PaddedGraphs:
    r"""Lays the graphs of an input side by side, for what attends over all nodes of a graph.

    Shapes:
        - **input:** nodes first, :math:`(|\mathcal{V}|, T, C)` or
          :math:`(|\mathcal{V}|, B, T, C)`
        - **output:** :math:`(V, T, M, C)` for :math:`V = G \cdot B` videos

    Raises:
        ValueError: If the nodes of a graph do not follow each other.
    """
    x, batch = inputs.x, inputs.batch
    if batch is not None and bool((batch.diff() < 0).any()):
        raise ValueError("batch must be ascending: the nodes of a graph follow each other")
    windows = x.size(1) if x.dim() == 4 else None
    padded, nodes = to_dense_batch(x, batch)
    hidden = None
    if inputs.mask is not None:
        hidden = ~to_dense_batch(inputs.mask, batch)[0]
    elif batch is not None:
        hidden = ~nodes.reshape(*nodes.shape, *(1,) * (x.dim() - 2)).expand(padded.shape[:-1])
    return PaddedGraphs(
        _videos(padded, windows),
        None if hidden is None else _videos(hidden.unsqueeze(-1), windows).squeeze(-1),
        None if batch is None else nodes,
        windows,
    )


def _videos(x: Tensor, windows: int | None) -> Tensor:
    x = x.unsqueeze(2) if windows is None else x
    return rearrange(x, "graph node window time channel -> (graph window) time node channel")
