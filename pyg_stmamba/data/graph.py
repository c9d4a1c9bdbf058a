from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import networkx as nx


def gaussian_kernel_graph(
    edge_index: Any,
    distance: Any,
    num_nodes: int,
    *,
    sigma: float | None = None,
    threshold: float = 0.1,
    directed: bool = True,
    self_loops: bool | None = None,
) -> tuple[Tensor, Tensor]:
    r"""The thresholded Gaussian kernel of road distances, from the `"Diffusion Convolutional
    Recurrent Neural Network" <https://arxiv.org/abs/1707.01926>`_ paper.

    .. math::
        w_{ij} = \exp\left(-\frac{d_{ij}^2}{\sigma^2}\right)
        \quad \text{if} \quad w_{ij} \geq \kappa, \quad \text{else no edge}

    Direction: the edge from :obj:`edge_index[0]` to :obj:`edge_index[1]` carries the weight of
    the distance from the first to the second, as one drives. Of a pair that is given several
    times the last counts, as in the published graphs. Self loops: a node's distance to itself
    (0) is an edge of weight 1 where the list holds it.

    Args:
        edge_index (torch.Tensor or numpy.ndarray): Pairs with a known distance :math:`[2, E]`.
        distance (torch.Tensor or numpy.ndarray): Their distances :math:`[E]` in any one unit,
            not negative; infinite ones are no road.
        num_nodes (int): Number of nodes :math:`N`.
        sigma (float, optional): Scale, in the unit of the distances. (default: :obj:`None`,
            the standard deviation of all distances, zeros of self loops included)
        threshold (float): :math:`\kappa`. (default: :obj:`0.1`)
        directed (bool): If :obj:`False`, both directions get the larger of the two weights.
            (default: :obj:`True`)
        self_loops (bool, optional): :obj:`True` adds the missing ones with weight 1,
            :obj:`False` removes all, :obj:`None` takes them as they are given.
            (default: :obj:`None`)

    Returns:
        tuple: :obj:`edge_index` :math:`[2, E']`, sorted by target and source, and
        :obj:`edge_weight` :math:`[E']`, float32 in :math:`[\kappa, 1]`.

    Raises:
        ValueError: If distances are negative or NaN, or do not fit the pairs.
    """
    edges = as_edge_index(edge_index, num_nodes).cpu().numpy()
    lengths = np.asarray(distance, dtype=np.float64)
    if lengths.shape != (edges.shape[1],):
        raise ValueError(
            f"distance must be of shape [{edges.shape[1]}], one number for each pair of "
            f"edge_index, got {list(lengths.shape)}"
        )
    if np.isnan(lengths).any() or (lengths < 0).any():
        raise ValueError(
            f"distances must not be negative or NaN, got {int((lengths < 0).sum())} negative and "
            f"{int(np.isnan(lengths).sum())} NaN"
        )
    edges, lengths = edges[:, np.isfinite(lengths)], lengths[np.isfinite(lengths)]
    edges, lengths = _last_of_each_pair(edges, lengths, num_nodes)
    if sigma is None:
        sigma = float(lengths.std()) if lengths.size else 1.0
        if sigma == 0:
            raise ValueError(
                "all distances are equal, so their standard deviation is no scale: pass sigma=..."
            )
    elif sigma <= 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    weight = np.exp(-np.square(lengths / sigma))
    kept = weight >= threshold
    return sorted_edges(
        edges[:, kept], weight[kept], num_nodes, directed=directed, self_loops=self_loops
    )


def from_adjacency(
    adjacency: Any,
    *,
    source_first: bool = False,
    directed: bool = True,
    self_loops: bool | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Turns an adjacency matrix into edges; entries other than 0 are edges.

    Direction: :obj:`adjacency[target, source]`, so that :obj:`adjacency @ x` gathers what flows
    into each node; with :obj:`source_first=True`, :obj:`adjacency[source, target]`, as networkx
    and the published traffic graphs have it. Self loops: the diagonal.

    Args:
        adjacency (torch.Tensor, numpy.ndarray or scipy.sparse matrix): :math:`[N, N]`, numbers
            or booleans.
        source_first (bool): Rows are sources. (default: :obj:`False`)
        directed (bool): If :obj:`False`, both directions get the larger of the two weights.
            (default: :obj:`True`)
        self_loops (bool, optional): :obj:`True` adds the missing ones with weight 1,
            :obj:`False` removes all, :obj:`None` takes them as they are given.
            (default: :obj:`None`)

    Returns:
        tuple: :obj:`edge_index` :math:`[2, E]`, sorted by target and source, and
        :obj:`edge_weight` :math:`[E]`, float32.

    Raises:
        ValueError: If the matrix is not square or holds NaN or infinity.
    """
    if isinstance(adjacency, Tensor):
        adjacency = adjacency.detach().cpu().to_dense().numpy()
    import scipy.sparse as sp  # slow to import, and few need it

    if not sp.issparse(adjacency):
        adjacency = np.asarray(adjacency)
    if len(adjacency.shape) != 2 or adjacency.shape[0] != adjacency.shape[1]:
        raise ValueError(
            f"adjacency must be square [N, N], got shape {list(adjacency.shape)}; pass a list of "
            "edges [2, E] as edge_index"
        )
    if adjacency.dtype.kind not in "biuf":
        raise ValueError(f"adjacency must hold numbers, got {adjacency.dtype}")
    matrix = sp.coo_array(adjacency, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    weight = matrix.data.astype(np.float64)
    if not np.isfinite(weight).all():
        raise ValueError(
            f"adjacency holds {int((~np.isfinite(weight)).sum())} NaN or infinite entries; 0 "
            "means no edge"
        )
    edges = np.stack([matrix.row, matrix.col] if source_first else [matrix.col, matrix.row])
    edges = edges.astype(np.int64)
    return sorted_edges(edges, weight, matrix.shape[0], directed=directed, self_loops=self_loops)


def from_networkx(
    graph: nx.Graph,
    *,
    weight: str | None = "weight",
    directed: bool = True,
    self_loops: bool | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Turns a networkx graph into edges; nodes are numbered in the order of
    :obj:`graph.nodes`.

    Direction: that of a :class:`networkx.DiGraph`; edges of an undirected graph run both ways.
    Self loops: as in the graph. Of parallel edges the last counts.

    Args:
        graph (networkx.Graph or networkx.DiGraph): The graph.
        weight (str, optional): Edge attribute that holds the weight; :obj:`None`, or an edge
            without it, means 1. (default: :obj:`"weight"`)
        directed (bool): If :obj:`False`, both directions get the larger of the two weights.
            (default: :obj:`True`)
        self_loops (bool, optional): :obj:`True` adds the missing ones with weight 1,
            :obj:`False` removes all, :obj:`None` takes them as they are given.
            (default: :obj:`None`)

    Returns:
        tuple: :obj:`edge_index` :math:`[2, E]`, sorted by target and source, and
        :obj:`edge_weight` :math:`[E]`, float32.

    Raises:
        ValueError: If the weight is on no edge or is not a finite number.
    """
    number = {node: i for i, node in enumerate(graph.nodes)}
    listed = list(graph.edges(data=True))
    if weight not in (None, "weight") and listed and not any(weight in d for _, _, d in listed):
        raise ValueError(
            f"no edge has the attribute {weight!r}, there are "
            f"{sorted({str(key) for _, _, d in listed for key in d})}"
        )
    edges = (
        np.array([(number[u], number[v]) for u, v, _ in listed], dtype=np.int64).reshape(-1, 2).T
    )
    try:
        weights = np.array([float(d.get(weight, 1.0)) for _, _, d in listed])
    except (TypeError, ValueError) as error:
        raise ValueError(f"edge attribute {weight!r} must hold numbers: {error}") from None
    if not np.isfinite(weights).all():
        raise ValueError(f"edge attribute {weight!r} holds NaN or infinity")
    if not graph.is_directed():
        loops = edges[0] == edges[1]
        edges = np.concatenate([edges, edges[::-1, ~loops]], axis=1)
        weights = np.concatenate([weights, weights[~loops]])
    edges, weights = _last_of_each_pair(edges, weights, len(number))
    return sorted_edges(edges, weights, len(number), directed=directed, self_loops=self_loops)


def as_edge_index(edge_index: Any, num_nodes: int) -> Tensor:
    r"""Checks edges and returns them as an int64 tensor :math:`[2, E]`.

    Raises:
        ValueError: If the shape is not :math:`[2, E]`, the type not an integer, or an index out
            of range.
    """
    edges = edge_index if isinstance(edge_index, Tensor) else _as_tensor(np.array(edge_index))
    if edges.dim() != 2 or edges.size(0) != 2:
        hint = "; transpose it" if edges.dim() == 2 and edges.size(1) == 2 else ""
        raise ValueError(f"edge_index must be of shape [2, E], got {list(edges.shape)}{hint}")
    if edges.numel() == 0:
        return edges.long()
    if edges.dtype == torch.bool or edges.is_floating_point() or edges.is_complex():
        raise ValueError(
            f"edge_index must hold integers (int64), got {edges.dtype}; node numbers are not "
            "weights: pass those as edge_weight"
        )
    edges = edges.long()
    if int(edges.min()) < 0 or int(edges.max()) >= num_nodes:
        wrong = ((edges < 0) | (edges >= num_nodes)).any(dim=0)
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"edge_index must be from 0 to {num_nodes - 1} for {num_nodes} nodes, but "
            f"{int(wrong.sum())} edge(s) are out of range, the first {edges[:, first].tolist()} "
            f"at position {first}"
        )
    return edges


def sorted_edges(
    edges: np.ndarray,
    weight: np.ndarray,
    num_nodes: int,
    *,
    directed: bool,
    self_loops: bool | None,
    loop_weight: float = 1.0,
    merge: np.ufunc = np.maximum,
) -> tuple[Tensor, Tensor]:
    r"""Applies the choices of direction and self loops and sorts edges by target and source.

    Args:
        edges (numpy.ndarray): :math:`[2, E]`, int64.
        weight (numpy.ndarray): :math:`[E]`.
        num_nodes (int): Number of nodes.
        directed (bool): If :obj:`False`, every edge also runs back.
        self_loops (bool, optional): Add the missing ones, remove all, or :obj:`None`.
        loop_weight (float): Weight of an added self loop. (default: :obj:`1.0`)
        merge (numpy.ufunc): Makes one weight of those of equal edges.
            (default: :obj:`numpy.maximum`)

    Returns:
        tuple: :obj:`edge_index` :math:`[2, E']`, int64, and :obj:`edge_weight` :math:`[E']`,
        float32.
    """
    if not directed:
        edges = np.concatenate([edges, edges[::-1]], axis=1)
        weight = np.concatenate([weight, weight])
    if self_loops is not None:
        loops = edges[0] == edges[1]
        if self_loops:
            missing = np.setdiff1d(np.arange(num_nodes), edges[0, loops])
            edges = np.concatenate([edges, np.stack([missing, missing])], axis=1)
            weight = np.concatenate([weight, np.full(len(missing), loop_weight)])
        else:
            edges, weight = edges[:, ~loops], weight[~loops]
    code = edges[1] * num_nodes + edges[0]
    order = np.argsort(code, kind="stable")
    edges, weight, code = edges[:, order], weight[order], code[order]
    first = np.flatnonzero(np.diff(code, prepend=-1))
    merged = merge.reduceat(weight, first) if first.size else weight
    return (
        torch.from_numpy(edges[:, first].astype(np.int64)),
        torch.from_numpy(merged.astype(np.float32)),
    )


def _as_tensor(array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "biufc":
        raise ValueError(f"edge_index must hold integers (int64), got {array.dtype}")
    return torch.from_numpy(array)


def _last_of_each_pair(
    edges: np.ndarray, values: np.ndarray, num_nodes: int
) -> tuple[np.ndarray, np.ndarray]:
    code = edges[0] * num_nodes + edges[1]
    _, from_the_end = np.unique(code[::-1], return_index=True)
    last = len(code) - 1 - from_the_end
    return edges[:, last], values[last]
