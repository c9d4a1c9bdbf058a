from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter1d

from pyg_stmamba.nn.decomposition import MovingAvg, SeriesDecomposition
from tests import laws
from tests.laws import close, same

KERNELS = [1, 2, 3, 4, 5, 6, 25, 40]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", KERNELS)
def test_moving_average_equals_scipy(kernel_size, stride, causal):
    x = torch.randn(2, 3, 30, 4, dtype=torch.float64) + 100
    origin = (kernel_size - 1) // 2 if causal else 0
    expected = uniform_filter1d(x.numpy(), kernel_size, axis=-2, mode="nearest", origin=origin)
    average = MovingAvg(kernel_size, stride, causal)(x)
    np.testing.assert_allclose(average, expected[..., ::stride, :], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 25])
def test_decomposition_equals_hugging_face(kernel_size):
    autoformer = pytest.importorskip("transformers.models.autoformer.modeling_autoformer")
    config = SimpleNamespace(moving_average=kernel_size)
    peer = autoformer.AutoformerSeriesDecompositionLayer(config)
    x = torch.randn(2, 30, 4, dtype=torch.float64)
    for part, expected in zip(SeriesDecomposition(kernel_size)(x), peer(x), strict=True):
        close(part, expected, 1e-12)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kernel_size", KERNELS)
def test_the_parts_add_up_to_the_series(kernel_size, causal):
    x = torch.randn(2, 30, 4)
    seasonal, trend = SeriesDecomposition(kernel_size, causal)(x)
    assert seasonal.shape == trend.shape == x.shape
    assert (seasonal + trend - x).abs().max() <= torch.finfo(x.dtype).eps * x.abs().max()
    same(trend, MovingAvg(kernel_size, causal=causal)(x))


def test_a_line_is_its_own_trend_away_from_its_ends():
    x = torch.arange(30.0)[:, None].expand(30, 2)
    seasonal, _ = SeriesDecomposition(5)(x)
    assert seasonal[2:-2].abs().max() < 1e-5
    assert (seasonal[0] < 0).all()
    assert (seasonal[-1] > 0).all()


@pytest.mark.parametrize("kernel_size", [2, 5, 40])
def test_the_future_moves_only_what_is_not_causal(kernel_size):
    x, later = torch.randn(2, 12, 3), torch.randn(2, 4, 3)
    changed = torch.cat([x[:, :8], later], dim=1)
    for causal in (True, False):
        average = MovingAvg(kernel_size, causal=causal)
        assert torch.equal(average(changed)[:, :8], average(x)[:, :8]) == (
            causal or kernel_size == 2
        )


def test_channels_and_rows_do_not_mix():
    x, average = torch.randn(3, 12, 4), MovingAvg(5)
    other = x.clone()
    other[0, :, 1] = float("nan")
    kept = torch.ones(3, 4, dtype=torch.bool)
    kept[0, 1] = False
    same(average(other).transpose(1, 2)[kept], average(x).transpose(1, 2)[kept])


@pytest.mark.parametrize("causal", [False, True])
def test_gradcheck(causal):
    x = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(SeriesDecomposition(4, causal), (x,))
    assert torch.autograd.gradgradcheck(MovingAvg(3, 2, causal), (x,))


def test_half_precision_and_empty_batches():
    x = torch.randn(2, 30, 4)
    average = MovingAvg(25)(x.bfloat16())
    assert average.dtype == torch.bfloat16
    close(average.float(), MovingAvg(25)(x.bfloat16().float()), 1e-2)
    assert MovingAvg(4, 2)(x[:0]).shape == (0, 15, 4)


@pytest.mark.parametrize("module", [MovingAvg(4), MovingAvg(5, 2, causal=True)])
def test_laws_of_every_module(module):
    x = torch.randn(2, 5, 9, 3)
    laws.copies_are_equal(module, lambda copy: copy(x))
    laws.inputs_stay_untouched(module, x.requires_grad_())
    laws.layout_does_not_matter(module, x.detach())
    laws.copies_are_equal(SeriesDecomposition(4), lambda copy: copy(x.detach())[0])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="at least 1, got 0 and 1"):
        MovingAvg(0)
    with pytest.raises(ValueError, match="at least 1, got 3 and 0"):
        MovingAvg(3, 0)
    with pytest.raises(ValueError, match=r"\[\.\.\., L, C\].* got \(2, 0, 3\)"):
        MovingAvg(3)(torch.randn(2, 0, 3))
    with pytest.raises(ValueError, match=r"got \(7,\)"):
        MovingAvg(3)(torch.randn(7))
    assert str(MovingAvg(3, 2)) == "MovingAvg(3, stride=2, causal=False)"
    assert str(SeriesDecomposition(3, True)) == "SeriesDecomposition(3, causal=True)"
