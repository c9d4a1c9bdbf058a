from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.node_types import NODE_TYPES
from pyg_stmamba.simulation.channel import Channel
from pyg_stmamba.simulation.edge_length import EdgeLength
from pyg_stmamba.simulation.mesh_points import points_inside, points_on_hole, points_on_segment
from pyg_stmamba.simulation.mesh_quality import triangle_angles
from pyg_stmamba.simulation.mesh_smoothing import smooth, triangulate

# Degrees: what a mesh must have, and what it has nearly always.
SMALLEST_ANGLE, USUAL_ANGLE = 20, 27
ATTEMPTS = 5


def channel_mesh(
    length: float = 2.2,
    height: float = 0.41,
    hole_center: tuple[float, float] = (0.2, 0.2),
    hole_radius: float = 0.05,
    *,
    num_nodes: int | None = None,
    size: float | None = None,
    hole_size: float | None = None,
    growth: float = 0.25,
    wake_growth: float = 0.2,
    seed: int = 0,
) -> Mesh:
    r"""Fills a channel with a round hole, the rectangle :math:`[0, L] \times [0, H]` without a
    disc, with triangles that are small near the hole and in its wake.

    The default geometry is that of `"Benchmark Computations of Laminar Flow Around a Cylinder"
    <https://doi.org/10.1007/978-3-322-89849-4_39>`_. Nodes are of the types :obj:`"inflow"`
    (:math:`x = 0`), :obj:`"outflow"` (:math:`x = L`), :obj:`"wall"` (corners included),
    :obj:`"obstacle"` (on the hole) and :obj:`"normal"`. All triangles run counter-clockwise, have
    angles of at least 20 degrees, and a node that is not on the border, as Taylor-Hood elements
    need it.

    .. code-block:: python

        mesh = channel_mesh(num_nodes=1800)
        mesh = channel_mesh(1.6, 0.41, (0.33, 0.2), 0.04, size=0.05)

    Args:
        length (float, optional): Length :math:`L`, along the flow. (default: :obj:`2.2`)
        height (float, optional): Height :math:`H`. (default: :obj:`0.41`)
        hole_center (tuple[float, float], optional): Where the hole is.
            (default: :obj:`(0.2, 0.2)`)
        hole_radius (float, optional): How large it is. (default: :obj:`0.05`)
        num_nodes (int, optional): How many nodes the mesh has. (default: :obj:`None`, what
            follows from :obj:`size`, or 1800 without it)
        size (float, optional): Length of edges far from the hole. (default: :obj:`None`, what
            follows from :obj:`num_nodes`)
        hole_size (float, optional): Length of edges on the hole. (default: :obj:`None`, a
            seventh of :obj:`size` or less, so that the gap to the walls holds three edges and the
            hole has 24)
        growth (float, optional): How fast edges grow with the distance to the hole.
            (default: :obj:`0.25`)
        wake_growth (float, optional): How fast they grow in the wake, relative to that.
            (default: :obj:`0.2`)
        seed (int, optional): The same seed gives the same mesh. (default: :obj:`0`)

    Returns:
        Mesh: The mesh; :obj:`pos` in float64, :obj:`cells["triangle"]`, :obj:`node_type`.

    Raises:
        ValueError: If the hole is not inside the channel, edges are too long for the channel or
            for the gap between hole and walls, there are too few nodes for the geometry, or the
            wanted lengths leave no choice but sharp triangles.
    """
    channel = Channel(length, height, hole_center, hole_radius)
    channel.check()
    if not (0 < growth <= 0.5 and 0 <= wake_growth <= 1):
        raise ValueError(
            f"growth must be above 0 and at most 0.5 and wake_growth from 0 to 1, got {growth} "
            f"and {wake_growth}"
        )
    if size is not None and num_nodes is not None:
        raise ValueError(f"give num_nodes or size, not both; got {num_nodes} and {size}")

    def edge_length_of(size: float) -> EdgeLength:
        hole = _usual_hole_size(channel, size) if hole_size is None else hole_size
        return EdgeLength(channel, size, hole, growth, wake_growth)

    if size is None:
        num_nodes = 1800 if num_nodes is None else num_nodes
        edge_length = _edge_length_for(num_nodes, edge_length_of)
    else:
        edge_length = edge_length_of(size)
    _check_edge_length(edge_length)
    return _best_mesh(_Border.of(edge_length), edge_length, num_nodes, seed)


class _Border(NamedTuple):
    """The nodes that are placed first: on the hole, on bottom, right, top and left, and one on
    the diagonal of each corner, so that no triangle has all its nodes on the border."""

    hole: np.ndarray
    walls: list[np.ndarray]
    diagonal: np.ndarray

    @classmethod
    def of(cls, edge_length: EdgeLength) -> _Border:
        corners = edge_length.channel.corners
        walls = [
            points_on_segment(corner, following, edge_length)
            for corner, following in zip(corners, np.roll(corners, -1, axis=0), strict=True)
        ]
        beside = [walls[i][1] + walls[i - 1][-1] - 2 * corners[i] for i in range(4)]
        hole = points_on_hole(edge_length.channel, edge_length.hole)
        return cls(hole, walls, corners + 0.8 * np.array(beside))

    @property
    def num_nodes(self) -> int:
        """How many nodes lie on the border itself."""
        return len(self.hole) + sum(len(wall) for wall in self.walls)

    def node_types(self, num_nodes: int) -> np.ndarray:
        names = ("obstacle", "wall", "outflow", "wall", "inflow")
        node_type = np.full(num_nodes, NODE_TYPES.index("normal"))
        start = 0
        for name, part in zip(names, [self.hole, *self.walls], strict=True):
            node_type[start : start + len(part)] = NODE_TYPES.index(name)
            if name != "obstacle":
                node_type[start] = NODE_TYPES.index("wall")
            start += len(part)
        return node_type


def _usual_hole_size(channel: Channel, size: float) -> float:
    return min(size / 7, channel.gap / 3, 2 * math.pi * channel.hole_radius / 24)


def _largest_size(channel: Channel) -> float:
    return min(channel.length, channel.height) / 3


def _num_nodes(edge_length: EdgeLength) -> float:
    # Euler's formula for a plane with one hole.
    return (edge_length.num_triangles() + _Border.of(edge_length).num_nodes) / 2


def _edge_length_for(num_nodes: int, edge_length_of: Callable[[float], EdgeLength]) -> EdgeLength:
    channel = edge_length_of(1.0).channel
    # With edges of this length everywhere there would be twice as many nodes.
    low = math.sqrt(channel.length * channel.height / (2 * max(num_nodes, 1)))
    high = _largest_size(channel)
    fewest = math.ceil(_num_nodes(edge_length_of(high)))
    if num_nodes < fewest:
        raise ValueError(
            f"num_nodes = {num_nodes} is too few to resolve this channel and its hole; give at "
            f"least {fewest}, or change hole_size or growth"
        )
    size = brentq(
        lambda logarithm: _num_nodes(edge_length_of(math.exp(logarithm))) - num_nodes,
        math.log(low),
        math.log(high),
        xtol=1e-3,
    )
    return edge_length_of(math.exp(size))


def _check_edge_length(edge_length: EdgeLength) -> None:
    channel, size, hole_size = edge_length[:3]
    largest = _largest_size(channel)
    if not 0 < size <= largest:
        raise ValueError(
            f"size must be above 0 and at most {largest:g}, a third of the channel, got {size:g}"
        )
    largest = min(size, channel.gap / 2, 2 * math.pi * channel.hole_radius / 12)
    if not 0 < hole_size <= largest:
        raise ValueError(
            f"hole_size must be above 0 and at most {largest:g}, to resolve the hole and the gap "
            f"of {channel.gap:g} between hole and walls with edges that grow to {size:g}, got "
            f"{hole_size:g}"
        )


def _best_mesh(border: _Border, edge_length: EdgeLength, num_nodes: int | None, seed: int) -> Mesh:
    generator = np.random.default_rng(seed)
    fixed = np.concatenate([border.hole, *border.walls, border.diagonal])
    if num_nodes is None:
        num_nodes = round((edge_length.num_triangles() + border.num_nodes) / 2)
    best, best_angle = None, 0.0
    for _ in range(ATTEMPTS):
        inner = points_inside(edge_length, num_nodes - len(fixed), generator)
        pos = smooth(fixed, inner, edge_length, len(border.hole))
        triangles = triangulate(pos, len(border.hole))
        mesh = Mesh(pos, {"triangle": triangles}, border.node_types(num_nodes))
        angle = _smallest_angle(mesh)
        if angle > best_angle:
            best, best_angle = mesh, angle
        if angle >= USUAL_ANGLE:
            break
    if best is None or best_angle < SMALLEST_ANGLE:
        raise ValueError(
            f"found no mesh with angles of at least {SMALLEST_ANGLE} degrees but one of "
            f"{best_angle:.1f} for edges of {edge_length.hole:g} at the hole that grow to "
            f"{edge_length.far:g}; bring hole_size and size closer together or lower growth"
        )
    return best


def _smallest_angle(mesh: Mesh) -> float:
    """The smallest angle, or 0 where triangles are missing or have no node inside the flow."""
    triangles, inner = mesh.cells["triangle"], mesh.nodes_of("normal")
    # Euler's formula again; it also fails if a node belongs to no triangle.
    whole = len(triangles) == 2 * mesh.num_nodes - np.count_nonzero(~inner)
    if not (whole and inner[triangles].any(axis=1).all()):
        return 0.0
    return float(triangle_angles(mesh.pos, triangles).min())
