from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pyg_stmamba.data.mesh.mesh import CELL_TYPES, Mesh
from pyg_stmamba.data.mesh_files.oriented_cells import oriented_cells


@dataclass(frozen=True)
class Snapshot:
    r"""What a file says about one instant.

    Args:
        points (numpy.ndarray): Positions of the nodes.
        cells (dict[str, numpy.ndarray]): Cells by type, under the names of meshio and in the
            numbering of VTK; of any order and dimension.
        fields (dict[str, numpy.ndarray]): Arrays on the nodes by name.
        patches (dict[str, numpy.ndarray], optional): Named sets of nodes, as parts of the
            border. (default: :obj:`{}`)

    Shapes:
        - **points:** :math:`(|\mathcal{V}|, D)`
        - **cells:** :math:`(M, k)`
        - **fields:** :math:`(|\mathcal{V}|, C)`
        - **patches:** :math:`(n)`, numbers of nodes
    """

    points: np.ndarray
    cells: Mapping[str, np.ndarray]
    fields: Mapping[str, np.ndarray]
    patches: Mapping[str, np.ndarray] = field(default_factory=dict)


def mesh_of_snapshot(snapshot: Snapshot) -> tuple[Mesh, np.ndarray]:
    r"""Returns the mesh of a snapshot and which of the points its nodes are.

    Points that are no corner of a cell are left out: the nodes on edges of quadratic cells, or
    the center that a mesh generator needed for an arc. Points in a plane of constant :math:`z`
    become two-dimensional. Cells are numbered the same way round.

    Args:
        snapshot (Snapshot): What a file says.

    Returns:
        tuple[Mesh, numpy.ndarray]: The mesh and the points :math:`(|\mathcal{V}|)` of its nodes.

    Raises:
        ValueError: If a cell names a point that is not there, has no area or volume, or is of an
            unknown type.
    """
    whole = Mesh(snapshot.points, _linear_cells(snapshot.cells))
    used = np.zeros(whole.num_nodes, dtype=bool)
    for block in whole.cells.values():
        used[block] = True
    number = np.cumsum(used) - 1
    cells = {kind: number[block] for kind, block in whole.cells.items()}
    pos = whole.pos[used]
    if is_flat(pos):
        pos = pos[:, :2]
    return Mesh(pos, oriented_cells(pos, cells)), np.flatnonzero(used)


def is_flat(pos: np.ndarray) -> bool:
    r"""Tells whether points lie in a plane of constant :math:`z`, but for rounding.

    Args:
        pos (numpy.ndarray): Positions :math:`(|\mathcal{V}|, D)`.
    """
    extent = np.ptp(pos, axis=0)
    return len(extent) == 3 and bool(extent[2] <= 1e-6 * extent.max())


def _linear_cells(cells: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The cells of the highest dimension that is there, reduced to their corners: lines on the
    border of triangles say nothing about the inside."""
    linear: dict[str, list[np.ndarray]] = {}
    for kind, block in cells.items():
        if kind in ("vertex", "empty") or not len(block):
            continue
        name = linear_name(kind)
        linear.setdefault(name, []).append(np.asarray(block)[:, : CELL_TYPES[name][0]])
    dim = max((CELL_TYPES[name][1] for name in linear), default=0)
    if dim < 2:
        raise ValueError(
            f"there are no cells with an area or a volume; the cells are {', '.join(cells) or '-'}"
        )
    return {
        name: np.concatenate(blocks).astype(np.int64)
        for name, blocks in linear.items()
        if CELL_TYPES[name][1] == dim
    }


def linear_name(kind: str) -> str:
    r"""Returns the type of cell, one of :obj:`CELL_TYPES`, that has the same corners.

    Args:
        kind (str): A type of any order, under the name of meshio.

    Raises:
        ValueError: If it is unknown.
    """
    # Cells of higher order are called after those with the same corners and their number of nodes.
    name = kind.rstrip("0123456789")
    if name in CELL_TYPES:
        return name
    raise ValueError(
        f"cells of type {kind!r} cannot be read; what can is {', '.join(CELL_TYPES)}, and those "
        "of higher order by their corners"
    )
