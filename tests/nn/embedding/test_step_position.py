import numpy as np
import pytest
import torch

from pyg_stmamba.nn.embedding.step_position import StepPosition
from tests.laws import close, same


@pytest.mark.parametrize("channels", [6, 7, 1])
def test_waves(channels):
    like = torch.empty(0)
    waves = StepPosition(channels, "sinusoidal")(3, 5, like)
    expected = np.zeros((5, channels))
    for t in range(5):
        for c in range(channels):
            phase = (3 + t) / 10000 ** ((c - c % 2) / channels)
            expected[t, c] = np.cos(phase) if c % 2 else np.sin(phase)
    np.testing.assert_allclose(waves, expected, atol=1e-6)


def test_waves_of_late_steps_are_exact():
    """In float32 the phase itself would be off by a hundredth."""
    (wave,) = StepPosition(8, "sinusoidal")(10_000_001, 1, torch.empty(0))
    for i in range(4):
        assert wave[2 * i].item() == pytest.approx(np.sin(10_000_001 / 10**i), abs=1e-6)


def test_learned():
    op = StepPosition(6, max_length=8)
    same(op(2, 3, torch.empty(0)), op.weight[2:5])
    assert op.weight.shape == (8, 6)
    op(5, 3, torch.empty(0)).sum().backward()
    assert (op.weight.grad[5:] == 1).all()
    assert (op.weight.grad[:5] == 0).all()
    with pytest.raises(ValueError, match=r"8 learned positions.*9 steps.*max_length.*sinusoidal"):
        op(6, 3, torch.empty(0))


def test_initialization():
    op = StepPosition(64)
    before = op.weight.detach().clone()
    assert before.std().item() == pytest.approx(0.02, rel=0.05)
    op.reset_parameters()
    assert (op.weight != before).all()
    assert op.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_none_is_zero_and_has_no_limit():
    op = StepPosition(3, None, max_length=2)
    same(op(7, 4, torch.empty(0)), torch.zeros(4, 3))
    assert list(op.parameters()) == list(StepPosition(3, "sinusoidal").parameters()) == []


@pytest.mark.parametrize("kind", ["learned", "sinusoidal", None])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype(kind, dtype):
    op = StepPosition(4, kind)
    y = op(0, 5, torch.empty(0, dtype=dtype))
    assert y.dtype == dtype
    close(y.float(), op(0, 5, torch.empty(0)), 1e-2)
    assert op(0, 0, torch.empty(0)).shape == (0, 4)


def test_bad_kind():
    with pytest.raises(ValueError, match=r"'rotary'.*'learned', 'sinusoidal' or None"):
        StepPosition(4, "rotary")


def test_repr():
    assert str(StepPosition(4, None)) == "StepPosition(4, kind=None)"
