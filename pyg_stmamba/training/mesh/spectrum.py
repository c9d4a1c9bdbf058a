from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.signal import detrend, periodogram

# Fewer periods in a record than this say more about the record than about the flow.
LEAST_PERIODS = 2.0


class PhaseLag(NamedTuple):
    r"""How far one signal comes behind another.

    Args:
        seconds (float): By how much the prediction is late, negative where it is early.
        periods (float): The same in periods of the truth, about -0.5 to 0.5.
        correlation (float): The correlation of the two once the lag is undone, at most 1.
    """

    seconds: float
    periods: float
    correlation: float


def dominant_frequency(signal: np.ndarray, time_step: float) -> float:
    r"""Finds the frequency of largest power in the :func:`scipy.signal.periodogram` of a signal
    without its straight trend, under a Hann window; between the lines of the spectrum by a
    parabola through the logarithms of the highest line and its two neighbors.

    Args:
        signal (numpy.ndarray): The signal at equal steps of time.
        time_step (float): The time from one entry to the next.

    Returns:
        float: The frequency; not a number for a signal that is constant or a straight line, and
        for one whose peak lies below two periods in the record.

    Raises:
        ValueError: If the signal is not a finite :math:`(T)` with at least four entries, or
            :obj:`time_step` is not positive.
    """
    signal = _signal(signal, time_step)
    if _is_straight(signal):
        return float("nan")
    frequencies, power = periodogram(signal, 1 / time_step, "hann", detrend="linear")
    peak = int(np.argmax(power))
    if peak < LEAST_PERIODS:
        return float("nan")
    if peak + 1 == len(power):
        return float(frequencies[peak])
    logarithms = np.log(np.maximum(power[peak - 1 : peak + 2], np.finfo(np.float64).tiny))
    return float(frequencies[1] * (peak + _vertex(logarithms)[0]))


def phase_lag(prediction: np.ndarray, truth: np.ndarray, time_step: float) -> PhaseLag:
    r"""Finds by how much a predicted signal comes late: the shift at which what then overlaps of
    the two, without their straight trends, correlates best; between the steps by a parabola.

    A shift by a whole period cannot be told from none, so lags are sought up to half a period of
    the truth, either way.

    Args:
        prediction (numpy.ndarray): The predicted signal.
        truth (numpy.ndarray): The true signal at the same times.
        time_step (float): The time from one entry to the next.

    Returns:
        PhaseLag: The lag; not a number where the truth has no dominant frequency or the
        prediction is constant.

    Raises:
        ValueError: If the signals are not finite, of one length of at least four entries, or
            :obj:`time_step` is not positive.
    """
    prediction, truth = _signal(prediction, time_step), _signal(truth, time_step)
    if len(prediction) != len(truth):
        raise ValueError(
            f"prediction and truth must have one length, got {len(prediction)} and {len(truth)}"
        )
    frequency = dominant_frequency(truth, time_step)
    if not np.isfinite(frequency) or _is_straight(prediction):
        return PhaseLag(*[float("nan")] * 3)
    prediction, truth = detrend(prediction), detrend(truth)
    reach = int(0.5 / (frequency * time_step))
    # One more on either side, for the crest.
    shifts = np.arange(-reach - 1, reach + 2)
    likeness = np.array([_correlation(prediction, truth, int(shift)) for shift in shifts])
    best = 1 + int(np.argmax(likeness[1:-1]))
    beside, highest = _crest(likeness[best - 1 : best + 2])
    seconds = float((shifts[best] + beside) * time_step)
    return PhaseLag(seconds, seconds * frequency, min(highest, 1.0))


def _correlation(prediction: np.ndarray, truth: np.ndarray, shift: int) -> float:
    """Of the prediction from ``shift`` on with the truth that came ``shift`` steps before."""
    late = prediction[max(shift, 0) : len(prediction) + min(shift, 0)]
    early = truth[max(-shift, 0) : len(truth) - max(shift, 0)]
    size = np.sqrt((late @ late) * (early @ early))
    return float(late @ early / size) if size > 0 else 0.0


def _vertex(three: np.ndarray) -> tuple[float, float]:
    """Where the parabola through three neighbors peaks, seen from the one in the middle, and how
    high."""
    left, middle, right = (float(value) for value in three)
    bend = left - 2 * middle + right
    if bend >= 0:
        return 0.0, middle
    # At the edge of what is looked at, the peak may be further out.
    beside = min(max(0.5 * (left - right) / bend, -0.5), 0.5)
    return beside, middle - 0.25 * (left - right) * beside


def _crest(three: np.ndarray) -> tuple[float, float]:
    """Where the cosine through three neighbors peaks, seen from the one in the middle, and how
    high: exact for pure oscillations, of which a parabola cuts the crest off where there are few
    steps in a period."""
    left, middle, right = (float(value) for value in three)
    if middle <= 0 or abs(left + right) >= 2 * middle:
        return _vertex(three)
    turn = np.arccos((left + right) / (2 * middle))
    ahead = np.arctan((right - left) / (2 * middle * np.sin(turn)))
    # At the edge of what is looked at, the crest may be almost a step further out.
    beside = min(max(float(ahead / turn), -1.0), 1.0)
    return beside, float(middle / np.cos(ahead) * np.cos(turn * beside - ahead))


def _is_straight(signal: np.ndarray) -> bool:
    """Whether nothing but a straight trend is there, up to the rounding of float32."""
    return bool(np.ptp(detrend(signal)) <= 1e-6 * np.abs(signal).max())


def _signal(signal: np.ndarray, time_step: float) -> np.ndarray:
    signal = np.asarray(signal, dtype=np.float64)
    if signal.ndim != 1 or len(signal) < 4:
        raise ValueError(
            f"a signal must be [T] with at least 4 entries, got shape {list(signal.shape)}"
        )
    if not np.isfinite(signal).all():
        raise ValueError(f"the signal is not finite at entry {np.argmin(np.isfinite(signal))}")
    if not time_step > 0:
        raise ValueError(f"time_step must be positive, got {time_step}")
    return signal


class Oscillation(NamedTuple):
    r"""The oscillation of a signal, predicted and true.

    Args:
        frequency (float): The dominant frequency of the prediction.
        frequency_truth (float): That of the truth.
        lag (PhaseLag): By how much the prediction is late.
    """

    frequency: float
    frequency_truth: float
    lag: PhaseLag


def compare_oscillations(
    prediction: np.ndarray, truth: np.ndarray, time_step: float
) -> Oscillation:
    r"""Compares dominant frequency and phase of two signals.

    Args:
        prediction (numpy.ndarray): The predicted signal.
        truth (numpy.ndarray): The true signal at the same times.
        time_step (float): The time from one entry to the next.

    Shapes:
        - **input:** :math:`(T)` each
    """
    return Oscillation(
        dominant_frequency(prediction, time_step),
        dominant_frequency(truth, time_step),
        phase_lag(prediction, truth, time_step),
    )
