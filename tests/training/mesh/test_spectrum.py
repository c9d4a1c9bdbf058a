import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.signal import correlate, correlation_lags

from pyg_stmamba.training.mesh.spectrum import (
    compare_oscillations,
    dominant_frequency,
    phase_lag,
)

STEP = 0.01
TIME = STEP * np.arange(600)
RANDOM = np.random.default_rng(0)


def sine(frequency: float, lag: float = 0.0, time: np.ndarray = TIME) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * (time - lag))


@settings(deadline=None, max_examples=50)
@given(st.floats(1.0, 40.0), st.floats(0.0, 1.0), st.floats(-1e3, 1e3), st.floats(-10, 10))
def test_a_sine_has_its_frequency(frequency, phase, mean, slope):
    signal = mean + slope * TIME + sine(frequency, phase)
    # The lines of the spectrum are 1/6 apart.
    assert np.isclose(dominant_frequency(signal, STEP), frequency, atol=0.01)


def test_the_strongest_of_several_wins():
    signal = sine(2.0) + 1.5 * sine(7.3) + 0.5 * sine(11) + 0.3 * RANDOM.normal(size=600)
    assert np.isclose(dominant_frequency(signal, STEP), 7.3, atol=0.02)


def test_the_unit_of_time_counts():
    assert np.isclose(dominant_frequency(sine(3.0), 10 * STEP), 0.3, atol=1e-3)


def test_what_does_not_oscillate_has_no_frequency():
    for signal in (
        np.zeros(600),
        np.full(600, 3.7, dtype=np.float32),
        3 - 2 * TIME,
        TIME**2,
        np.exp(-TIME / 3),
        sine(1.2 / 6),
    ):
        assert np.isnan(dominant_frequency(signal, STEP))


def test_the_highest_frequency_there_is():
    assert np.isclose(dominant_frequency((-1.0) ** np.arange(600), STEP), 50)


@settings(deadline=None, max_examples=50)
@given(st.floats(1.5, 20.0), st.floats(-0.45, 0.45), st.floats(0.1, 10), st.floats(-5, 5))
@example(19.0, 0.09375, 1.0, 0.0)  # five steps a period, half a step late
@example(17.0, 0.4453125, 1.0, 0.0)  # the crest is beyond the last whole step of half a period
@example(17.0, -0.4453125, 1.0, 0.0)
def test_a_shift_is_found_in_seconds_and_periods(frequency, periods, gain, offset):
    late = offset + gain * sine(frequency, periods / frequency)
    lag = phase_lag(late + 5 * TIME, sine(frequency) - 3 * TIME, STEP)
    assert np.isclose(lag.periods, periods, atol=0.02)
    assert np.isclose(lag.seconds, periods / frequency, atol=0.02 / frequency)
    assert 0.96 < lag.correlation <= 1


def test_agrees_with_the_cross_correlation_of_scipy():
    # A burst that is 0 at both ends, so that what overlaps is all there is.
    burst = np.exp(-(((TIME - 3) / 0.7) ** 2))
    truth = burst * sine(3.0) + 0.01 * RANDOM.normal(size=600)
    for steps in (-14, -3, 0, 5, 12):
        prediction = np.roll(truth, steps) + 0.01 * RANDOM.normal(size=600)
        likeness = correlate(prediction, truth)
        wanted = correlation_lags(600, 600)[np.argmax(likeness)]
        assert wanted == steps
        assert np.isclose(phase_lag(prediction, truth, STEP).seconds, STEP * steps, atol=STEP / 2)


def test_a_lag_between_two_steps():
    lag = phase_lag(sine(3.0, 0.0137), sine(3.0), STEP)
    assert np.isclose(lag.seconds, 0.0137, atol=2e-4)


def test_a_mean_or_amplitude_that_differs_is_no_lag():
    lag = phase_lag(100 + 0.2 * sine(3.0), sine(3.0), STEP)
    assert abs(lag.seconds) < 1e-3
    assert np.isclose(lag.correlation, 1)


def test_no_lag_without_an_oscillation():
    assert np.isnan(phase_lag(np.ones(600), sine(3.0), STEP)).all()
    assert np.isnan(phase_lag(sine(3.0), np.ones(600), STEP)).all()


def test_both_at_once():
    found = compare_oscillations(sine(3.1), sine(3.0), STEP)
    assert np.isclose(found.frequency, 3.1, atol=0.01)
    assert np.isclose(found.frequency_truth, 3.0, atol=0.01)
    # Faster by 0.1 Hz over 6 s is 0.6 periods at the end, 0.3 on average, early.
    assert np.isclose(found.lag.periods, -0.3, atol=0.05)


def test_bad_input():
    with pytest.raises(ValueError, match=r"\[T\] with at least 4 entries, got shape \[3\]"):
        dominant_frequency(np.ones(3), STEP)
    with pytest.raises(ValueError, match=r"got shape \[4, 2\]"):
        dominant_frequency(np.ones((4, 2)), STEP)
    with pytest.raises(ValueError, match="not finite at entry 5"):
        dominant_frequency(np.where(np.arange(9) == 5, np.nan, 1.0), STEP)
    with pytest.raises(ValueError, match="time_step must be positive, got 0"):
        dominant_frequency(TIME, 0)
    with pytest.raises(ValueError, match="one length, got 600 and 599"):
        phase_lag(TIME, TIME[1:], STEP)
