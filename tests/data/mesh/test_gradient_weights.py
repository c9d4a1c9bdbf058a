import numpy as np
import pytest
import torch

from pyg_stmamba.data.mesh import Mesh, MeshCalculus
from pyg_stmamba.data.mesh.gradient_weights import gradient_weights


@pytest.mark.parametrize("kind", ["triangle", "quad", "tetra"])
def test_weights_are_the_gradient_of_the_calculus(lattice, kind):
    mesh = lattice(kind, size=4)
    index, weight = gradient_weights(mesh)
    assert (index.dtype, weight.dtype) == (torch.long, torch.float32)
    assert weight.shape == (index.size(1), mesh.dim)
    values = np.random.default_rng(0).normal(size=mesh.num_nodes)
    found = np.zeros((mesh.num_nodes, mesh.dim))
    node, neighbor = index.numpy()
    np.add.at(found, node, weight.double().numpy() * values[neighbor, None])
    np.testing.assert_allclose(found, MeshCalculus(mesh).node_gradient(values), atol=1e-4)
    # Every pair is there once.
    assert len(np.unique(index.numpy(), axis=1).T) == index.size(1)


def test_surfaces_have_none(lattice):
    flat = lattice("triangle", size=2)
    surface = Mesh(np.c_[flat.pos, flat.pos[:, :1] ** 2], flat.cells, flat.node_type)
    with pytest.raises(ValueError, match="cells"):
        gradient_weights(surface)
