from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pyg_stmamba.data.mesh_files.cell_arrays import snapshot_of
from pyg_stmamba.data.mesh_files.snapshot import Snapshot

# The cells of VTK by number: their type and where in a cell its corners stand. Cells of higher
# order have their corners first; pixels and voxels are numbered row by row.
_CELLS: dict[int, tuple[str, tuple[int, ...]]] = {
    number: (kind, corners)
    for kind, corners, numbers in [
        ("vertex", (0,), (1,)),
        ("line", (0, 1), (3, 21, 35, 68)),
        ("triangle", (0, 1, 2), (5, 22, 34, 69)),
        ("quad", (0, 1, 2, 3), (9, 23, 28, 70)),
        ("quad", (0, 1, 3, 2), (8,)),
        ("tetra", (0, 1, 2, 3), (10, 24, 71)),
        ("hexahedron", (0, 1, 2, 3, 4, 5, 6, 7), (12, 25, 29, 72)),
        ("hexahedron", (0, 1, 3, 2, 4, 5, 7, 6), (11,)),
        ("wedge", (0, 1, 2, 3, 4, 5), (13, 26, 32, 73)),
        ("pyramid", (0, 1, 2, 3, 4), (14, 27, 74)),
    ]
    for number in numbers
}


def snapshot_of_vtk(
    points: np.ndarray,
    connectivity: np.ndarray,
    starts: np.ndarray,
    types: np.ndarray,
    on_points: Mapping[str, np.ndarray],
    on_cells: Mapping[str, np.ndarray],
    merge: bool,
) -> Snapshot:
    r"""Puts together what an unstructured grid of VTK holds. Cells of higher order are taken by
    their corners; ghost cells are left out.

    Args:
        points (numpy.ndarray): Positions :math:`(N, 3)`.
        connectivity (numpy.ndarray): The points of all cells, one cell after the other.
        starts (numpy.ndarray): Where each cell begins there :math:`(M)`.
        types (numpy.ndarray): The number of its type :math:`(M)`.
        on_points (dict[str, numpy.ndarray]): Arrays on points by name.
        on_cells (dict[str, numpy.ndarray]): Arrays on cells by name.
        merge (bool): Makes points at the same place one, as where parts of a parallel run meet.

    Raises:
        ValueError: If a cell names a point that is not there.
    """
    if connectivity.size and not 0 <= connectivity.min() <= connectivity.max() < len(points):
        raise ValueError(
            f"cells name the points {connectivity.min()} to {connectivity.max()}, but there are "
            f"the points 0 to {len(points) - 1}"
        )
    if merge:
        points, first, number = np.unique(points, axis=0, return_index=True, return_inverse=True)
        connectivity = number.ravel()[connectivity]
        on_points = {name: values[first] for name, values in on_points.items()}
    ghost = on_cells.get("vtkGhostType")
    kept = np.ones(len(types), bool) if ghost is None else ghost == 0
    blocks, rows = [], []
    for kind in np.unique(types[kept]):
        name, corners = _CELLS.get(int(kind), (f"number {kind} of VTK", (0,)))
        rows.append(np.flatnonzero((types == kind) & kept))
        blocks.append((name, connectivity[starts[rows[-1]][:, None] + np.array(corners)]))
    return snapshot_of(
        points,
        blocks,
        _without_vtks_own(on_points),
        {
            name: [values[row] for row in rows]
            for name, values in _without_vtks_own(on_cells).items()
        },
    )


def _without_vtks_own(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: values for name, values in arrays.items() if not name.startswith("vtk")}
