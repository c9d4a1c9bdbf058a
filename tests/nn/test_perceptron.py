from itertools import pairwise

import pytest
import torch
from torch import nn

from pyg_stmamba.nn.perceptron import Perceptron
from tests import laws


@pytest.mark.parametrize(("num_layers", "norm"), [(1, False), (2, True), (3, False)])
def test_against_a_sequence_of_torch_layers(num_layers, norm):
    ours = Perceptron(3, 7, 5, num_layers, norm)
    sizes = [3, *[7] * num_layers, 5]
    layers: list[nn.Module] = []
    for size_in, size_out in pairwise(sizes):
        layers += [nn.Linear(size_in, size_out), nn.ReLU()]
    theirs = nn.Sequential(*layers[:-1], nn.LayerNorm(5) if norm else nn.Identity())
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        nn.init.normal_(b)
        a.data.copy_(b)
    x = torch.randn(4, 2, 3)
    laws.close(ours(x), theirs(x), 1e-6)


def test_parts_and_inputs():
    op, x = Perceptron(3, 7, 5, num_layers=2), torch.randn(4, 3)
    laws.same(op.last(op.hidden(op.first(x))), op(x))
    laws.inputs_stay_untouched(op, x)
    laws.copies_are_equal(op, lambda op: op(x))
    before = op(x)
    op.reset_parameters()
    assert not torch.equal(op(x), before)


def test_errors_and_repr():
    with pytest.raises(ValueError, match="num_layers must be at least 1, got 0"):
        Perceptron(3, 7, 5, num_layers=0)
    assert str(Perceptron(3, 7, 5)) == "Perceptron(3, 7, 5, num_layers=1)"
    assert str(Perceptron(3, 7, 5, 2, norm=True)) == "Perceptron(3, 7, 5, num_layers=2, norm=True)"
