from __future__ import annotations

import numpy as np


def triangle_areas(pos: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    r"""The areas of triangles, negative where the corners run clockwise.

    Args:
        pos (numpy.ndarray): Positions of the nodes.
        triangles (numpy.ndarray): The nodes of each triangle.

    Shapes:
        - **input:** :math:`(|\mathcal{V}|, 2)` and :math:`(M, 3)`
        - **output:** :math:`(M)`
    """
    a, b, c = (pos[triangles[:, corner]] for corner in range(3))
    return _cross(b - a, c - a) / 2


def triangle_angles(pos: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    r"""The angles at the corners of triangles, in degrees.

    Args:
        pos (numpy.ndarray): Positions of the nodes.
        triangles (numpy.ndarray): The nodes of each triangle.

    Shapes:
        - **input:** :math:`(|\mathcal{V}|, 2)` and :math:`(M, 3)`
        - **output:** :math:`(M, 3)`
    """
    angles = np.empty(triangles.shape)
    for corner in range(3):
        here, to, back = (pos[triangles[:, (corner + i) % 3]] for i in range(3))
        cross = np.abs(_cross(to - here, back - here))
        angles[:, corner] = np.arctan2(cross, ((to - here) * (back - here)).sum(axis=1))
    return np.degrees(angles)


def _cross(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
