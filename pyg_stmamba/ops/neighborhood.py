r"""The edges of a graph sorted by their targets."""

import weakref
from typing import NamedTuple

import torch
from torch import Tensor


class Neighborhood(NamedTuple):
    r"""The edges sorted by target: those of target :math:`i` are
    :obj:`rowptr[i]` to :obj:`rowptr[i + 1]` of :obj:`source` and :obj:`target`, and
    :obj:`permutation` gives the place of each in the :obj:`edge_index` they come from.
    """

    rowptr: Tensor
    source: Tensor
    target: Tensor
    permutation: Tensor


def neighborhood(edge_index: Tensor, num_targets: int) -> Neighborhood:
    r"""Sorts the edges by target, once for every :obj:`edge_index`.

    The result is kept as long as the tensor lives unchanged. There is no host synchronisation.

    Args:
        edge_index (torch.Tensor): The edges, source to target.
        num_targets (int): The number of target nodes.

    Shapes:
        - **input:** :math:`(2, |\mathcal{E}|)`
        - **output:** :obj:`rowptr` :math:`(N + 1)`, all others :math:`(|\mathcal{E}|)`
    """
    if torch.compiler.is_compiling() or edge_index.is_inference():
        return _sort(edge_index, num_targets)
    kept = _kept.get(id(edge_index))
    if kept is not None:
        tensor, version, targets, result = kept
        if tensor() is edge_index and (version, targets) == (edge_index._version, num_targets):
            return result
    with torch.inference_mode(False):
        result = _sort(edge_index, num_targets)
    key = id(edge_index)
    tensor = weakref.ref(edge_index, lambda _: _kept.pop(key, None))
    _kept[key] = (tensor, edge_index._version, num_targets, result)
    return result


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


_kept: dict[int, tuple[weakref.ref, int, int, Neighborhood]] = {}


def _sort(edge_index: Tensor, num_targets: int) -> Neighborhood:
    target, permutation = torch.sort(edge_index[1], stable=True)
    nodes = torch.arange(num_targets + 1, device=target.device)
    rowptr = torch.searchsorted(target, nodes)
    return Neighborhood(rowptr, edge_index[0, permutation], target, permutation)
