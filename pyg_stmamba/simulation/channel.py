from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Channel(NamedTuple):
    r"""A rectangle :math:`[0, L] \times [0, H]` with a round hole.

    Args:
        length (float): Length :math:`L`, along the flow.
        height (float): Height :math:`H`.
        hole_center (tuple[float, float]): Where the hole is.
        hole_radius (float): How large it is.
    """

    length: float
    height: float
    hole_center: tuple[float, float]
    hole_radius: float

    @property
    def gap(self) -> float:
        """The shortest way from the hole to the border of the rectangle."""
        x, y = self.hole_center
        return min(x, self.length - x, y, self.height - y) - self.hole_radius

    @property
    def corners(self) -> np.ndarray:
        """The corners of the rectangle ``[4, 2]``, counter-clockwise from the origin."""
        return np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * [self.length, self.height]

    def check(self) -> None:
        """Raises a :class:`ValueError` if the hole does not lie inside the rectangle."""
        for name in ("length", "height", "hole_radius"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not self.gap > 0:
            x, y = self.hole_center
            raise ValueError(
                f"the hole of radius {self.hole_radius:g} at ({x:g}, {y:g}) must lie inside the "
                f"channel of {self.length:g} x {self.height:g} and not touch its walls"
            )

    def from_hole(self, points: np.ndarray) -> np.ndarray:
        """How far points are from the hole, negative inside it."""
        return np.hypot(*(points - self.hole_center).T) - self.hole_radius

    def from_border(self, points: np.ndarray) -> np.ndarray:
        """How far points are from hole and walls, negative outside the flow."""
        x, y = points.T
        return np.minimum.reduce([x, self.length - x, y, self.height - y, self.from_hole(points)])

    def moved_inside(self, points: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """The points, those nearer to the border than a distance moved away from it."""
        away = points - self.hole_center
        radius = np.maximum(np.hypot(*away.T), np.finfo(np.float64).tiny)
        wanted = np.maximum(radius, self.hole_radius + distance)
        points = self.hole_center + away * (wanted / radius)[:, None]
        room = np.array([self.length, self.height]) - distance[:, None]
        return np.clip(points, distance[:, None], room)
