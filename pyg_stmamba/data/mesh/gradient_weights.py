from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pyg_stmamba.data.mesh.calculus import MeshCalculus
from pyg_stmamba.data.mesh.mesh import Mesh


def gradient_weights(mesh: Mesh) -> tuple[Tensor, Tensor]:
    r"""Returns the gradient at the nodes of a mesh, see
    :meth:`~pyg_stmamba.data.mesh.MeshCalculus.node_gradient`, as sums over nodes nearby.

    .. math::
        \nabla f_i = \sum_j \mathbf{g}_{i,j} f_j

    Args:
        mesh (Mesh): The mesh.

    Returns:
        tuple[Tensor, Tensor]: The pairs :math:`(i, j)`, :math:`(2, M)`, and their weights
        :math:`\mathbf{g}`, :math:`(M, D)`.

    Raises:
        ValueError: If the cells do not fill the space of the mesh, as those of a surface in 3-D.
    """
    operators = MeshCalculus(mesh).node_gradient_operators
    node, neighbor = sum(abs(along) for along in operators).nonzero()
    weights = [np.asarray(along[node, neighbor]).ravel() for along in operators]
    index = np.stack([node, neighbor]).astype(np.int64)
    return torch.from_numpy(index), torch.from_numpy(np.stack(weights, 1).astype(np.float32))
