import numpy as np
import pytest
import torch
from matplotlib import mlab
from scipy import signal

from pyg_stmamba.nn.embedding import power_spectrum
from pyg_stmamba.nn.embedding.power_spectrum import segment_length
from tests.laws import close, inputs_stay_untouched, same


def by_fourier_sums(y, dt, nperseg, window, detrend):
    """The definition, segment by segment and frequency by frequency."""
    y = y.numpy().astype(np.float64)
    n = np.arange(nperseg)
    taper = signal.get_window(window, nperseg)
    step = nperseg - nperseg // 2
    total, count = 0, 0
    for start in range(0, len(y) - nperseg + 1, step):
        segment = y[start : start + nperseg]
        if detrend == "constant":
            segment = segment - segment.mean()
        if detrend == "linear":
            segment = segment - np.polyval(np.polyfit(n, segment, 1), n)
        waves = np.exp(-2j * np.pi * np.outer(np.arange(nperseg // 2 + 1), n) / nperseg)
        total = total + np.abs(waves @ (taper * segment)) ** 2
        count += 1
    density = total / count * dt / np.square(taper).sum()
    last = None if nperseg % 2 else -1
    density[1:last] *= 2
    return np.arange(nperseg // 2 + 1) / (nperseg * dt), density


@pytest.mark.parametrize("nperseg", [16, 31, 100])
@pytest.mark.parametrize("window", ["hann", "hamming", "blackman", "boxcar"])
@pytest.mark.parametrize("detrend", ["constant", "linear", None])
def test_against_fourier_sums(nperseg, window, detrend):
    y = torch.randn(100, dtype=torch.float64).cumsum(0) + 5
    frequencies, density = power_spectrum(y, 0.1, nperseg, window, detrend)
    expected_frequencies, expected = by_fourier_sums(y, 0.1, nperseg, window, detrend)
    np.testing.assert_allclose(frequencies, expected_frequencies, rtol=1e-12)
    # Where the trend is taken away, what is left at frequency zero is rounding.
    np.testing.assert_allclose(density, expected, rtol=1e-10, atol=1e-10 * expected.max())


def test_against_matplotlib():
    y = torch.randn(500, dtype=torch.float64)
    frequencies, density = power_spectrum(y, 0.01, 128)
    expected, expected_frequencies = mlab.psd(
        y.numpy(),
        NFFT=128,
        Fs=100,
        detrend=mlab.detrend_mean,
        window=signal.get_window("hann", 128),
        noverlap=64,
    )
    np.testing.assert_allclose(frequencies, expected_frequencies, rtol=1e-12)
    np.testing.assert_allclose(density[1:], expected[1:], rtol=1e-10)


@pytest.mark.parametrize("num_samples", [8, 15, 16, 63, 300])
def test_against_scipy_at_the_defaults(num_samples):
    y = torch.randn(num_samples, 3, dtype=torch.float64)
    nperseg = min(num_samples, max(16, 2 ** int(np.floor(np.log2(num_samples / 4)))))
    frequencies, density = power_spectrum(y)
    expected_frequencies, expected = signal.welch(
        y.numpy(), 1.0, "hann", nperseg, nperseg // 2, axis=0, detrend="constant"
    )
    np.testing.assert_allclose(frequencies, expected_frequencies, rtol=1e-12)
    np.testing.assert_allclose(density, expected, rtol=1e-10, atol=1e-30)


def test_power_is_the_variance():
    """Parseval: the density of one untapered segment integrates to the variance."""
    y = torch.randn(64, 5, dtype=torch.float64)
    frequencies, density = power_spectrum(y, 0.25, 64, "boxcar")
    close(density.sum(0) * frequencies[1], y.var(0, correction=0), 1e-12)


def test_each_series_on_its_own():
    y = torch.randn(40, 2, 3)
    _, density = power_spectrum(y)
    assert density.shape == (9, 2, 3)
    assert density.dtype == torch.float64
    for i in range(2):
        for j in range(3):
            same(density[:, i, j], power_spectrum(y[:, i, j].contiguous())[1])


def test_inputs_stay_untouched():
    inputs_stay_untouched(lambda y: power_spectrum(y)[1], torch.randn(40, 2))


def test_segment_length():
    lengths = [segment_length(n) for n in (8, 16, 17, 127, 128, 255, 256, 6084, 2**20)]
    assert lengths == [8, 16, 16, 16, 32, 32, 64, 1024, 2**18]


def test_bad_options():
    y = torch.randn(40)
    for dt in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="dt must be positive and finite"):
            power_spectrum(y, dt)
    with pytest.raises(ValueError, match="nperseg must be at least 8, got 7"):
        power_spectrum(y, nperseg=7)
    with pytest.raises(ValueError, match=r"nperseg \(41\) must not exceed the 40 samples"):
        power_spectrum(y, nperseg=41)
    with pytest.raises(ValueError, match=r"unknown window 'flat'.*'hann', 'hamming'"):
        power_spectrum(y, window="flat")
    with pytest.raises(ValueError, match=r"unknown detrend 'mean'.*'constant', 'linear', None"):
        power_spectrum(y, detrend="mean")
    with pytest.raises(ValueError, match="at least 8 samples, got 7"):
        power_spectrum(y[:7])
