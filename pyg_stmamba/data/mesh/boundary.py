from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pyg_stmamba.data.mesh.mesh import CELL_TYPES, Mesh

# The facets of a cell in the numbering of VTK. In 2-D they go around counterclockwise cells
# counterclockwise, in 3-D they are seen counterclockwise from outside; cells that are numbered
# the other way round have a negative measure.
CELL_FACETS: dict[str, Sequence[tuple[int, ...]]] = {
    "triangle": [(0, 1), (1, 2), (2, 0)],
    "quad": [(0, 1), (1, 2), (2, 3), (3, 0)],
    "tetra": [(0, 2, 1), (0, 1, 3), (1, 2, 3), (2, 0, 3)],
    "pyramid": [(0, 3, 2, 1), (0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4)],
    "wedge": [(0, 2, 1), (3, 4, 5), (0, 1, 4, 3), (1, 2, 5, 4), (2, 0, 3, 5)],
    "hexahedron": [(0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4)]
    + [(1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)],
}


class BoundaryFacets(NamedTuple):
    r"""The edges (2-D) or faces (3-D) that belong to one cell only: the border of the fluid.

    Args:
        nodes: The nodes of each facet :math:`(F, k)`, :math:`k` 2 in 2-D and 3 or 4 in 3-D; where
            triangles meet quads, triangles have their last node twice.
        normal: The unit normal that points out of the fluid :math:`(F, D)`.
        measure: The length or area :math:`(F)`.
        cell: The cell each facet belongs to :math:`(F)`, counted over :func:`volume_cells`.
    """

    nodes: np.ndarray
    normal: np.ndarray
    measure: np.ndarray
    cell: np.ndarray


def volume_cells(mesh: Mesh) -> dict[str, np.ndarray]:
    r"""Returns the cells that fill space; lines in 2-D, and faces in 3-D, only mark borders.

    Args:
        mesh (Mesh): The mesh.

    Raises:
        ValueError: If there are none, as for a surface in 3-D.
    """
    cells = {k: c for k, c in mesh.cells.items() if CELL_TYPES[k][1] == mesh.dim and len(c)}
    if not cells:
        filling = ", ".join(kind for kind, (_, dim) in CELL_TYPES.items() if dim == mesh.dim)
        raise ValueError(
            f"a mesh in {mesh.dim} dimensions needs cells that fill it ({filling}), but this one "
            f"has {', '.join(mesh.cells) or 'none'}"
        )
    return cells


def boundary_facets(mesh: Mesh) -> BoundaryFacets:
    r"""Finds the facets at the border of a mesh, at holes too, and which way is out.

    Args:
        mesh (Mesh): The mesh; its cells may be numbered either way round.

    Returns:
        BoundaryFacets: Nodes, outward unit normal, measure and cell of each.

    Raises:
        ValueError: If no cells fill the space of the mesh, a cell has no measure, or cells that
            share a facet are more than two or lie on the same side of it, as when a mesh is
            folded over.
    """
    nodes, area, cell = _all_facets(mesh)
    order, first, count = _grouped(nodes, mesh.num_nodes)
    _check_neighbors(nodes, area, cell, order, first, count)
    # In the order of the cells, not in that of the sorted facets.
    border = np.sort(order[first[count == 1]])
    measure = np.linalg.norm(area[border], axis=1)
    normal = area[border] / measure[:, None]
    return BoundaryFacets(nodes[border], normal, measure, cell[border])


def boundary_nodes(mesh: Mesh) -> np.ndarray:
    r"""Returns which nodes lie on the border of a mesh, as booleans :math:`(|\mathcal{V}|)`.

    Args:
        mesh (Mesh): The mesh.
    """
    on_border = np.zeros(mesh.num_nodes, dtype=bool)
    on_border[boundary_facets(mesh).nodes] = True
    return on_border


def facet_area(corners: np.ndarray) -> np.ndarray:
    r"""The normal of facets, as long as the facet is large: the rotated edge in 2-D, half the
    cross product of the diagonals in 3-D.

    Args:
        corners (numpy.ndarray): Positions of the nodes of each facet.

    Shapes:
        - **input:** :math:`(F, k, D)`
        - **output:** :math:`(F, D)`
    """
    if corners.shape[2] == 2:
        along = corners[:, 1] - corners[:, 0]
        return np.stack([along[:, 1], -along[:, 0]], axis=1)
    # A triangle is a quad whose last corner is there twice.
    return np.cross(corners[:, 2] - corners[:, 0], corners[:, -1] - corners[:, 1]) / 2


def corner_areas(corners: np.ndarray) -> np.ndarray:
    r"""How the corners of facets share their normal, so that values at the corners times these
    give the integral of the field times the normal.

    .. math::
        \mathbf{a}_k = \int_F \varphi_k \, \mathbf{n} \, dS

    :math:`\varphi_k` is linear and 1 at one corner; on a quadrilateral, which need not be flat, it
    is linear on the four triangles that meet at the center, where all corners count a quarter.

    Args:
        corners (numpy.ndarray): Positions of the nodes of each facet.

    Shapes:
        - **input:** :math:`(F, k, D)`
        - **output:** :math:`(F, k, D)`
    """
    count = corners.shape[1]
    area = facet_area(corners)[:, None]
    if count < 4:
        return np.repeat(area / count, count, axis=1)
    center = corners.mean(1, keepdims=True)
    following = np.roll(corners, -1, axis=1)
    triangle = np.cross(corners - center, following - center) / 2
    return (triangle + np.roll(triangle, 1, axis=1)) / 3 + area / 12


def check_not_flat(mesh: Mesh, kind: str, block: np.ndarray, measure: np.ndarray) -> None:
    r"""Refuses cells without area or volume.

    Args:
        mesh (Mesh): The mesh.
        kind (str): The type of the cells.
        block (numpy.ndarray): Their nodes :math:`(M, k)`.
        measure (numpy.ndarray): Their areas or volumes :math:`(M)`, of either sign.

    Raises:
        ValueError: If one vanishes against the size of its cell.
    """
    box = np.ptp(mesh.pos[block], axis=1).max(1) ** mesh.dim
    flat = np.abs(measure) <= 1e-13 * box
    if flat.any():
        cell = int(np.flatnonzero(flat)[0])
        raise ValueError(
            f"{kind} {cell} with the nodes {block[cell].tolist()} is flat: it has no "
            f"{'area' if mesh.dim == 2 else 'volume'}"
        )


def _all_facets(mesh: Mesh) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes, outward area and cell of the facets of all cells, cell by cell."""
    cells = volume_cells(mesh)
    width = max(len(facet) for kind in cells for facet in CELL_FACETS[kind])
    nodes, area, owner, counted = [], [], [], 0
    for kind, block in cells.items():
        table = [facet + facet[-1:] * (width - len(facet)) for facet in CELL_FACETS[kind]]
        facets = block[:, np.array(table)]
        corners = mesh.pos[facets]
        outward = facet_area(corners.reshape(-1, *corners.shape[2:])).reshape(*facets.shape[:2], -1)
        # By Gauss' theorem the sign tells the two ways of numbering a cell apart.
        from_corner = corners.mean(2) - mesh.pos[block[:, :1]]
        measure = np.einsum("mfd,mfd->m", from_corner, outward) / mesh.dim
        check_not_flat(mesh, kind, block, measure)
        outward = outward * np.sign(measure)[:, None, None]
        nodes.append(facets.reshape(-1, width))
        area.append(outward.reshape(-1, mesh.dim))
        owner.append(np.repeat(np.arange(counted, counted + len(block)), len(table)))
        counted += len(block)
    return np.concatenate(nodes), np.concatenate(area), np.concatenate(owner)


def _grouped(nodes: np.ndarray, num_nodes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An order that puts the same facets side by side, where each group starts, and its size."""
    rows = np.sort(nodes, axis=1)
    # Two triangles may be the same and have another node twice.
    rows[:, 1:][rows[:, 1:] == rows[:, :-1]] = num_nodes
    rows.sort(axis=1)
    # Two nodes fit into one number, and numbers sort much faster than rows.
    base = num_nodes + 1
    keys = [rows[:, 0] * base + rows[:, 1]]
    if rows.shape[1] > 2:
        keys.append(rows[:, 2] * base + rows[:, -1])
    order = np.lexsort(keys)
    new = np.ones(len(rows), dtype=bool)
    new[1:] = np.any([key[order[1:]] != key[order[:-1]] for key in keys], axis=0)
    first = np.flatnonzero(new)
    return order, first, np.diff(np.append(first, len(rows)))


def _check_neighbors(
    nodes: np.ndarray,
    area: np.ndarray,
    cell: np.ndarray,
    order: np.ndarray,
    first: np.ndarray,
    count: np.ndarray,
) -> None:
    if (count > 2).any():
        group = int(np.flatnonzero(count > 2)[0])
        raise ValueError(
            f"the facet between the nodes {nodes[order[first[group]]].tolist()} belongs to "
            f"{count[group]} cells; no more than two can meet there"
        )
    shared = first[count == 2]
    one, other = order[shared], order[shared + 1]
    same = np.einsum("fd,fd->f", area[one], area[other]) > 0
    if same.any():
        facet = int(np.flatnonzero(same)[0])
        raise ValueError(
            f"the mesh is folded over: the cells {cell[one[facet]]} and {cell[other[facet]]} lie "
            f"on the same side of the facet they share"
        )
