from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pyg_stmamba.data.mesh.node_types import NODE_TYPES

# Nodes of a cell and its dimension, in the numbering of meshio.
CELL_TYPES: dict[str, tuple[int, int]] = {
    "line": (2, 1),
    "triangle": (3, 2),
    "quad": (4, 2),
    "tetra": (4, 3),
    "pyramid": (5, 3),
    "wedge": (6, 3),
    "hexahedron": (8, 3),
}


@dataclass(frozen=True, eq=False)
class Mesh:
    r"""Nodes, the cells between them, and what each node is to the flow.

    .. code-block:: python

        mesh = Mesh(pos, {"triangle": triangles}, node_type)

    Args:
        pos (numpy.ndarray): Positions of the nodes.
        cells (dict[str, numpy.ndarray]): The cells by type, :obj:`"triangle"`, :obj:`"quad"`,
            :obj:`"tetra"`, :obj:`"pyramid"`, :obj:`"wedge"`, :obj:`"hexahedron"` or
            :obj:`"line"`, each with the nodes of its cells in the numbering of VTK.
        node_type (numpy.ndarray, optional): What each node is, a place in
            :obj:`node_type_names`. (default: :obj:`None`, all of the first type)
        node_type_names (tuple[str], optional): The classes of nodes.
            (default: :obj:`NODE_TYPES`, those of MeshGraphNets)

    Shapes:
        - **pos:** :math:`(|\mathcal{V}|, D)`, :math:`D` 2 or 3, float64
        - **cells:** :math:`(M, k)`, int64
        - **node_type:** :math:`(|\mathcal{V}|)`, int64

    Raises:
        ValueError: If shapes do not fit, a position is not finite, a cell names a node that is
            not there or one twice, a cell type or a node type is unknown.
    """

    pos: np.ndarray
    cells: Mapping[str, np.ndarray]
    node_type: np.ndarray = None  # type: ignore[assignment]  # filled in below
    node_type_names: tuple[str, ...] = NODE_TYPES

    def __post_init__(self) -> None:
        pos = np.asarray(self.pos, dtype=np.float64)
        if pos.ndim != 2 or pos.shape[1] not in (2, 3):
            raise ValueError(f"pos must be [N, 2] or [N, 3], got shape {list(pos.shape)}")
        if not np.isfinite(pos).all():
            node = int(np.flatnonzero(~np.isfinite(pos).all(1))[0])
            raise ValueError(f"pos is not finite: node {node} lies at {pos[node].tolist()}")
        cells = {kind: _checked_cells(kind, block, len(pos)) for kind, block in self.cells.items()}
        node_type = np.zeros(len(pos)) if self.node_type is None else np.asarray(self.node_type)
        object.__setattr__(self, "pos", pos)
        object.__setattr__(self, "cells", cells)
        object.__setattr__(self, "node_type_names", tuple(self.node_type_names))
        object.__setattr__(self, "node_type", self._checked_node_type(node_type))

    @property
    def num_nodes(self) -> int:
        r"""The number of nodes."""
        return len(self.pos)

    @property
    def num_cells(self) -> int:
        r"""The number of cells of all types but lines, which only mark borders."""
        return sum(len(block) for kind, block in self.cells.items() if kind != "line")

    @property
    def dim(self) -> int:
        r"""The dimension of space, 2 or 3."""
        return int(self.pos.shape[1])

    def nodes_of(self, *names: str) -> np.ndarray:
        r"""Returns where the nodes of the named types are, as booleans :math:`(|\mathcal{V}|)`.

        Args:
            names (str): Names of node types.
        """
        return np.isin(self.node_type, [self._place(name) for name in names])

    def _place(self, name: str) -> int:
        if name not in self.node_type_names:
            raise ValueError(
                f"unknown node type {name!r}; this mesh knows {', '.join(self.node_type_names)}"
            )
        return self.node_type_names.index(name)

    def _checked_node_type(self, node_type: np.ndarray) -> np.ndarray:
        if node_type.shape != (len(self.pos),):
            raise ValueError(
                f"node_type must be [{len(self.pos)}], one a node, got {list(node_type.shape)}"
            )
        whole = node_type.astype(np.int64)
        known = (whole == node_type) & (whole >= 0) & (whole < len(self.node_type_names))
        if not known.all():
            node = int(np.flatnonzero(~known)[0])
            raise ValueError(
                f"node {node} has the unknown type {node_type[node]}; types are 0 to "
                f"{len(self.node_type_names) - 1} ({', '.join(self.node_type_names)})"
            )
        return whole

    def __repr__(self) -> str:
        cells = ", ".join(f"{len(block)} {kind}" for kind, block in self.cells.items())
        return f"{type(self).__name__}({self.num_nodes} nodes, {cells})"


def _checked_cells(kind: str, block: np.ndarray, num_nodes: int) -> np.ndarray:
    if kind not in CELL_TYPES:
        raise ValueError(f"unknown cell type {kind!r}; choose from {', '.join(CELL_TYPES)}")
    corners = CELL_TYPES[kind][0]
    block = np.asarray(block)
    if block.ndim != 2 or block.shape[1] != corners:
        raise ValueError(f"cells of type {kind!r} must be [M, {corners}], got {list(block.shape)}")
    if not np.issubdtype(block.dtype, np.integer):
        raise ValueError(f"cells of type {kind!r} must be whole numbers, got {block.dtype}")
    block = block.astype(np.int64)
    outside = ((block < 0) | (block >= num_nodes)).any(1)
    if outside.any():
        cell = int(np.flatnonzero(outside)[0])
        raise ValueError(
            f"{kind} {cell} has the nodes {block[cell].tolist()}, but the mesh has the nodes 0 to "
            f"{num_nodes - 1}"
        )
    ordered = np.sort(block, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]).any(1)
    if twice.any():
        cell = int(np.flatnonzero(twice)[0])
        raise ValueError(f"{kind} {cell} has a node twice: {block[cell].tolist()}")
    return block
