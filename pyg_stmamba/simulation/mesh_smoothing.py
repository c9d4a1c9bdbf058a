from __future__ import annotations

import numpy as np
from scipy.spatial import Delaunay

from pyg_stmamba.simulation.edge_length import EdgeLength

# The springs are pressed together, so that nodes spread out until they meet the border.
PRESSURE = 1.2
STEP = 0.3
STEPS = 60
STEPS_PER_TRIANGULATION = 4
# Nodes keep this part of an edge length away from the border.
CLEARANCE = 0.4


def triangulate(pos: np.ndarray, num_hole: int) -> np.ndarray:
    r"""The Delaunay triangles outside the hole, counter-clockwise.

    The circle through the nodes of the hole must hold no other node. Then their polygon consists
    of edges, and the triangles in the hole are those between three of them.

    Args:
        pos (numpy.ndarray): Positions of the nodes, those on the hole first.
        num_hole (int): How many nodes lie on the hole.

    Shapes:
        - **input:** :math:`(|\mathcal{V}|, 2)`
        - **output:** :math:`(M, 3)`
    """
    triangles = Delaunay(pos).simplices.astype(np.int64)
    return triangles[(triangles >= num_hole).any(axis=1)]


def smooth(
    fixed: np.ndarray,
    inner: np.ndarray,
    edge_length: EdgeLength,
    num_hole: int,
) -> np.ndarray:
    r"""Moves nodes until edges have the wanted length, as the springs of `"A Simple Mesh
    Generator in MATLAB" <https://doi.org/10.1137/S0036144503429121>`_ do.

    Args:
        fixed (numpy.ndarray): Positions of the nodes that stay, those on the hole first.
        inner (numpy.ndarray): Positions of the nodes that move.
        edge_length (EdgeLength): The wanted lengths, up to a factor.
        num_hole (int): How many nodes lie on the hole.

    Returns:
        numpy.ndarray: The positions of all nodes, first those that stay.

    Shapes:
        - **input:** :math:`(n, 2)` and :math:`(m, 2)`
        - **output:** :math:`(n + m, 2)`
    """
    channel = edge_length.channel
    for step in range(STEPS):
        inner = channel.moved_inside(inner, CLEARANCE * edge_length.at(inner))
        pos = np.concatenate([fixed, inner])
        if step % STEPS_PER_TRIANGULATION == 0:
            edges = _inner_edges(triangulate(pos, num_hole))
        inner = inner + STEP * _forces(pos, edges, edge_length)[len(fixed) :]
    inner = channel.moved_inside(inner, CLEARANCE * edge_length.at(inner))
    return np.concatenate([fixed, inner])


def _inner_edges(triangles: np.ndarray) -> np.ndarray:
    # The two triangles at an inner edge name it in opposite directions.
    edges = np.stack([triangles, np.roll(triangles, -1, axis=1)]).reshape(2, -1)
    return edges[:, edges[0] < edges[1]]


def _forces(pos: np.ndarray, edges: np.ndarray, edge_length: EdgeLength) -> np.ndarray:
    tail, head = edges
    along = pos[head] - pos[tail]
    length = np.hypot(*along.T)
    wanted = edge_length.at((pos[head] + pos[tail]) / 2)
    wanted *= PRESSURE * np.sqrt((length**2).sum() / (wanted**2).sum())
    push = along * (np.maximum(wanted - length, 0) / length)[:, None]
    return np.stack(
        [np.bincount(head, part, len(pos)) - np.bincount(tail, part, len(pos)) for part in push.T],
        axis=1,
    )
