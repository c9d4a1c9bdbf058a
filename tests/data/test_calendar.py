from datetime import datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_stmamba.data import as_seconds, day_of_week, time_of_day
from pyg_stmamba.data.calendar import check_increasing, grid_positions, step_of


@settings(deadline=None)
@given(st.integers(-2_000_000_000, 4_000_000_000))
def test_agrees_with_datetime(seconds):
    moment = datetime(1970, 1, 1) + timedelta(seconds=seconds)
    passed = moment.hour * 3600 + moment.minute * 60 + moment.second
    stamp = torch.tensor([[seconds]])
    assert float(time_of_day(stamp)) == np.float32(passed / 86400)
    assert int(day_of_week(stamp)) == moment.weekday()


def test_shapes_types_and_range():
    stamps = torch.arange(-86400, 86400).view(2, -1)
    assert time_of_day(stamps).shape == day_of_week(stamps).shape == stamps.shape
    assert time_of_day(stamps).dtype == torch.float32
    assert day_of_week(stamps).dtype == torch.int64
    assert 0 <= float(time_of_day(stamps).min()) <= float(time_of_day(stamps).max()) < 1


def test_time_of_day_after_twelve_missing_steps():
    # As in PEMS-BAY, where an hour is absent when the clocks go forward.
    index = pd.date_range("2017-03-11", "2017-03-13", freq="5min")
    index = index[(index < "2017-03-12 02:00") | (index >= "2017-03-12 03:00")]
    stamps = torch.from_numpy(as_seconds(index))
    expected = (index.hour * 3600 + index.minute * 60) / 86400
    assert np.allclose(time_of_day(stamps), expected, atol=1e-7)
    assert np.array_equal(day_of_week(stamps), index.day_of_week)
    by_counting = (np.arange(len(index)) % 288) / 288
    assert not np.allclose(time_of_day(stamps), by_counting)


def test_as_seconds_of_every_type():
    index = pd.date_range("2012-03-01 23:55", periods=5, freq="5min")
    expected = (index.to_numpy().astype("datetime64[s]")).astype(np.int64)
    given_as = [
        expected,
        expected.astype(np.float64),
        torch.from_numpy(expected),
        index,
        index.to_numpy(),
        index.to_numpy().astype("datetime64[ns]"),
        list(index.to_pydatetime()),
        [str(stamp) for stamp in index],
        np.array([stamp.isoformat() + "Z" for stamp in index]),
        [stamp.replace(tzinfo=timezone.utc) for stamp in index.to_pydatetime()],
    ]
    for stamps in given_as:
        assert np.array_equal(as_seconds(stamps), expected)
        assert as_seconds(stamps).dtype == np.int64


def test_as_seconds_does_not_share_memory():
    stamps = np.arange(3)
    as_seconds(stamps)[0] = 99
    assert stamps[0] == 0


@pytest.mark.parametrize(
    ("stamps", "message"),
    [
        (np.arange(4).reshape(2, 2), r"one-dimensional \[T\], got shape \(2, 2\)"),
        (np.array(["2012-03-01", "NaT"], "datetime64[s]"), "1 NaT"),
        (np.array(["2012-03-01T00:00:00.5"], "datetime64[ms]"), "whole seconds"),
        (np.array([0.5, 1.5]), "integers"),
        (np.array([True, False]), "integers"),
        (["yesterday"], "ISO dates .* got 'yesterday'"),
        ([None], "got NoneType"),
        (np.array([1330560000000]), "milliseconds or nanoseconds"),
    ],
)
def test_as_seconds_refuses(stamps, message):
    with pytest.raises(ValueError, match=message):
        as_seconds(stamps)


def test_disorder_is_refused():
    with pytest.raises(ValueError, match=r"step 2 \(1970-01-01 00:05:00\) does not come after"):
        check_increasing(np.array([0, 300, 300, 900]))
    with pytest.raises(ValueError, match="2 such place"):
        check_increasing(np.array([0, 600, 300, 900, 100]))
    check_increasing(np.array([5]))


def test_step_is_the_median_and_never_between_two():
    assert step_of([0, 300, 600, 5000]) == 300
    assert step_of(np.array([0, 300, 900])) == 300


def test_grid_positions():
    assert grid_positions(np.array([7])).tolist() == [0]
    assert grid_positions(np.array([100, 400, 700, 1600])).tolist() == [0, 1, 2, 5]
    with pytest.raises(ValueError, match=r"median step is 300 s .* step 3 is at 1970-01-01 00:18"):
        grid_positions(np.array([0, 300, 600, 1080]))
    with pytest.raises(ValueError, match="gaps='keep'"):
        grid_positions(np.array([0, 1, 2, 1_000_000]))


@settings(deadline=None)
@given(st.sets(st.integers(0, 60), min_size=30), st.integers(1, 900))
def test_grid_positions_undo_a_regular_series_with_holes(kept, step):
    kept = np.array(sorted(kept))
    if np.median(np.diff(kept)) == 1:
        assert np.array_equal(grid_positions(1000 + step * kept), kept - kept[0])
