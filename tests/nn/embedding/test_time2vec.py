import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pyg_stmamba.nn.embedding import Time2Vec
from tests.laws import close, copies_are_equal, inputs_stay_untouched, layout_does_not_matter, same


def by_loops(op: Time2Vec, x: torch.Tensor, function=np.sin) -> torch.Tensor:
    weight, bias = op.weight.detach().numpy(), op.bias.detach().numpy()
    values = x.numpy()
    size = op.embed_dim // op.input_dim
    y = np.zeros((*values.shape[:-1], op.embed_dim), dtype=np.float32)
    for c in range(op.input_dim):
        for k in range(size):
            phase = weight[c, k] * values[..., c] + bias[c, k]
            y[..., c * size + k] = phase if k == 0 else function(phase)
    return torch.from_numpy(y)


@pytest.mark.parametrize(("input_dim", "embed_dim"), [(1, 6), (3, 12), (3, 3), (2, 4)])
@pytest.mark.parametrize("shape", [(), (5,), (4, 5), (2, 3, 4, 5)])
def test_against_numpy(input_dim, embed_dim, shape):
    op = Time2Vec(input_dim, embed_dim)
    x = torch.randn(*shape, input_dim)
    y = op(x)
    assert y.shape == (*shape, embed_dim)
    close(y.detach(), by_loops(op, x), 1e-6)


def test_one_entry_a_feature_is_linear():
    op = Time2Vec(3, 3)
    x, other = torch.randn(2, 5, 3)
    close(op(x + other), op(x) + op(other) - op.bias.flatten(), 1e-5)


def test_another_function():
    op = Time2Vec(2, 6, act_function=torch.cos)
    x = torch.randn(4, 2)
    close(op(x).detach(), by_loops(op, x, np.cos), 1e-6)


def test_without_an_embedding_the_features_stay():
    op = Time2Vec(3, 0)
    assert not op.enabled
    assert list(op.parameters()) == []
    x = torch.randn(4, 3)
    same(op(x), x)


def test_features_do_not_multiply():
    """No product of all features with all entries, as a matrix with mostly zeros would make it."""
    op = Time2Vec(30, 60)
    assert sum(parameter.numel() for parameter in op.parameters()) == 2 * 60
    with FlopCounterMode(display=False) as products:
        op(torch.randn(20, 30))
    assert products.get_total_flops() == 0


def test_initialization():
    op = Time2Vec(20, 2000)
    for parameter in (op.weight, op.bias):
        assert parameter.mean().item() == pytest.approx(0, abs=0.1)
        assert parameter.std().item() == pytest.approx(1, rel=0.1)


def test_gradient():
    op = Time2Vec(2, 6).double()
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(op, (x,))


def test_laws():
    op = Time2Vec(2, 6)
    x = torch.randn(4, 5, 2)
    copies_are_equal(op, lambda other: other(x))
    inputs_stay_untouched(op, x)
    layout_does_not_matter(op, x)


def test_bad_options():
    with pytest.raises(ValueError, match="input_dim must be at least 1, got 0"):
        Time2Vec(0, 6)
    for embed_dim in (7, -2):
        with pytest.raises(ValueError, match=rf"multiple of input_dim \(2\), got {embed_dim}"):
            Time2Vec(2, embed_dim)
    for x in (torch.randn(4, 3), torch.tensor(0.0)):
        with pytest.raises(ValueError, match=r"2 feature\(s\) in the last dimension"):
            Time2Vec(2, 6)(x)


def test_repr():
    assert str(Time2Vec(2, 6)) == "Time2Vec(2, 6)"
