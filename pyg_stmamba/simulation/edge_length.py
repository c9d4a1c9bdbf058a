from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pyg_stmamba.simulation.channel import Channel


class EdgeLength(NamedTuple):
    r"""How long the edges of a mesh of a :class:`Channel` are to be at a point.

    .. math::
        h = \min \{ h_{\text{far}}, \; h_{\text{hole}} + g \min (d, \; d_{\text{axis}} + w t) \}

    with the distance :math:`d` to the hole, the distance :math:`d_{\text{axis}}` to the band as
    wide as the hole that it leaves downstream, and the way :math:`t` downstream.

    Args:
        channel (Channel): The domain.
        far (float): Largest length :math:`h_{\text{far}}`.
        hole (float): Length :math:`h_{\text{hole}}` at the hole.
        growth (float): How fast lengths grow away from the hole, :math:`g`.
        wake_growth (float): How fast they grow downstream, as a part :math:`w` of that.
    """

    channel: Channel
    far: float
    hole: float
    growth: float
    wake_growth: float

    def at(self, points: np.ndarray) -> np.ndarray:
        """The length at points ``[..., 2]``."""
        x, y = np.moveaxis(points - self.channel.hole_center, -1, 0)
        radius = self.channel.hole_radius
        downstream = np.maximum(x, 0)
        distance = np.hypot(x, y) - radius
        aside = np.maximum(np.hypot(x - downstream, y) - radius, 0)
        grown = np.minimum(distance, aside + self.wake_growth * downstream)
        return np.minimum(self.far, self.hole + self.growth * np.maximum(grown, 0))

    def num_triangles(self) -> float:
        """How many equilateral triangles with such edges fill the channel."""
        extent = np.array([self.channel.length, self.channel.height])
        # Not finer than needed by a hole of usual edges: the grid must fit into memory.
        step = max(min(self.hole, self.channel.height / 80), self.channel.height / 300)
        columns, rows = np.ceil(extent / step).astype(int)
        points = (np.indices((columns, rows)).reshape(2, -1).T + 0.5) * extent / [columns, rows]
        # Of the cells on the rim of the hole about this part lies outside it.
        outside = np.clip(self.channel.from_hole(points) / step + 0.5, 0, 1)
        density = outside * 4 / math.sqrt(3) * self.at(points) ** -2
        return float(density.sum() * extent.prod() / (columns * rows))
