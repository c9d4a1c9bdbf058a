from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyg_stmamba.data.mesh.edges import cells_to_edges, undirected_edges
from pyg_stmamba.data.mesh.mesh import Mesh


class CoarseLevel(NamedTuple):
    r"""One coarser level of a mesh.

    Args:
        nodes: The nodes of the mesh that belong to it :math:`(K)`, increasing.
        edge_index: The edges between them :math:`(2, E)`, in the numbering of the mesh.
    """

    nodes: Tensor
    edge_index: Tensor


def coarse_levels(mesh: Mesh, num_levels: int, seed: int = 0) -> list[CoarseLevel]:
    r"""Thins out the nodes of a mesh, so that few edges reach far.

    Each level is a maximal independent set of the one before, found in parallel as in `"A Simple
    Parallel Algorithm for the Maximal Independent Set Problem"
    <https://doi.org/10.1137/0215074>`_: no two of its nodes are neighbors, and every other node
    has one of them as a neighbor, so that they are as well spread as the nodes of the mesh. In
    2-D about a quarter of the nodes is left, in 3-D about an eighth.

    Every other node joins the nearest of its neighbors that stay, and two that stay are joined
    where the groups around them touch. So edges only lead through the mesh, never to the other
    side of a wall.

    Args:
        mesh (Mesh): The mesh.
        num_levels (int): How many coarser levels.
        seed (int, optional): Seed of the order in which nodes are taken. (default: :obj:`0`)

    Returns:
        list[CoarseLevel]: The levels, finest first.

    Raises:
        ValueError: If so many levels would leave a level without edges.
    """
    generator = np.random.default_rng(seed)
    nodes = np.arange(mesh.num_nodes)
    source, target = cells_to_edges(mesh.cells).numpy()
    near_source, near_target = _neighbors_in_cells(mesh)
    levels: list[CoarseLevel] = []
    for level in range(num_levels):
        kept = _independent_set(near_source, near_target, generator.permutation(len(nodes)))
        group = _nearest_kept(mesh.pos[nodes], near_source, near_target, kept)
        between = group[source] != group[target]
        if not between.any():
            raise ValueError(
                f"a mesh of {mesh.num_nodes} nodes has at most {level} coarse levels, asked for "
                f"were {num_levels}"
            )
        nodes = nodes[kept]
        source, target = undirected_edges(group[source[between]], group[target[between]]).numpy()
        near_source, near_target = source, target
        levels.append(
            CoarseLevel(torch.from_numpy(nodes), torch.from_numpy(nodes[[source, target]]))
        )
    return levels


def _neighbors_in_cells(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    # Across the diagonals of quads and hexahedra too: with edges alone far more nodes would stay.
    pairs = [
        block[:, np.stack(np.triu_indices(block.shape[1], 1), axis=1)].reshape(-1, 2)
        for kind, block in mesh.cells.items()
        if kind != "line"
    ]
    ends = np.concatenate(pairs) if pairs else np.zeros((0, 2), dtype=np.int64)
    source, target = undirected_edges(ends[:, 0], ends[:, 1]).numpy()
    return source, target


def _independent_set(source: np.ndarray, target: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Takes whoever comes before all its neighbors that are still in the game, drops its
    neighbors, and goes on: the set that one would get by taking nodes in the order of rank."""
    last = len(rank)
    open_rank = rank.copy()
    kept = np.zeros(last, dtype=bool)
    while (open_rank < last).any():
        first_near = np.full(last, last)
        np.minimum.at(first_near, target, open_rank[source])
        taken = open_rank < first_near
        kept |= taken
        open_rank[taken] = last
        open_rank[target[taken[source]]] = last
    return kept


def _nearest_kept(
    pos: np.ndarray, source: np.ndarray, target: np.ndarray, kept: np.ndarray
) -> np.ndarray:
    """To which of the kept nodes, counted among themselves, each node belongs."""
    owner = np.arange(len(pos))
    lead = kept[source] & ~kept[target]
    source, target = source[lead], target[lead]
    distance = np.linalg.norm(pos[source] - pos[target], axis=1)
    # The nearest is written last and stays.
    order = np.lexsort((-source, -distance))
    owner[target[order]] = source[order]
    return (np.cumsum(kept) - 1)[owner]
