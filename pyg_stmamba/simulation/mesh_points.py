from __future__ import annotations

import numpy as np

from pyg_stmamba.simulation.channel import Channel
from pyg_stmamba.simulation.edge_length import EdgeLength

SAMPLES = 2000
# Cells of the grid in which points are found, for each of them.
CELLS_PER_POINT = 20


def points_on_segment(start: np.ndarray, end: np.ndarray, edge_length: EdgeLength) -> np.ndarray:
    r"""Points on a segment, the first at its start and none at its end, spaced as wanted.

    Args:
        start (numpy.ndarray): Where the segment starts.
        end (numpy.ndarray): Where it ends.
        edge_length (EdgeLength): The wanted spacing.

    Shapes:
        - **input:** :math:`(2)` each
        - **output:** :math:`(n, 2)`
    """
    along = np.linspace(0, 1, SAMPLES + 1)
    density = 1 / edge_length.at(start + along[:, None] * (end - start))
    passed = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    count = max(1, round(passed[-1] / 2 / SAMPLES * np.hypot(*(end - start))))
    places = np.interp(np.arange(count) / count * passed[-1], passed, along)
    return start + places[:, None] * (end - start)


def points_on_hole(channel: Channel, spacing: float) -> np.ndarray:
    r"""Evenly spaced points on the hole, counter-clockwise from its rear end.

    Args:
        channel (Channel): The domain.
        spacing (float): The wanted spacing.

    Shapes:
        - **output:** :math:`(n, 2)`
    """
    count = round(2 * np.pi * channel.hole_radius / spacing)
    angle = 2 * np.pi * np.arange(count) / count
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return channel.hole_center + channel.hole_radius * circle


def points_inside(
    edge_length: EdgeLength, count: int, generator: np.random.Generator
) -> np.ndarray:
    r"""Points inside a channel, dense where edges are to be short.

    A Hilbert curve through the cells of a grid is cut into pieces with the same integral of
    :math:`h^{-2}`. Such pieces are compact, so that their centers are well spread.

    Args:
        edge_length (EdgeLength): The wanted edge length :math:`h`, up to a factor.
        count (int): How many points.
        generator (numpy.random.Generator): Draws where in its cell a point is.

    Shapes:
        - **output:** :math:`(n, 2)`
    """
    channel = edge_length.channel
    extent = np.array([channel.length, channel.height])
    columns, rows = np.ceil(extent * np.sqrt(CELLS_PER_POINT * count / extent.prod())).astype(int)
    cells = np.indices((columns, rows)).reshape(2, -1).T
    cell_size = extent / [columns, rows]
    points = (cells + 0.5) * cell_size
    wanted = edge_length.at(points)
    inside = np.flatnonzero(channel.from_border(points) > wanted / 2)
    inside = inside[np.argsort(_hilbert_index(*cells[inside].T))]

    moments = np.insert(points[inside], 2, 1, axis=1) * wanted[inside, None] ** -2
    passed = np.concatenate([np.zeros((1, 3)), np.cumsum(moments, axis=0)])
    cuts = np.linspace(0, passed[-1, 2], count + 1)
    centers = [np.diff(np.interp(cuts, passed[:, 2], part)) for part in passed.T[:2]]
    centers = np.stack(centers, axis=1) / cuts[1]
    return centers + generator.uniform(-0.5, 0.5, centers.shape) * cell_size


def _hilbert_index(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The place of cells of a grid on the Hilbert curve that fills it."""
    index = np.zeros_like(x)
    side = 1 << int(max(x.max(), y.max())).bit_length()
    while side > 1:
        side //= 2
        right, upper = x // side, y // side
        x, y = x % side, y % side
        index += side**2 * ((3 * right) ^ upper)
        # The curve enters and leaves the lower quarters turned by a right angle.
        turned = upper == 0
        back = turned & (right == 1)
        x, y = np.where(back, side - 1 - x, x), np.where(back, side - 1 - y, y)
        x, y = np.where(turned, y, x), np.where(turned, x, y)
    return index
