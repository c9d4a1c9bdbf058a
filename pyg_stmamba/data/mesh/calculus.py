from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array, diags_array, vstack

from pyg_stmamba.data.mesh.boundary import CELL_FACETS, check_not_flat, corner_areas, volume_cells
from pyg_stmamba.data.mesh.mesh import Mesh


class MeshCalculus:
    r"""Areas, gradients, vorticity and divergence of fields on the nodes of a mesh.

    The gradient in a cell is its mean, which Gauss' theorem gives from the values on its facets:

    .. math::
        \nabla f = \frac{1}{|K|} \oint_{\partial K} f \, \mathbf{n} \, dS

    with :math:`f` linear on edges and triangles, and on quadrilateral faces linear on the four
    triangles around their center. On triangles and tetrahedra this is the gradient of the linear
    interpolant, and on all cells it is exact for linear fields. A node has the mean of its cells,
    weighted by their measures.

    The operators are sparse matrices, made once. Fields may have any dimensions after the nodes,
    such as frames, and all results are float64.

    .. code-block:: python

        calculus = MeshCalculus(trajectory.mesh)
        vorticity = calculus.vorticity(trajectory.frames("velocity"))    # [N, T]

    Args:
        mesh (Mesh): The mesh; lines in 2-D, and faces in 3-D, do not count as cells.

    Raises:
        ValueError: If no cells fill the space of the mesh, or a cell has no measure.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        measures, gradients, incidences = [], [], []
        for kind, block in volume_cells(mesh).items():
            flux = _facet_flux(mesh, kind, block)
            measure = sum(flux[d] @ mesh.pos[:, d] for d in range(mesh.dim)) / mesh.dim
            check_not_flat(mesh, kind, block, measure)
            # Cells that are numbered the other way round have both signs wrong.
            gradients.append([diags_array(1 / measure) @ along for along in flux])
            measures.append(np.abs(measure))
            incidences.append(_incidence(block, mesh.num_nodes))
        self._cell_measure = np.concatenate(measures)
        self._cell_gradient = [vstack(parts, format="csr") for parts in zip(*gradients)]
        self._make_node_operators(incidences)

    def _make_node_operators(self, incidences: list[csr_array]) -> None:
        incidence = vstack(incidences, format="csr")
        corners = incidence.sum(axis=1)
        self._node_measure = incidence.T @ (self._cell_measure / corners)
        around = incidence.T @ self._cell_measure
        # Nodes of no cell have gradient 0.
        around[around == 0] = 1
        average = diags_array(1 / around) @ incidence.T @ diags_array(self._cell_measure)
        self._node_gradient = [(average @ along).tocsr() for along in self._cell_gradient]

    @property
    def cell_measure(self) -> np.ndarray:
        r"""Area (2-D) or volume (3-D) of each cell :math:`(M)`."""
        return self._cell_measure

    @property
    def node_measure(self) -> np.ndarray:
        r"""The share of each node in the area or volume :math:`(|\mathcal{V}|)`: a cell gives its
        nodes equal parts, so that the sum is that of the cells."""
        return self._node_measure

    @property
    def cell_gradient_operators(self) -> list[csr_array]:
        r"""The matrices :math:`(M, |\mathcal{V}|)` behind :meth:`cell_gradient`, one for each
        direction."""
        return self._cell_gradient

    @property
    def node_gradient_operators(self) -> list[csr_array]:
        r"""The matrices :math:`(|\mathcal{V}|, |\mathcal{V}|)` behind :meth:`node_gradient`, one
        for each direction."""
        return self._node_gradient

    def cell_gradient(self, values: np.ndarray) -> np.ndarray:
        r"""The mean gradient in each cell.

        Args:
            values (numpy.ndarray): A field on the nodes.

        Shapes:
            - **input:** :math:`(|\mathcal{V}|, *)`
            - **output:** :math:`(M, *, D)`
        """
        return self._applied(self._cell_gradient, values)

    def node_gradient(self, values: np.ndarray) -> np.ndarray:
        r"""The gradient at each node, the mean of that of the cells around.

        Args:
            values (numpy.ndarray): A field on the nodes.

        Shapes:
            - **input:** :math:`(|\mathcal{V}|, *)`
            - **output:** :math:`(|\mathcal{V}|, *, D)`
        """
        return self._applied(self._node_gradient, values)

    def divergence(self, velocity: np.ndarray) -> np.ndarray:
        r"""The divergence :math:`\nabla \cdot \mathbf{u}` at each node.

        Args:
            velocity (numpy.ndarray): A vector field on the nodes.

        Shapes:
            - **input:** :math:`(|\mathcal{V}|, *, D)`
            - **output:** :math:`(|\mathcal{V}|, *)`
        """
        velocity = self._checked_vectors(velocity)
        parts = [self._along(axis, velocity[..., axis]) for axis in range(self.mesh.dim)]
        return np.sum(parts, axis=0)

    def vorticity(self, velocity: np.ndarray) -> np.ndarray:
        r"""The vorticity :math:`\nabla \times \mathbf{u}` at each node: in 2-D the number
        :math:`\partial_x v - \partial_y u`, in 3-D a vector.

        Args:
            velocity (numpy.ndarray): A vector field on the nodes.

        Shapes:
            - **input:** :math:`(|\mathcal{V}|, *, D)`
            - **output:** :math:`(|\mathcal{V}|, *)` in 2-D, :math:`(|\mathcal{V}|, *, 3)` in 3-D
        """
        velocity = self._checked_vectors(velocity)

        def curl(first: int, second: int) -> np.ndarray:
            return self._along(first, velocity[..., second]) - self._along(
                second, velocity[..., first]
            )

        if self.mesh.dim == 2:
            return curl(0, 1)
        return np.stack([curl(1, 2), curl(2, 0), curl(0, 1)], axis=-1)

    def _along(self, axis: int, values: np.ndarray) -> np.ndarray:
        return _times(self._node_gradient[axis], values)

    def _applied(self, operators: list[csr_array], values: np.ndarray) -> np.ndarray:
        values = np.asarray(values, dtype=np.float64)
        if values.ndim < 1 or len(values) != self.mesh.num_nodes:
            raise ValueError(
                f"values must be [{self.mesh.num_nodes}, ...], one a node, got {list(values.shape)}"
            )
        return np.stack([_times(along, values) for along in operators], axis=-1)

    def _checked_vectors(self, velocity: np.ndarray) -> np.ndarray:
        velocity = np.asarray(velocity, dtype=np.float64)
        nodes, dim = self.mesh.num_nodes, self.mesh.dim
        if velocity.ndim < 2 or (len(velocity), velocity.shape[-1]) != (nodes, dim):
            raise ValueError(f"velocity must be [{nodes}, ..., {dim}], got {list(velocity.shape)}")
        return velocity

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.mesh})"


def _facet_flux(mesh: Mesh, kind: str, block: np.ndarray) -> list[csr_array]:
    """What turns node values into the integral of f times the normal over the border of each
    cell, one matrix for each direction."""
    weight = np.zeros((*block.shape, mesh.dim))
    for facet in CELL_FACETS[kind]:
        corners = mesh.pos[block[:, facet]]
        weight[:, facet] += corner_areas(corners)
    row = np.repeat(np.arange(len(block)), block.shape[1])
    shape = (len(block), mesh.num_nodes)
    return [
        csr_array((weight[..., d].ravel(), (row, block.ravel())), shape=shape)
        for d in range(mesh.dim)
    ]


def _incidence(block: np.ndarray, num_nodes: int) -> csr_array:
    row = np.repeat(np.arange(len(block)), block.shape[1])
    return csr_array((np.ones(block.size), (row, block.ravel())), shape=(len(block), num_nodes))


def _times(operator: csr_array, values: np.ndarray) -> np.ndarray:
    flat = operator @ values.reshape(len(values), -1)
    return flat.reshape(-1, *values.shape[1:])
