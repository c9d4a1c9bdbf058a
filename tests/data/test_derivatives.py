import numpy as np
import torch

from pyg_stmamba.data.derivatives import derivative_channels, derivatives, velocity_channels
from pyg_stmamba.data.mesh.gradient_weights import gradient_weights


def test_linear_flow(lattice):
    mesh = lattice("triangle", size=5)
    rng = np.random.default_rng(1)
    slope, offset = rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 4))  # [S, H, D], [S, H]
    x = np.einsum("nd,shd->nhs", mesh.pos, slope) + offset.T
    index, weight = gradient_weights(mesh)
    weight = weight.double()
    x = torch.from_numpy(x)
    # Of the state (density, u, v) the last two channels are the velocity.
    found = derivatives(x, index, weight, slice(1, 3))
    assert found.shape == (mesh.num_nodes, 4, 9)
    gradient = torch.from_numpy(slope).transpose(0, 1).expand(mesh.num_nodes, -1, -1, -1)
    torch.testing.assert_close(found[..., :6].unflatten(-1, (3, 2)), gradient, atol=1e-5, rtol=0)
    carried = torch.einsum("nhsd,nhd->nhs", gradient, x[..., 1:])
    torch.testing.assert_close(found[..., 6:], carried, atol=1e-4, rtol=0)
    without = derivatives(x, index, weight, None)
    assert torch.equal(without, found[..., :6])


def test_gradients_flow_back(lattice):
    mesh = lattice("triangle", size=2)
    index, weight = gradient_weights(mesh)
    x = torch.randn(mesh.num_nodes, 2, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: derivatives(x, index, weight.double(), slice(0, 2)), x
    )


def test_which_channels_there_are():
    state = {"density": 1, "velocity": 2, "other": 2}
    assert velocity_channels({"stress": 3} | state, 2) == slice(4, 6)
    assert velocity_channels(state, 2) == slice(1, 3)
    assert velocity_channels(state, 3) is None
    assert derivative_channels(state, 2) == 5 * 2 + 5
    assert derivative_channels(state, 3) == 5 * 3
    assert derivative_channels(state, 0) == 0
