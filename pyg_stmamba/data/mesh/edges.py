from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

# Which corners of a cell an edge joins, in the numbering of VTK.
CELL_EDGES: dict[str, list[tuple[int, int]]] = {
    "line": [],
    "triangle": [(0, 1), (1, 2), (2, 0)],
    "quad": [(0, 1), (1, 2), (2, 3), (3, 0)],
    "tetra": [(0, 1), (1, 2), (2, 0), (0, 3), (1, 3), (2, 3)],
    "pyramid": [(0, 1), (1, 2), (2, 3), (3, 0), (0, 4), (1, 4), (2, 4), (3, 4)],
    "wedge": [(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3), (0, 3), (1, 4), (2, 5)],
    "hexahedron": [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4)]
    + [(0, 4), (1, 5), (2, 6), (3, 7)],
}


def cells_to_edges(cells: Mapping[str, np.ndarray]) -> Tensor:
    r"""Joins the nodes that are the two ends of an edge of a cell, diagonals left out.

    Cells of type :obj:`"line"` only mark borders and add no edge.

    Args:
        cells (dict[str, numpy.ndarray]): The cells by type, as a
            :class:`~pyg_stmamba.data.mesh.Mesh` holds them.

    Returns:
        torch.Tensor: :obj:`edge_index` :math:`(2, |\mathcal{E}|)`, every edge once in each
        direction, sorted by target and source.

    Raises:
        ValueError: If a cell type is unknown.

    Shapes:
        - **cells:** :math:`(M, k)`, int64
        - **output:** :math:`(2, |\mathcal{E}|)`, int64
    """
    unknown = [kind for kind in cells if kind not in CELL_EDGES]
    if unknown:
        raise ValueError(f"unknown cell type {unknown[0]!r}; choose from {', '.join(CELL_EDGES)}")
    ends = [
        np.asarray(block, dtype=np.int64)[:, np.array(CELL_EDGES[kind])].reshape(-1, 2)
        for kind, block in cells.items()
        if CELL_EDGES[kind]
    ]
    pairs = np.concatenate(ends) if ends else np.zeros((0, 2), dtype=np.int64)
    return undirected_edges(pairs[:, 0], pairs[:, 1])


def undirected_edges(first: np.ndarray, second: np.ndarray) -> Tensor:
    r"""Returns each pair of nodes once in both directions, sorted by target and source.

    Args:
        first (numpy.ndarray): One end of each pair; pairs may repeat in either direction.
        second (numpy.ndarray): The other end.

    Shapes:
        - **input:** :math:`(P)`, int64, both
        - **output:** :math:`(2, |\mathcal{E}|)`, int64
    """
    base = int(max(first.max(), second.max())) + 1 if len(first) else 1
    # Sorting single numbers is many times faster than sorting rows.
    low, high = np.divmod(
        np.unique(np.minimum(first, second) * base + np.maximum(first, second)), base
    )
    key = np.sort(np.concatenate([low * base + high, high * base + low]))
    target, source = np.divmod(key, base)
    return torch.from_numpy(np.stack([source, target]))


def edge_features(pos: np.ndarray | Tensor, edge_index: Tensor) -> Tensor:
    r"""Where the source of each edge lies as seen from its target, and how far.

    .. math::
        \mathbf{e}_{ij} = (\mathbf{p}_j - \mathbf{p}_i, \; \| \mathbf{p}_j - \mathbf{p}_i \|)

    for the edge from :math:`j` to :math:`i`.

    Args:
        pos (numpy.ndarray or torch.Tensor): Positions of the nodes.
        edge_index (torch.Tensor): The edges.

    Shapes:
        - **input:** :math:`(|\mathcal{V}|, D)`, :math:`(2, |\mathcal{E}|)`
        - **output:** :math:`(|\mathcal{E}|, D + 1)`, float32
    """
    # Neighbors may lie so close together that float32 must only come after the difference.
    pos = torch.as_tensor(pos).double()
    offset = pos[edge_index[0]] - pos[edge_index[1]]
    return torch.cat([offset, offset.norm(dim=1, keepdim=True)], dim=1).float()
