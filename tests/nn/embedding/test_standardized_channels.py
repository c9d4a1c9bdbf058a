import numpy as np
import pytest
import torch
from scipy import stats

from pyg_stmamba.nn.embedding.standardized_channels import standardized_channels

NAN = float("nan")


def test_against_scipy():
    y = 5 + 3 * torch.randn(40, 3, dtype=torch.float64)
    np.testing.assert_allclose(standardized_channels(y), stats.zscore(y.numpy()), atol=1e-12)
    series = standardized_channels(y.float())
    assert series.dtype == np.float64
    np.testing.assert_allclose(series, stats.zscore(y.float().double().numpy()), atol=1e-12)


def test_each_series_of_a_batch_is_a_channel():
    y = torch.randn(2, 40, 3)
    expected = np.concatenate([standardized_channels(y[0]), standardized_channels(y[1])], axis=1)
    np.testing.assert_array_equal(standardized_channels(y), expected)


def test_gaps_are_bridged_by_lines():
    y = torch.arange(40.0).unsqueeze(1) ** 2
    missing = torch.zeros(40, 1, dtype=torch.bool)
    missing[:3] = missing[10:13] = missing[38:] = True
    filled = y.clone()
    filled[:3], filled[38:] = 9.0, 37.0**2
    filled[10:13, 0] = 81 + (169 - 81) * torch.tensor([0.25, 0.5, 0.75])
    expected = standardized_channels(filled)
    np.testing.assert_allclose(standardized_channels(y.masked_fill(missing, NAN)), expected)
    for junk in (1e9, NAN, float("inf")):
        series = standardized_channels(y.masked_fill(missing, junk), ~missing)
        np.testing.assert_allclose(series, expected)


def test_channels_without_information_are_left_out():
    y = torch.randn(40, 2)
    constant = torch.tensor([0.0, 0.1, 300.0]).expand(40, 3)
    rounded = (300 + 1e-5 * torch.randn(40, 1)).clamp(max=300.00001)  # one float32 or the next
    half, most = torch.randn(40, 1), torch.randn(40, 1)
    half[:20] = NAN
    most[:21] = NAN
    series = standardized_channels(torch.cat([constant, y[:, :1], most, rounded, y[:, 1:]], 1))
    np.testing.assert_array_equal(series, standardized_channels(y))
    assert standardized_channels(torch.cat([y, half], 1)).shape == (40, 3)


def test_small_units_are_no_rounding():
    y = torch.randn(40, 2, dtype=torch.float64)
    np.testing.assert_allclose(standardized_channels(1e-12 * y), standardized_channels(y))


def test_bad_data():
    y = torch.randn(40, 2)
    for bad in (y[0], y[None, None]):
        with pytest.raises(ValueError, match=r"y must be \[T, N\] or \[B, T, N\]"):
            standardized_channels(bad)
    for mask in (torch.ones(40, 2), torch.ones(40, 1, dtype=torch.bool)):
        with pytest.raises(ValueError, match="observed_mask must be boolean"):
            standardized_channels(y, mask)
    with pytest.raises(ValueError, match="infinity"):
        standardized_channels(y.masked_fill(y > 1, float("inf")))
    for short in (0, 7):
        with pytest.raises(ValueError, match=f"at least 8 rows, got {short}"):
            standardized_channels(y[:short])
    for nothing in (torch.ones(40, 2), torch.full((40, 2), NAN), y[:, :0]):
        with pytest.raises(ValueError, match=r"none of the \d channel\(s\) varies"):
            standardized_channels(nothing)
