import numpy as np
import pytest
import torch

from pyg_stmamba.nn.embedding.spatial_position import SpatialPositionalEncoding
from tests.laws import close, copies_are_equal, same


@pytest.mark.parametrize("class_token", [False, True])
def test_a_table(class_token):
    op = SpatialPositionalEncoding(4, (2, 3), class_token)
    assert op.weight.shape == (6 + class_token, 4)
    assert op((2, 3)) is op.weight
    op = SpatialPositionalEncoding(4, 5, class_token)
    assert op.weight.shape == (5 + class_token, 4)
    assert op(5) is op.weight


def cubic(distance: float) -> float:
    """The kernel of Keys with a = -3/4."""
    a, d = -0.75, abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def resampling(old: int, new: int) -> np.ndarray:
    """How much each of the old places counts at each of the new ones, which lie as evenly."""
    matrix = np.zeros((new, old))
    for i in range(new):
        place = (i + 0.5) * old / new - 0.5
        for j in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            matrix[i, min(max(j, 0), old - 1)] += cubic(place - j)
    return matrix


@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("grid", [(8, 5), (3, 7), (2, 2), (5, 4)])
def test_another_grid_is_interpolated(class_token, grid):
    op = SpatialPositionalEncoding(2, (4, 5), class_token)
    field = op.weight[class_token:].detach().double().reshape(4, 5, 2).numpy()
    rows, columns = resampling(4, grid[0]), resampling(5, grid[1])
    expected = np.einsum("ia,jb,abd->ijd", rows, columns, field).reshape(-1, 2)
    y = op(grid)
    assert y.shape == (grid[0] * grid[1] + class_token, 2)
    close(y[class_token:].double(), torch.from_numpy(expected), 1e-6)
    if class_token:
        same(y[0], op.weight[0])


def test_nodes_cannot_be_interpolated():
    op = SpatialPositionalEncoding(4, 5)
    with pytest.raises(ValueError, match=r"each of 5 nodes, got 6.*cannot be interpolated"):
        op(6)


def test_initialization():
    op = SpatialPositionalEncoding(100, (10, 10))
    assert op.weight.std().item() == pytest.approx(0.02, rel=0.05)
    kept = op.weight.clone()
    op.reset_parameters()
    assert not torch.equal(op.weight, kept)
    with pytest.raises(ValueError, match="at least one place, got 0"):
        SpatialPositionalEncoding(4, 0)


def test_copies_and_gradients():
    op = SpatialPositionalEncoding(4, (2, 3), class_token=True)
    copies_are_equal(op, lambda op: op((4, 4)))
    op((4, 4)).square().sum().backward()
    assert (op.weight.grad != 0).all()
    assert str(op) == "SpatialPositionalEncoding(4, (2, 3), class_token=True)"
