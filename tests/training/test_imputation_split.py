import numpy as np
import pandas as pd
import pytest
import torch

from pyg_stmamba.data import TemporalGraph
from pyg_stmamba.training.imputation_split import split_months, split_time, starts_within


@pytest.fixture(scope="module")
def year() -> TemporalGraph:
    """A year of hours, as in AQI-36."""
    stamps = np.datetime64("2014-05-01T01", "h") + np.arange(8759)
    return TemporalGraph.from_arrays(np.ones((8759, 1)), timestamps=stamps)


def test_months_are_those_of_the_calendar(year):
    split = split_months(year, (3, 6, 9, 12))
    months = pd.to_datetime(year.timestamps[0].numpy(), unit="s").month
    assert torch.equal(split.test, torch.as_tensor(months.isin([3, 6, 9, 12])))
    assert torch.equal(split.train | split.val, ~split.test)
    assert not (split.train & split.val).any()
    # June, September, December with 30, 30, 31 days, and March with 31.
    assert int(split.test.sum()) == 24 * 122


def test_the_last_tenth_of_each_stretch_validates(year):
    split = split_months(year, val=0.1)
    months = pd.to_datetime(year.timestamps[0].numpy(), unit="s").month.to_numpy()
    # May; July and August; October and November; January and February; April.
    stretches = [((5,), 743), ((7, 8), 1488), ((10, 11), 1464), ((1, 2), 1416), ((4,), 719 + 1)]
    for of_stretch, length in stretches:
        steps = np.isin(months, of_stretch)
        assert abs(steps.sum() - length) <= 1
        val = split.val.numpy()[steps]
        first = len(val) - round(0.1 * len(val))
        assert not val[:first].any()
        assert val[first:].all()


def test_the_end_of_the_series_tests(year):
    split = split_time(year, val=0.25, test=0.2)
    assert split.test.nonzero().flatten().tolist() == list(range(7007, 8759))
    assert split.val.nonzero().flatten().tolist() == list(range(7007 - 1752, 7007))
    assert int(split.train.sum()) == 7007 - 1752


def test_starts_within_equal_a_loop():
    steps = torch.rand(200) < 0.9
    for window in (1, 4, 13):
        expected = [s for s in range(200 - window + 1) if steps[s : s + window].all()]
        assert starts_within(steps, window).tolist() == expected
    assert starts_within(steps, 201).tolist() == []


def test_what_cannot_be_split_is_named(year):
    with pytest.raises(ValueError, match="must be some of 1 to 12"):
        split_months(year, (0, 3))
    year = year.clone()
    year.timestamps = None
    with pytest.raises(ValueError, match="needs a graph with time stamps"):
        split_months(year)
