import numpy as np
import pytest
import torch

from pyg_stmamba.nn.embedding.temporal_position import TemporalPositionalEncoding
from tests.laws import close, copies_are_equal, inputs_stay_untouched, same

D, LENGTH = 6, 5


def vectors(op: TemporalPositionalEncoding, steps: int) -> torch.Tensor:
    return op(torch.zeros(steps, D)).detach()


@pytest.mark.parametrize("interpolate", [False, True])
def test_adds_the_same_vector_everywhere(interpolate):
    op = TemporalPositionalEncoding(D, LENGTH, interpolate)
    x = torch.randn(3, 2, LENGTH, D)
    place = dict(op.named_parameters())["table.embedding.weight"]
    assert place.shape == (LENGTH, D)
    close(op(x), x + place, 0.0)


def test_shorter_series_have_the_first_vectors():
    op = TemporalPositionalEncoding(D, LENGTH)
    same(vectors(op, 3), vectors(op, LENGTH)[:3])


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 23])
def test_interpolation_against_numpy(steps):
    """The centers of the steps lie in one interval, and the ends are continued flat."""
    op = TemporalPositionalEncoding(D, LENGTH, interpolate=True)
    known = (np.arange(LENGTH) + 0.5) / LENGTH
    wanted = (np.arange(steps) + 0.5) / steps
    table = vectors(op, LENGTH).double().numpy()
    expected = np.stack([np.interp(wanted, known, column) for column in table.T], 1)
    close(vectors(op, steps).double(), torch.from_numpy(expected), 1e-6)


def test_interpolation_learns():
    op = TemporalPositionalEncoding(D, LENGTH, interpolate=True)
    op(torch.randn(2, 9, D)).square().sum().backward()
    (parameter,) = op.parameters()
    assert (parameter.grad != 0).all()


def test_initialization():
    (parameter,) = TemporalPositionalEncoding(64, 200).parameters()
    assert parameter.std().item() == pytest.approx(0.02, rel=0.05)
    assert parameter.mean().item() == pytest.approx(0.0, abs=1e-3)


def test_keeps_the_type():
    op = TemporalPositionalEncoding(D, LENGTH, interpolate=True)
    for steps in (LENGTH, 7):
        x = torch.randn(2, steps, D, dtype=torch.bfloat16)
        assert op(x).dtype == torch.bfloat16


def test_too_long_a_series():
    with pytest.raises(ValueError, match=r"knows 5 steps, got a series of 6.*interpolate=True"):
        vectors(TemporalPositionalEncoding(D, LENGTH), 6)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        TemporalPositionalEncoding(D, 0)


def test_module_laws():
    op, x = TemporalPositionalEncoding(D, LENGTH), torch.randn(2, LENGTH, D)
    copies_are_equal(op, lambda o: o(x))
    inputs_stay_untouched(op, x)
    before = vectors(op, LENGTH)
    op.reset_parameters()
    assert not torch.equal(vectors(op, LENGTH), before)
    assert str(op) == "TemporalPositionalEncoding(6, max_len=5, interpolate=False)"
