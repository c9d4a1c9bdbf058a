from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyg_stmamba.data.graph import sorted_edges

EARTH_RADIUS_KM = 6371.0088
METRICS = ("euclidean", "great-circle")


def knn_graph(
    positions: Any,
    k: int,
    *,
    metric: str = "euclidean",
    directed: bool = True,
    self_loops: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Joins every node to its k nearest others.

    Direction: edges run from the neighbour (source) to the node (target), so that every node has
    exactly :obj:`k` incoming edges and hears its nearest; with :obj:`directed=False` each edge
    also runs back. Self loops: none unless asked for, and never among the :obj:`k`.

    Args:
        positions (torch.Tensor or numpy.ndarray): :math:`[N, P]`; latitude and longitude in
            degrees for :obj:`metric="great-circle"`.
        k (int): Neighbours, at least 1 and less than :math:`N`.
        metric (str): :obj:`"euclidean"` or :obj:`"great-circle"`.
            (default: :obj:`"euclidean"`)
        directed (bool): If :obj:`False`, every edge runs both ways. (default: :obj:`True`)
        self_loops (bool): Adds a self loop of distance 0 to every node. (default: :obj:`False`)

    Returns:
        tuple: :obj:`edge_index` :math:`[2, E]`, sorted by target and source, and the distances
        :math:`[E]`, float32, in the unit of the positions or in kilometres. Turn distances into
        weights with :func:`~pyg_stmamba.data.gaussian_kernel_graph`.
    """
    points = _points(positions, metric)
    num_nodes = len(points)
    if not 1 <= k < num_nodes:
        raise ValueError(f"k must be from 1 to {num_nodes - 1} for {num_nodes} nodes, got {k}")
    from scipy.spatial import cKDTree  # slow to import, and few need it

    chord, neighbour = cKDTree(points).query(points, k=k + 1)
    node = np.arange(num_nodes)[:, None]
    # A node is usually its own nearest; among coincident points it may come later or be missing.
    own = neighbour == node
    own[~own.any(axis=1), -1] = True
    source = neighbour[~own]
    target = np.broadcast_to(node, neighbour.shape)[~own]
    edges = np.stack([source, target])
    return sorted_edges(
        edges,
        _length(chord[~own], metric),
        num_nodes,
        directed=directed,
        self_loops=self_loops or None,
        loop_weight=0.0,
        merge=np.minimum,
    )


def radius_graph(
    positions: Any,
    radius: float,
    *,
    metric: str = "euclidean",
    self_loops: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Joins all pairs of nodes that lie within a radius.

    Direction: every edge runs both ways. Self loops: none unless asked for.

    Args:
        positions (torch.Tensor or numpy.ndarray): :math:`[N, P]`; latitude and longitude in
            degrees for :obj:`metric="great-circle"`.
        radius (float): Largest distance, inclusive, in the unit of the positions or in
            kilometres.
        metric (str): :obj:`"euclidean"` or :obj:`"great-circle"`.
            (default: :obj:`"euclidean"`)
        self_loops (bool): Adds a self loop of distance 0 to every node. (default: :obj:`False`)

    Returns:
        tuple: :obj:`edge_index` :math:`[2, E]`, sorted by target and source, and the distances
        :math:`[E]`, float32, in the unit of the positions or in kilometres.
    """
    points = _points(positions, metric)
    if not radius > 0:
        raise ValueError(f"radius must be positive, got {radius}")
    if metric == "great-circle":
        # The chord through the unit sphere; half a turn reaches everything.
        radius = 2 * np.sin(min(radius / (2 * EARTH_RADIUS_KM), np.pi / 2))
    from scipy.spatial import cKDTree  # slow to import, and few need it

    pairs = cKDTree(points).query_pairs(radius, output_type="ndarray").T
    chord = np.linalg.norm(points[pairs[0]] - points[pairs[1]], axis=1)
    return sorted_edges(
        pairs,
        _length(chord, metric),
        len(points),
        directed=False,
        self_loops=self_loops or None,
        loop_weight=0.0,
        merge=np.minimum,
    )


def great_circle_distance(first: Any, second: Any) -> Tensor:
    r"""The distance between points on the globe, by the haversine formula.

    .. math::
        d = 2 R \arcsin \sqrt{\sin^2 \tfrac{\phi_2 - \phi_1}{2} +
        \cos \phi_1 \cos \phi_2 \sin^2 \tfrac{\lambda_2 - \lambda_1}{2}}, \quad
        R = 6371.0088\ \text{km}

    Args:
        first (torch.Tensor or numpy.ndarray): Latitude and longitude in degrees.
        second (torch.Tensor or numpy.ndarray): Latitude and longitude in degrees.

    Shapes:
        - **input:** :math:`[..., 2]` each, broadcast against each other
        - **output:** :math:`[...]`, float64, kilometres
    """
    lat1, lon1 = np.moveaxis(np.radians(_degrees(first)), -1, 0)
    lat2, lon2 = np.moveaxis(np.radians(_degrees(second)), -1, 0)
    h = (
        np.sin((lat2 - lat1) / 2) ** 2
        + np.cos(lat1) * np.cos(lat2) * np.sin((lon2 - lon1) / 2) ** 2
    )
    return torch.as_tensor(2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.minimum(h, 1.0))))


def _points(positions: Any, metric: str) -> np.ndarray:
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}, choose from {list(METRICS)}")
    if metric == "great-circle":
        lat, lon = np.radians(_degrees(positions)).T
        return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    points = np.asarray(positions, dtype=np.float64)
    if points.ndim != 2 or not np.isfinite(points).all():
        raise ValueError(
            f"positions must be finite and of shape [N, P], got shape {list(points.shape)} with "
            f"{int((~np.isfinite(points)).sum())} NaN or infinite entries"
        )
    return points


def _degrees(positions: Any) -> np.ndarray:
    degrees = np.asarray(positions, dtype=np.float64)
    if degrees.ndim == 0 or degrees.shape[-1] != 2:
        raise ValueError(
            f"positions must be latitude and longitude [..., 2], got shape {list(degrees.shape)}"
        )
    if not (np.abs(degrees[..., 0]) <= 90).all() or not (np.abs(degrees[..., 1]) <= 360).all():
        raise ValueError(
            "positions must be latitude (-90 to 90) and longitude (-360 to 360) in degrees, in "
            f"this order; got latitudes from {degrees[..., 0].min()} to {degrees[..., 0].max()} "
            f"and longitudes from {degrees[..., 1].min()} to {degrees[..., 1].max()}"
        )
    return degrees


def _length(chord: np.ndarray, metric: str) -> np.ndarray:
    if metric == "great-circle":
        return 2 * EARTH_RADIUS_KM * np.arcsin(np.minimum(chord / 2, 1.0))
    return chord
