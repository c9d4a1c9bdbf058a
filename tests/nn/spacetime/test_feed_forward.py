import pytest
import torch
import torch.nn.functional as F

from pyg_stmamba.nn.spacetime import FeedForward
from tests.laws import close, copies_are_equal, inputs_stay_untouched

B, T, D = 3, 5, 6


@pytest.mark.parametrize(
    ("activation", "function"), [("gelu", F.gelu), ("relu", F.relu), ("silu", F.silu)]
)
def test_against_convolutions_of_width_one(activation, function):
    op = FeedForward(D, 10, 0.5, activation).eval()
    x = torch.randn(B, T, D)
    h = F.conv1d(x.transpose(1, 2), op.linear1.weight.unsqueeze(-1), op.linear1.bias)
    y = F.conv1d(function(h), op.linear2.weight.unsqueeze(-1), op.linear2.bias)
    close(op(x), y.transpose(1, 2), 1e-6)


def test_default_size():
    assert FeedForward(D).linear1.out_features == 4 * D


def test_dropout_within_and_behind():
    """Within, 1 becomes 0 or 2; plus 1, that becomes 0 or twice as much."""
    op = FeedForward(1, 1, 0.5, "relu")
    with torch.no_grad():
        op.linear1.weight.zero_()
        for parameter in (op.linear1.bias, op.linear2.weight, op.linear2.bias):
            parameter.fill_(1.0)
    x = torch.randn(B, 100, 1)
    assert set(op(x).unique().tolist()) == {0.0, 2.0, 6.0}
    close(op.eval()(x), torch.full((B, 100, 1), 2.0), 1e-6)


def test_module_laws():
    op = FeedForward(D).eval()
    x = torch.randn(B, T, D)
    copies_are_equal(op, lambda o: o(x))
    inputs_stay_untouched(op, x)
    before = op(x)
    op.reset_parameters()
    assert not torch.equal(op(x), before)


def test_unknown_activation():
    with pytest.raises(ValueError, match=r"'tanh'.*'gelu', 'relu', 'silu'"):
        FeedForward(D, activation="tanh")
