from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from pyg_stmamba.data.mesh.mesh import CELL_TYPES
from pyg_stmamba.data.mesh_files.snapshot import Snapshot, linear_name

# An array with more values than this numbers cells instead of naming regions.
MOST_REGIONS = 32

Blocks = Sequence[tuple[str, np.ndarray]]


def snapshot_of(
    points: np.ndarray,
    blocks: Blocks,
    on_nodes: Mapping[str, np.ndarray],
    on_cells: Mapping[str, Sequence[np.ndarray]],
) -> Snapshot:
    r"""Puts together what a file says, arrays on cells brought to nodes.

    Args:
        points (numpy.ndarray): Positions of the nodes :math:`(|\mathcal{V}|, D)`.
        blocks (list[tuple[str, numpy.ndarray]]): Cells with their types, :math:`(M, k)` each; a
            type may come several times.
        on_nodes (dict[str, numpy.ndarray]): Arrays on nodes by name.
        on_cells (dict[str, list[numpy.ndarray]]): By name, an array for each block. Where the
            nodes have an array of the same name, it is left out.

    Raises:
        ValueError: If a cell names a point that is not there.
    """
    for kind, block in blocks:
        if block.size and not (block.min() >= 0 and block.max() < len(points)):
            raise ValueError(
                f"cells of type {kind!r} name the points {block.min()} to {block.max()}, but there "
                f"are the points 0 to {len(points) - 1}"
            )
    cells: dict[str, list[np.ndarray]] = {}
    for kind, block in blocks:
        cells.setdefault(kind, []).append(block)
    other = {name: parts for name, parts in on_cells.items() if name not in on_nodes}
    return Snapshot(
        points,
        {kind: np.concatenate(parts) for kind, parts in cells.items()},
        {**on_nodes, **fields_of_cells(blocks, other, len(points))},
        patches_of_cells(blocks, other),
    )


def patches_of_cells(
    blocks: Blocks, arrays: Mapping[str, Sequence[np.ndarray]]
) -> dict[str, np.ndarray]:
    r"""Turns arrays of whole numbers on cells, as mesh generators mark borders with, into sets of
    nodes: :obj:`"region_3"` holds the nodes of all cells where :obj:`region` is 3.

    Args:
        blocks (list[tuple[str, numpy.ndarray]]): Cells with their types, :math:`(M, k)` each.
        arrays (dict[str, list[numpy.ndarray]]): By name, an array :math:`(M)` for each block.

    Returns:
        dict[str, numpy.ndarray]: The numbers of the nodes by name.
    """
    patches = {}
    for name, parts in arrays.items():
        if not all(part.ndim == 1 and part.dtype.kind in "iu" for part in parts):
            continue
        values = np.unique(np.concatenate(parts))
        if len(values) > MOST_REGIONS:
            continue
        for value in values:
            nodes = [block[part == value].ravel() for (_, block), part in zip(blocks, parts)]
            patches[identifier(f"{name}_{value}")] = np.unique(np.concatenate(nodes))
    return patches


def fields_of_cells(
    blocks: Blocks, arrays: Mapping[str, Sequence[np.ndarray]], num_nodes: int
) -> dict[str, np.ndarray]:
    r"""Brings arrays of floating point from cells to nodes: each node gets the mean over its
    cells. Cells on borders of others do not count.

    Args:
        blocks (list[tuple[str, numpy.ndarray]]): Cells with their types, :math:`(M, k)` each.
        arrays (dict[str, list[numpy.ndarray]]): By name, an array :math:`(M)` or :math:`(M, C)`
            for each block.
        num_nodes (int): How many nodes there are.

    Returns:
        dict[str, numpy.ndarray]: float64 :math:`(|\mathcal{V}|, C)` by name.
    """
    arrays = {
        name: parts
        for name, parts in arrays.items()
        if all(part.ndim <= 2 and part.dtype.kind == "f" for part in parts)
    }
    if not arrays:
        return {}
    dims = [
        0 if kind in ("vertex", "empty") else CELL_TYPES[linear_name(kind)][1] for kind, _ in blocks
    ]
    inside = [place for place, dim in enumerate(dims) if dim == max(dims)]
    nodes = np.concatenate([blocks[place][1].ravel() for place in inside])
    count = np.fmax(np.bincount(nodes, minlength=num_nodes), 1)
    fields = {}
    for name, parts in arrays.items():
        values = np.concatenate(
            [np.repeat(_columns(parts[p]), blocks[p][1].shape[1], axis=0) for p in inside]
        )
        sums = [np.bincount(nodes, column, num_nodes) for column in values.T]
        fields[name] = np.stack(sums, axis=1) / count[:, None]
    return fields


def identifier(name: str) -> str:
    r"""Returns a name that can stand in a rule: letters, digits and underscores.

    Args:
        name (str): Any name.
    """
    return re.sub(r"\W", "_", name)


def _columns(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1)
