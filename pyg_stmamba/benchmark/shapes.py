r"""The sizes at which the operations are measured."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class GraphShape(NamedTuple):
    r"""Windows over one graph.

    Args:
        name (str): What has this shape.
        nodes (int): Number of nodes :math:`N`.
        edges (int): Number of edges :math:`E`.
        steps (int): Steps of a window :math:`T`.
        windows (int): Windows side by side :math:`B`.
        channels (int): Channels of a node. (default: :obj:`64`)
        heads (int): Heads of the attention. (default: :obj:`4`)
    """

    name: str
    nodes: int
    edges: int
    steps: int
    windows: int
    channels: int = 64
    heads: int = 4

    def __str__(self) -> str:
        sizes = f"N {self.nodes:,}, E {self.edges:,}, T {self.steps:,}, B {self.windows:,}"
        return f"{self.name}: {sizes}, {self.channels} channels"


class RowShape(NamedTuple):
    r"""Series side by side, each scanned on its own."""

    rows: int
    steps: int
    channels: int = 128
    states: int = 16

    def __str__(self) -> str:
        return (
            f"{self.rows:,} rows x {self.steps:,} steps x {self.channels} channels x "
            f"{self.states} states"
        )


METR_LA = GraphShape("METR-LA", 207, 1_722, 12, 8)
METR_LA_BATCH = METR_LA._replace(windows=64)
LARGEST_CA = GraphShape("LargeST-CA-like", 8_600, 201_363, 12, 4)
CFD = GraphShape("CFD-like", 1_900, 11_400, 50, 1)
CFD_LONG = CFD._replace(steps=600)

MANY_SHORT = RowShape(1_656, 12)
SOME = RowShape(128, 256)
FEW_LONG = RowShape(16, 2_048)
LONGEST = RowShape(16, 8_192)

GRAPHS = (METR_LA, METR_LA_BATCH, LARGEST_CA, CFD, CFD_LONG)
ROWS = (MANY_SHORT, SOME, FEW_LONG, LONGEST)


def random_graph(nodes: int, edges: int, seed: int = 0) -> Tensor:
    r"""Draws a graph without self loops and without parallel edges.

    Args:
        nodes (int): Number of nodes.
        edges (int): Number of edges.
        seed (int, optional): Of the draw. (default: :obj:`0`)

    Shapes:
        - **output:** :math:`(2, |\mathcal{E}|)`
    """
    possible = nodes * (nodes - 1)
    if edges > possible:
        raise ValueError(f"{nodes} nodes have {possible} edges at most, got {edges}")
    drawn = np.random.default_rng(seed).choice(possible, edges, replace=False)
    source, target = np.divmod(drawn, max(nodes - 1, 1))
    target += target >= source
    return torch.from_numpy(np.stack([source, target]))
