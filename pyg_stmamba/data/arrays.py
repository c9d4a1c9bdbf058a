from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyg_stmamba.data.calendar import grid_positions, step_of
from pyg_stmamba.data.graph import as_edge_index, from_adjacency


def as_numbers(values: Any) -> np.ndarray:
    r"""Values [T, N] or [T, N, C] in any container as an array [T, N, C]."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"values must be real numbers, got {array.dtype}")
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(
            f"values must be [T, N] or [T, N, C] and not empty, got shape {list(array.shape)}"
        )
    return array[:, :, None] if array.ndim == 2 else array


def as_mask(mask: Any, array: np.ndarray) -> np.ndarray:
    r"""A boolean array of its own, of the shape of the values."""
    if mask is None:
        return np.ones(array.shape, dtype=bool)
    given = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)
    if given.dtype != bool:
        raise ValueError(
            f"mask must be boolean, True = observed, got {given.dtype}; pass mask.astype(bool)"
        )
    if given.ndim == 2:
        given = given[:, :, None]
    if (
        given.ndim != 3
        or given.shape[:2] != array.shape[:2]
        or (given.shape[2] not in (1, array.shape[2]))
    ):
        raise ValueError(
            f"mask must be [T, N] or [T, N, C] as the values {list(array.shape)}, got "
            f"{list(given.shape)}"
        )
    return np.broadcast_to(given, array.shape).copy()


def check_finite(array: np.ndarray, observed: np.ndarray) -> None:
    r"""Refuses NaN and infinity at observed entries."""
    # float32 holds numbers up to 3.4e38 only.
    wrong = ~(np.abs(array) <= np.finfo(np.float32).max) & observed
    if wrong.any():
        t, n, c = (int(i[0]) for i in np.nonzero(wrong))
        raise ValueError(
            f"values hold {int(wrong.sum())} NaN or infinite entries that are not masked, the "
            f"first {array[t, n, c]} at step {t}, node {n}, channel {c}. If they are missing, pass "
            "mask=... (boolean, True = observed), for example mask=~np.isnan(values) or "
            "mask=np.isfinite(values)"
        )


def fill_gaps(
    seconds: np.ndarray, array: np.ndarray, observed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Puts a series on the regular grid of its time stamps, missing in between."""
    positions = grid_positions(seconds)
    num_steps = int(positions[-1]) + 1
    if num_steps == len(seconds):
        return seconds, array, observed
    filled = np.zeros((num_steps, *array.shape[1:]), dtype=array.dtype)
    filled_observed = np.zeros(filled.shape, dtype=bool)
    filled[positions], filled_observed[positions] = array, observed
    return seconds[0] + step_of(seconds) * np.arange(num_steps), filled, filled_observed


def as_edges(
    edge_index: Any, edge_weight: Any, adjacency: Any, num_nodes: int
) -> tuple[Tensor, Tensor | None]:
    r"""Edges [2, E] and their features [E, D] from whichever form was given."""
    if edge_index is not None and adjacency is not None:
        raise ValueError("pass either edge_index or adjacency, not both")
    if edge_weight is not None and edge_index is None:
        raise ValueError("edge_weight needs edge_index")
    if adjacency is not None:
        shape = list(np.shape(adjacency) or adjacency.shape)
        edges, weight = from_adjacency(adjacency)
        if shape[0] != num_nodes:
            raise ValueError(f"adjacency is {shape} but values have {num_nodes} nodes")
        return edges, weight[:, None]
    if edge_index is None:
        return torch.empty(2, 0, dtype=torch.long), None
    edges = as_edge_index(edge_index, num_nodes).clone()
    if edge_weight is None:
        return edges, None
    weight = as_floats(edge_weight, "edge_weight")
    if weight.dim() not in (1, 2) or weight.size(0) != edges.size(1):
        raise ValueError(
            f"edge_weight must be [E] or [E, D] with E = {edges.size(1)} edges, got "
            f"{list(weight.shape)}"
        )
    return edges, weight[:, None] if weight.dim() == 1 else weight


def as_floats(values: Any, what: str) -> Tensor:
    r"""A float32 copy of numbers in any container."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{what} must hold real numbers, got {array.dtype}")
    return torch.from_numpy(array.astype(np.float32))


def as_names(
    names: Sequence[Any] | str | None, count: int, what: str, default: list[str]
) -> list[str]:
    r"""A list of :obj:`count` strings."""
    if names is None:
        return default
    listed = [names] if isinstance(names, str) else [str(name) for name in names]
    if len(listed) != count:
        raise ValueError(f"{what} must be {count} name(s), got {len(listed)}: {some(listed)}")
    return listed


def some(names: list[str]) -> str:
    r"""At most ten names, for a message."""
    return ", ".join(names[:10]) + (f", ... ({len(names)} in all)" if len(names) > 10 else "")
