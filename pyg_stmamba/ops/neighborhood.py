r"""The edges of a graph sorted by one of their ends."""

import weakref
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric import EdgeIndex


class Neighborhood(NamedTuple):
    r"""The edges sorted by target: those of target :math:`i` are
    :obj:`rowptr[i]` to :obj:`rowptr[i + 1]` of :obj:`source` and :obj:`target`, and
    :obj:`permutation` gives the place of each in the :obj:`edge_index` they come from.
    """

    rowptr: Tensor
    source: Tensor
    target: Tensor
    permutation: Tensor


class OutgoingEdges(NamedTuple):
    r"""The edges sorted by source: those of source :math:`j` are
    :obj:`rowptr[j]` to :obj:`rowptr[j + 1]` of :obj:`target`, and :obj:`permutation` gives the
    place of each in the :obj:`edge_index` they come from.
    """

    rowptr: Tensor
    target: Tensor
    permutation: Tensor


def neighborhood(edge_index: Tensor, num_targets: int) -> Neighborhood:
    r"""Sorts the edges by target, once for every :obj:`edge_index`.

    The result is kept as long as the tensor lives unchanged. There is no host synchronisation.
    An :class:`~torch_geometric.EdgeIndex` that says it is sorted is not sorted again.

    Args:
        edge_index (torch.Tensor): The edges, source to target.
        num_targets (int): The number of target nodes.

    Shapes:
        - **input:** :math:`(2, |\mathcal{E}|)`
        - **output:** :obj:`rowptr` :math:`(N + 1)`, all others :math:`(|\mathcal{E}|)`
    """
    rowptr, target, source, permutation = _sorted_by(1, edge_index, num_targets)
    return Neighborhood(rowptr, source, target, permutation)


def outgoing_edges(edge_index: Tensor, num_sources: int) -> OutgoingEdges:
    r"""Sorts the edges by source, as :func:`neighborhood` does by target.

    Args:
        edge_index (torch.Tensor): The edges, source to target.
        num_sources (int): The number of source nodes.

    Shapes:
        - **input:** :math:`(2, |\mathcal{E}|)`
        - **output:** :obj:`rowptr` :math:`(S + 1)`, all others :math:`(|\mathcal{E}|)`
    """
    rowptr, _, target, permutation = _sorted_by(0, edge_index, num_sources)
    return OutgoingEdges(rowptr, target, permutation)


def check_edge_index(edge_index: Tensor, num_sources: int, num_targets: int) -> None:
    r"""Checks the dtype, shape and (on a CPU, outside of a compiler) range of the edges.

    Raises:
        ValueError: If :obj:`edge_index` is no valid list of edges between these nodes.
    """
    if edge_index.dtype != torch.int64 or edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise ValueError(
            f"edge_index must be torch.int64 [2, E] (source to target), "
            f"got {edge_index.dtype} {list(edge_index.shape)}"
        )
    # On a GPU this would wait for the device.
    if torch.compiler.is_compiling() or edge_index.device.type != "cpu" or edge_index.numel() == 0:
        return
    for name, row, nodes in zip(("source", "target"), edge_index, (num_sources, num_targets)):
        low, high = (int(end) for end in torch.aminmax(row))
        if low < 0 or high >= nodes:
            raise ValueError(
                f"edge_index must point to {name} nodes 0 to {nodes - 1}, "
                f"got {name} nodes from {low} to {high}"
            )


class _Kept(NamedTuple):
    tensor: weakref.ref
    version: int
    by_row_and_nodes: dict[tuple[int, int], tuple[Tensor, ...]]


_kept: dict[int, _Kept] = {}


def _sorted_by(row: int, edge_index: Tensor, nodes: int) -> tuple[Tensor, ...]:
    r"""Returns the pointers into a row of the edges once it is sorted, the row, the other row and
    the permutation."""
    ends = _without_metadata(edge_index)
    if torch.compiler.is_compiling() or ends.is_inference():
        return _sort(row, edge_index, nodes)
    key, version = id(ends), ends._version
    kept = _kept.get(key)
    if kept is None or kept.tensor() is not ends or kept.version != version:
        tensor = weakref.ref(ends, lambda _: _kept.pop(key, None))
        kept = _kept[key] = _Kept(tensor, version, {})
    if (row, nodes) not in kept.by_row_and_nodes:
        with torch.inference_mode(False):
            kept.by_row_and_nodes[row, nodes] = _sort(row, edge_index, nodes)
    return kept.by_row_and_nodes[row, nodes]


def _without_metadata(edge_index: Tensor) -> Tensor:
    return edge_index.as_tensor() if isinstance(edge_index, EdgeIndex) else edge_index


def _sort(row: int, edge_index: Tensor, nodes: int) -> tuple[Tensor, ...]:
    if isinstance(edge_index, EdgeIndex) and edge_index.sort_order == ("row", "col")[row]:
        return _read(row, edge_index, nodes)
    ends = _without_metadata(edge_index)
    own, permutation = torch.sort(ends[row], stable=True)
    return _pointers(own, nodes), own, ends[1 - row, permutation], permutation


def _read(row: int, edge_index: EdgeIndex, nodes: int) -> tuple[Tensor, ...]:
    # Copies, because views would keep alive the tensor with which they have to go.
    own, other = (edge_index.as_tensor()[end].clone() for end in (row, 1 - row))
    # An EdgeIndex that does not know its size would wait for the device to find its pointers.
    if torch.compiler.is_compiling() or edge_index.sparse_size(row) != nodes:
        rowptr = _pointers(own, nodes)
    else:
        rowptr = edge_index.get_indptr().clone()
    return rowptr, own, other, torch.arange(own.numel(), device=own.device)


def _pointers(own: Tensor, nodes: int) -> Tensor:
    return torch.searchsorted(own, torch.arange(nodes + 1, device=own.device))
