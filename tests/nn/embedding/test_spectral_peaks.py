import numpy as np
import pytest

from pyg_stmamba.nn.embedding.spectral_peaks import (
    least_squares_frequency,
    parabolic_offset,
    strongest_peaks,
)


def peaks_by_definition(power: np.ndarray, num_peaks: int, min_separation: int) -> list[int]:
    inner = range(2, len(power) - 1)
    peaks = [i for i in inner if power[i] > power[i - 1] and power[i] > power[i + 1]]
    kept: list[int] = []
    for i in sorted(peaks, key=lambda i: -power[i]):
        if all(abs(i - j) >= min_separation for j in kept):
            kept.append(i)
    return sorted(kept[:num_peaks])


@pytest.mark.parametrize("min_separation", [1, 2, 3, 5])
@pytest.mark.parametrize("num_peaks", [1, 3, 100])
def test_peaks_by_definition(min_separation, num_peaks):
    random = np.random.default_rng(0)
    for _ in range(50):
        power = random.random(40)
        found = strongest_peaks(power, num_peaks, min_separation)
        assert found.tolist() == peaks_by_definition(power, num_peaks, min_separation)


def test_a_strong_peak_counts_once():
    """The bins beside it hold more power than the next peak, but are no peaks."""
    power = np.array([0, 0, 1, 80, 100, 70, 1, 0, 2, 5, 3, 0.0])
    assert strongest_peaks(power, 2, 2).tolist() == [4, 9]


def test_neither_the_mean_nor_a_trend_is_a_peak():
    fading = 1 / np.arange(1, 12) ** 2
    assert strongest_peaks(np.append(0.0, fading), 3, 2).tolist() == []
    assert strongest_peaks(np.append(10.0, fading), 3, 2).tolist() == []


def test_the_ends_and_plateaus_are_no_peaks():
    assert strongest_peaks(np.array([0, 0, 1, 1, 0, 0, 1.0]), 3, 2).tolist() == []


def test_rounding_is_no_peak():
    power = np.array([0, 0, 1, 2, 1, 0, 1e-15, 0, 1e-13, 0.0])
    assert strongest_peaks(power, 3, 2).tolist() == [3, 8]


def test_parabola_through_logarithms_is_exact_for_a_bell():
    bins = np.arange(40)
    for center in (12.0, 12.3, 11.6):
        power = np.exp(-((bins - center) ** 2) / 3)
        offset = parabolic_offset(power, np.array([12]))
        np.testing.assert_allclose(offset, [center - 12], atol=1e-12)


def test_parabola_beside_silence():
    offset = parabolic_offset(np.array([0, 0, 1, 0, 0.0]), np.array([2]))
    np.testing.assert_allclose(offset, [0], atol=1e-12)


def test_least_squares_finds_a_lone_wave_exactly():
    time = 0.1 * np.arange(501)
    for frequency in (0.411, 0.45, 0.489):
        angle = 2 * np.pi * frequency * time[:, None] + np.array([0.3, 2.0, 4.0])
        found = least_squares_frequency(np.sin(angle) + [5, -1, 0], 0.1, 0.4, 0.5)
        assert found == pytest.approx(frequency, abs=1e-6)


def test_least_squares_counts_the_series_together():
    """Opposite phases add up, and what stands out in the sum wins over what is in one series."""
    time = np.arange(400)
    wave = np.sin(2 * np.pi * 0.1007 * time)
    other = 1.2 * np.sin(2 * np.pi * 0.1201 * time)
    y = np.stack([wave, -wave, other], axis=1)
    assert least_squares_frequency(y, 1.0, 0.09, 0.13) == pytest.approx(0.1007, abs=2e-4)
