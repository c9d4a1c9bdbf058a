import copy

import numpy as np
import pytest
import torch

from pyg_stmamba.nn.transformer import fourier_modes
from pyg_stmamba.nn.transformer.fourier_modes import FourierModes
from tests.laws import close, same

LENGTHS = [1, 2, 3, 8, 9, 12, 31, 96, 97]


@pytest.fixture(params=["by product", "by fft"])
def way(request, monkeypatch):
    monkeypatch.setattr(fourier_modes, "FEW", 1000 if request.param == "by product" else 0)
    return request.param


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("mode_select", ["low", "random"])
@pytest.mark.parametrize("modes", [1, 5, 64])
@pytest.mark.usefixtures("way")
def test_against_numpy(length, mode_select, modes):
    op = FourierModes(modes, mode_select)
    x = torch.randn(2, 3, length, 4, dtype=torch.float64)
    kept = op.index(length).numpy()
    coefficients = op.analyze(x)
    expected = np.fft.rfft(x.numpy(), axis=-2, norm="ortho")[..., kept, :]
    close(coefficients, torch.from_numpy(expected), 1e-12)
    close(op.analyze(x.float()), torch.from_numpy(expected).to(torch.complex64), 1e-5)

    spectrum = torch.randn(2, 3, len(kept), 4, dtype=torch.complex128)
    padded = np.zeros((2, 3, length // 2 + 1, 4), complex)
    padded[..., kept, :] = spectrum.numpy()
    expected = torch.from_numpy(np.fft.irfft(padded, n=length, axis=-2, norm="ortho"))
    close(op.synthesize(spectrum, length), expected, 1e-12)
    close(op.synthesize(spectrum.to(torch.complex64), length), expected.float(), 1e-5)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.usefixtures("way")
def test_all_modes_lose_nothing(length):
    x = torch.randn(3, length, 2, dtype=torch.float64)
    op = FourierModes(64)
    close(op.synthesize(op.analyze(x), length), x, 1e-12)


def test_long_series_by_both_ways(monkeypatch):
    op, x = FourierModes(32, "random"), torch.randn(2, 4099, 3)
    product = op.analyze(x), op.synthesize(op.analyze(x), 4099)
    monkeypatch.setattr(fourier_modes, "FEW", 0)
    close(product[0], op.analyze(x), 1e-5)
    close(product[1], op.synthesize(op.analyze(x), 4099), 1e-5)


@pytest.mark.parametrize("modes", [1, 3, 32])
@pytest.mark.parametrize("length", [*LENGTHS, 100_000])
def test_selection(modes, length):
    bins = length // 2 + 1
    low, drawn = FourierModes(modes).index(length), FourierModes(modes, "random").index(length)
    assert low.tolist() == list(range(min(modes, bins)))
    assert len(drawn) == len(low)
    assert drawn.min() >= 0
    assert drawn.max() < bins
    assert (drawn.diff() > 0).all()


def test_random_modes_are_drawn_from_all():
    drawn = torch.cat([FourierModes(4, "random").index(40) for _ in range(500)])
    count = drawn.bincount(minlength=21)
    assert len(count) == 21
    # About the 2000 / 21 = 95 of a uniform choice, somewhat more at both ends.
    assert (count > 60).all()
    assert (count < 160).all()


def test_random_modes_are_drawn_once():
    op = FourierModes(4, "random")
    first = op.index(500)
    torch.randn(3)
    for moved in (op.train(), op.eval(), copy.deepcopy(op), copy.deepcopy(op).half().double()):
        same(moved.index(500), first)
    other = FourierModes(4, "random")
    assert not torch.equal(other.index(500), first)
    other.load_state_dict(op.state_dict())
    same(other.index(500), first)
    op.reset_parameters()
    assert not torch.equal(op.index(500), first)
    assert list(FourierModes(4).state_dict()) == []


def test_random_modes_follow_the_seed():
    torch.manual_seed(7)
    first = FourierModes(4, "random").index(500)
    torch.manual_seed(7)
    same(FourierModes(4, "random").index(500), first)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.usefixtures("way")
def test_half_precision_counts_in_single(dtype):
    op, x = FourierModes(32), torch.randn(2, 12, 4, dtype=dtype)
    expected = op.analyze(x.float())
    same(op.analyze(x), expected)
    with torch.autocast("cpu", dtype):
        same(op.analyze(x.float()), expected)
        y = op.synthesize(expected, 12)
    assert y.dtype == torch.float32
    close(y, x.float(), 1e-6)


def test_bad_options():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        FourierModes(0)
    with pytest.raises(ValueError, match=r"'high'.*'low' or 'random'"):
        FourierModes(4, "high")


def test_repr():
    assert str(FourierModes(4, "random")) == "FourierModes(4, mode_select='random')"
