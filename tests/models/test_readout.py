import torch
from torch.nn.functional import relu

from pyg_stmamba.models.readout import Readout
from tests import laws


def test_is_the_formula():
    readout, x = Readout(5, 4, 3, num_layers=2).double().eval(), torch.randn(2, 7, 5).double()
    weights = [parameter.detach() for parameter in readout.parameters()]
    W, b, U1, u1, U2, u2, V1, v1, V2, v2, Wo, bo = weights
    h = x @ W.T + b
    h = h + relu(h @ U1.T + u1) @ V1.T + v1
    h = h + relu(h @ U2.T + u2) @ V2.T + v2
    torch.testing.assert_close(readout(x), h @ Wo.T + bo)


def test_without_layers_it_is_linear():
    readout = Readout(5, 4, 3, num_layers=0)
    x, y = torch.randn(2, 5), torch.randn(2, 5)
    zero = readout(torch.zeros(2, 5))
    torch.testing.assert_close(readout(x + y), readout(x) + readout(y) - zero)


def test_drops_in_training_only():
    readout, x = Readout(5, 40, 3, dropout=0.5), torch.randn(2, 5)
    assert not torch.equal(readout(x), readout(x))
    readout.eval()
    assert torch.equal(readout(x), readout(x))


def test_copies_and_repr():
    readout = Readout(5, 4, 3).eval()
    x = torch.randn(2, 5)
    laws.copies_are_equal(readout, lambda copy: copy(x))
    before = readout(x)
    readout.reset_parameters()
    assert not torch.equal(readout(x), before)
    assert str(readout) == "Readout(5, 4, 3, num_layers=2)"
