from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pyg_stmamba.data.mesh.boundary import CELL_FACETS, facet_area
from pyg_stmamba.data.mesh.mesh import CELL_TYPES

# The same cell, numbered the other way round.
_TURNED = {
    "triangle": [0, 2, 1],
    "quad": [0, 3, 2, 1],
    "tetra": [0, 2, 1, 3],
    "pyramid": [0, 3, 2, 1, 4],
    "wedge": [3, 4, 5, 0, 1, 2],
    "hexahedron": [4, 5, 6, 7, 0, 1, 2, 3],
}


def oriented_cells(pos: np.ndarray, cells: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    r"""Numbers all cells the same way round: counterclockwise in 2-D, with a positive volume in
    3-D. Solvers differ in this, and some number every cell as it comes.

    Args:
        pos (numpy.ndarray): Positions of the nodes.
        cells (dict[str, numpy.ndarray]): Cells by type, as :class:`Mesh` holds them.

    Shapes:
        - **pos:** :math:`(|\mathcal{V}|, D)`
        - **cells:** :math:`(M, k)`, both ways

    Raises:
        ValueError: If a cell has no area or volume, or a quad crosses itself.
    """
    return {
        kind: _oriented(pos, kind, block) if CELL_TYPES[kind][1] == pos.shape[1] else block
        for kind, block in cells.items()
    }


def cell_measures(pos: np.ndarray, kind: str, block: np.ndarray) -> np.ndarray:
    r"""Returns the area or volume of cells, negative where they are numbered the other way round.

    By Gauss' theorem it is a sum over the facets.

    .. math::
        |K| = \frac{1}{D} \sum_{f \in \partial K} \mathbf{x}_f \cdot \mathbf{n}_f |f|

    Args:
        pos (numpy.ndarray): Positions of the nodes :math:`(|\mathcal{V}|, D)`.
        kind (str): The type of the cells.
        block (numpy.ndarray): The cells :math:`(M, k)`.
    """
    corners = pos[block] - pos[block[:, :1]]
    total = np.zeros(len(block))
    for facet in CELL_FACETS[kind]:
        nodes = corners[:, facet]
        total += np.einsum("md,md->m", nodes.mean(1), facet_area(nodes))
    return total / pos.shape[1]


def _oriented(pos: np.ndarray, kind: str, block: np.ndarray) -> np.ndarray:
    measures = cell_measures(pos, kind, block)
    size = np.ptp(pos[block], axis=1).max(1) ** pos.shape[1]
    flat = np.abs(measures) <= 1e-12 * size
    if flat.any():
        cell = int(np.flatnonzero(flat)[0])
        what = "area" if pos.shape[1] == 2 else "volume"
        raise ValueError(
            f"{int(flat.sum())} cells have no {what}, the first is {kind} {cell} with the nodes "
            f"{block[cell].tolist()}"
        )
    if kind == "quad":
        _check_quads(pos, block)
    return np.where((measures < 0)[:, None], block[:, _TURNED[kind]], block)


def _check_quads(pos: np.ndarray, block: np.ndarray) -> None:
    corners = pos[block]
    sides = np.roll(corners, -1, axis=1) - corners
    before = np.roll(sides, 1, axis=1)
    turns = before[..., 0] * sides[..., 1] - before[..., 1] * sides[..., 0]
    # A bow tie turns left twice and right twice, a dart only once the other way.
    crossed = ((turns > 0).sum(1) == 2) & ((turns < 0).sum(1) == 2)
    if crossed.any():
        cell = int(np.flatnonzero(crossed)[0])
        raise ValueError(f"quad {cell} crosses itself: {block[cell].tolist()}")
