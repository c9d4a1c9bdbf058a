import numpy as np
import pytest

from pyg_stmamba.visualization.forecast_lines import (
    Line,
    cut,
    fullest_days,
    lines_by_clock,
    lines_by_window,
    windows_overlap,
    with_gaps,
)

STEP, HORIZON, DAY = 300, 12, 86400


def windows(series: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.stack([series[start : start + HORIZON] for start in starts])


@pytest.mark.parametrize("stride", [1, 5, 12])
def test_overlapping_windows_give_the_series_back(stride: int) -> None:
    series = np.random.default_rng(0).normal(size=100)
    series[40:47] = np.nan
    starts = np.arange(0, 100 - HORIZON + 1, stride)
    truth = windows(series, starts)
    covered = starts[-1] + HORIZON
    lines = lines_by_clock(truth + 100, truth, starts * STEP, STEP, horizon=4)
    np.testing.assert_array_equal(lines.observed.where, np.arange(covered) * STEP)
    np.testing.assert_array_equal(lines.observed.values, series[:covered])
    np.testing.assert_array_equal(lines.forecast.where, (starts + 3) * STEP)
    np.testing.assert_array_equal(lines.forecast.values, series[starts + 3] + 100)


def test_the_order_of_windows_does_not_matter() -> None:
    series = np.arange(60.0)
    starts = np.arange(40)
    truth = windows(series, starts)
    shuffled = np.random.default_rng(1).permutation(40)
    first = lines_by_clock(-truth, truth, starts * STEP, STEP, 12)
    second = lines_by_clock(-truth[shuffled], truth[shuffled], starts[shuffled] * STEP, STEP, 12)
    for one, other in zip(first, second):
        np.testing.assert_array_equal(one.where, other.where)
        np.testing.assert_array_equal(one.values, other.values)


def test_an_observed_copy_of_an_instant_wins() -> None:
    truth = np.array([[1.0, np.nan], [2.0, 3.0]])
    lines = lines_by_clock(truth, truth, np.array([0, STEP]), STEP, 1)
    np.testing.assert_array_equal(lines.observed.values, [1, 2, 3])


def test_windows_far_apart_are_drawn_whole() -> None:
    series = np.arange(100.0)
    starts = np.array([0, 30, 60])
    truth = windows(series, starts)
    assert not windows_overlap(starts * STEP, STEP, HORIZON)
    assert windows_overlap(np.arange(3) * STEP, STEP, HORIZON)
    lines = lines_by_clock(-truth, truth, starts * STEP, STEP, 4)
    for line, sign in zip(lines, (1, -1)):
        gaps = np.isnan(line.values)
        assert gaps.sum() == 2
        np.testing.assert_array_equal(line.values[~gaps], sign * truth.ravel())
        assert gaps[[12, 25]].all()


def test_with_gaps_breaks_long_jumps_only() -> None:
    line = with_gaps(np.array([0, 10, 20, 50, 60]), np.arange(5.0), 10)
    np.testing.assert_array_equal(line.values, [0, 1, 2, np.nan, 3, 4])
    assert (np.diff(line.where) > 0).all()


def test_lines_by_window_takes_the_first_ones() -> None:
    truth = np.random.default_rng(0).normal(size=(20, HORIZON))
    lines = lines_by_window(truth * 2, truth, 5, most=7)
    np.testing.assert_array_equal(lines.observed.values, truth[:7, 4])
    np.testing.assert_array_equal(lines.forecast.values, 2 * truth[:7, 4])
    np.testing.assert_array_equal(lines.forecast.where, np.arange(7))


def test_fullest_days_begin_at_midnight_and_avoid_gaps() -> None:
    where = np.arange(7 * 3600, 12 * DAY, STEP)
    values = np.ones(len(where))
    values[(where > 2.5 * DAY) & (where < 4.2 * DAY)] = np.nan
    first, last = fullest_days([Line(where, values)], 3)
    assert (first, last) == (5 * DAY, 8 * DAY)
    assert fullest_days([Line(where, np.ones(len(where)))], 3) == (DAY, 4 * DAY)


def test_a_short_record_is_shown_from_its_beginning() -> None:
    where = np.arange(7 * 3600, 8 * 3600, STEP)
    assert fullest_days([Line(where, where * 1.0)], 3) == (where[0], where[-1])


def test_cut() -> None:
    line = cut(Line(np.arange(10), np.arange(10.0)), 2, 4)
    np.testing.assert_array_equal(line.values, [2, 3, 4])
