import numpy as np
from scipy import sparse

# The corners of a triangle between which the midpoints of its edges lie.
EDGES = ((0, 1), (1, 2), (2, 0))


class TaylorHood:
    r"""Quadratic velocity and linear pressure on straight triangles, the element of
    `"A numerical solution of the Navier-Stokes equations using the finite element technique"
    <https://doi.org/10.1016/0045-7930(73)90027-3>`_.

    A velocity is an array :math:`(n, 2)`, its values at the vertices and then at the midpoints
    of the edges. A pressure :math:`(N)` holds values at the vertices. All integrals are exact.

    Args:
        pos (numpy.ndarray): Positions of the vertices.
        triangles (numpy.ndarray): The vertices of each triangle, in any orientation.

    Attributes:
        nodes (numpy.ndarray): Positions of the velocity's nodes, vertices then midpoints.
        cells (numpy.ndarray): The six nodes of each triangle: corners, then the midpoints of its
            edges 01, 12 and 20.
        boundary_edges (numpy.ndarray): Start, end and midpoint of each edge at the boundary.
        mass (scipy.sparse.csr_array): :math:`\int \phi_i \phi_j` of the velocity's functions.
        stiffness (scipy.sparse.csr_array): :math:`\int \nabla \phi_i \cdot \nabla \phi_j`.
        pressure_mass (scipy.sparse.csr_array): :math:`\int q_i q_j` of the pressure's functions.
        pressure_stiffness (scipy.sparse.csr_array): :math:`\int \nabla q_i \cdot \nabla q_j`.
        divergence (scipy.sparse.csr_array): :math:`\int q_i \nabla \cdot \mathbf{v}_j`, where
            :math:`\mathbf{v}_{2k + d}` is component :math:`d` at node :math:`k`; it acts as
            :obj:`divergence @ velocity.ravel()`.

    Shapes:
        - **pos:** :math:`(N, 2)`
        - **triangles:** :math:`(M, 3)`

    Raises:
        ValueError: If shapes do not fit, a vertex belongs to no triangle, a triangle has no area
            or an edge more than two triangles.
    """

    def __init__(self, pos: np.ndarray, triangles: np.ndarray) -> None:
        pos, triangles = np.asarray(pos, dtype=np.float64), np.asarray(triangles, dtype=np.int64)
        _check(pos, triangles)
        sides = np.sort(triangles[:, EDGES], axis=2).reshape(-1, 2)
        edges, edge_of_side, count = np.unique(
            sides, axis=0, return_inverse=True, return_counts=True
        )
        if (count > 2).any():
            edge = edges[int(np.argmax(count))].tolist()
            raise ValueError(f"{count.max()} triangles have the edge {edge}; two can meet there")
        midpoints = len(pos) + np.arange(len(edges))
        self.num_vertices = len(pos)
        self.nodes = np.concatenate([pos, pos[edges].mean(axis=1)])
        self.cells = np.concatenate([triangles, midpoints[edge_of_side.reshape(-1, 3)]], axis=1)
        self.boundary_edges = np.column_stack([edges, midpoints])[count == 1]
        self._assemble(pos[triangles])

    @property
    def num_nodes(self) -> int:
        r"""The number of nodes of the velocity."""
        return len(self.nodes)

    def convection(self, velocity: np.ndarray) -> sparse.csr_array:
        r"""Returns :math:`\int \phi_i \, (\mathbf{w} \cdot \nabla) \phi_j` for a velocity
        :math:`\mathbf{w}`, with the sparsity pattern of :obj:`mass`."""
        along = velocity[self.cells] @ self._weighted_gradients
        local = along.reshape(-1, 18) @ self._convection_of_reference
        data = np.bincount(self._places, local.ravel(), self.mass.nnz)
        return sparse.csr_array((data, self.mass.indices, self.mass.indptr), self.mass.shape)

    def _assemble(self, corners: np.ndarray) -> None:
        gradients, area = _barycentric_gradients(corners)
        weights, linear, quadratic, slopes = _reference_functions()
        # The area of the integral is in one of the factors.
        self._weighted_gradients = area[:, None, None] * gradients.transpose(0, 2, 1)
        dots = gradients @ self._weighted_gradients

        def integral(subscripts: str, *factors: np.ndarray) -> np.ndarray:
            return np.einsum(f"q,{subscripts}", weights, *factors)

        convection = integral("qk,qi,qjl->klij", quadratic, quadratic, slopes)
        self._convection_of_reference = convection.reshape(18, 36)
        mass = area[:, None, None] * integral("qi,qj->ij", quadratic, quadratic)
        stiffness = np.einsum("mab,abij->mij", dots, integral("qia,qjb->abij", slopes, slopes))
        self._places, (self.mass, self.stiffness) = _add_up(self.cells, self.cells, mass, stiffness)
        triangles = self.cells[:, :3]
        mass = area[:, None, None] * integral("qi,qj->ij", linear, linear)
        _, (self.pressure_mass, self.pressure_stiffness) = _add_up(triangles, triangles, mass, dots)
        divergence = np.einsum(
            "mdl,lij->mijd", self._weighted_gradients, integral("qi,qjl->lij", linear, slopes)
        )
        components = 2 * self.cells[:, :, None] + np.arange(2)
        _, (self.divergence,) = _add_up(triangles, components.reshape(-1, 12), divergence)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self.cells)} triangles, {self.num_nodes} velocity nodes, "
            f"{self.num_vertices} pressure nodes)"
        )


def _check(pos: np.ndarray, triangles: np.ndarray) -> None:
    if pos.ndim != 2 or pos.shape[1] != 2:
        raise ValueError(f"pos must be [N, 2], got {list(pos.shape)}")
    if triangles.ndim != 2 or triangles.shape[1] != 3 or not len(triangles):
        raise ValueError(f"triangles must be [M, 3], M > 0, got {list(triangles.shape)}")
    if triangles.min() < 0 or triangles.max() >= len(pos):
        raise ValueError(
            f"triangles name the vertices {triangles.min()} to {triangles.max()}, but pos has the "
            f"vertices 0 to {len(pos) - 1}"
        )
    used = np.bincount(triangles.ravel(), minlength=len(pos)) > 0
    if not used.all():
        raise ValueError(f"vertex {int(np.argmin(used))} belongs to no triangle; leave it out")
    first, second = (pos[triangles[:, i]] - pos[triangles[:, 0]] for i in (1, 2))
    area = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2
    flat = ~(area > 1e-12 * (np.square(first).sum(1) + np.square(second).sum(1)))
    if flat.any():
        triangle = int(np.argmax(flat))
        raise ValueError(f"triangle {triangle} with vertices {triangles[triangle]} has no area")


def _barycentric_gradients(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradients ``[M, 3, 2]`` of the barycentric coordinates, and the areas ``[M]``."""
    opposite = np.roll(corners, -1, axis=1) - np.roll(corners, 1, axis=1)
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    twice = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    turned = np.stack([opposite[:, :, 1], -opposite[:, :, 0]], axis=2)
    return turned / twice[:, None, None], np.abs(twice) / 2


def _reference_functions() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weights of a quadrature of degree 6 (their sum is 1), the three linear and the six quadratic
    functions at its points, and the derivatives of these by the barycentric coordinates."""
    points, weights = np.polynomial.legendre.leggauss(4)
    s, t = (grid.ravel() for grid in np.meshgrid((points + 1) / 2, (points + 1) / 2))
    weights = np.outer(weights, weights).ravel() * (1 - t) / 2
    linear = np.stack([t, s * (1 - t), (1 - s) * (1 - t)], axis=1)
    quadratic = linear * (2 * linear - 1)
    slopes = np.zeros((len(weights), 6, 3))
    slopes[:, range(3), range(3)] = 4 * linear - 1
    for i, (a, b) in enumerate(EDGES, start=3):
        slopes[:, i, a], slopes[:, i, b] = 4 * linear[:, b], 4 * linear[:, a]
    bubbles = np.stack([4 * linear[:, a] * linear[:, b] for a, b in EDGES], axis=1)
    return weights, linear, np.concatenate([quadratic, bubbles], axis=1), slopes


def _add_up(
    rows: np.ndarray, columns: np.ndarray, *locals_: np.ndarray
) -> tuple[np.ndarray, list[sparse.csr_array]]:
    """Sums matrices of the triangles into sparse ones that share a pattern; also returns the
    place of each local entry among the stored ones."""
    shape = (int(rows.max()) + 1, int(columns.max()) + 1)
    flat = (rows[:, :, None] * shape[1] + columns[:, None, :]).ravel()
    entries, places = np.unique(flat, return_inverse=True)
    starts = np.searchsorted(entries, np.arange(shape[0] + 1) * shape[1])
    matrices = [
        sparse.csr_array((np.bincount(places, local.ravel()), entries % shape[1], starts), shape)
        for local in locals_
    ]
    return places, matrices
