import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_stmamba.data import split_windows

SIXTY = (0.6, 0.2, 0.2)
SEVENTY = (0.7, 0.1, 0.2)


@pytest.mark.parametrize(
    ("name", "num_steps", "fractions"),
    [
        ("METRLA", 34272, SEVENTY),
        ("PEMSBAY", 52116, SEVENTY),
        ("PEMS03", 26208, SIXTY),
        ("PEMS04", 16992, SIXTY),
        ("PEMS07", 28224, SIXTY),
        ("PEMS08", 17856, SIXTY),
    ],
)
def test_equals_the_published_indices(shared_data, name, num_steps, fractions):
    split = split_windows(num_steps, 12, 12, fractions)
    with np.load(shared_data / "splits" / f"{name}_index.npz") as published:
        for part in ("train", "val", "test"):
            first, middle, end = published[part].T
            assert np.array_equal(split[part].numpy(), first)
            assert np.array_equal(split[part].numpy() + 12, middle)
            assert np.array_equal(split[part].numpy() + 24, end)


@pytest.mark.parametrize(
    ("num_steps", "fractions", "counts"),
    [
        (34272, SEVENTY, [23974, 3425, 6850]),
        (52116, SEVENTY, [36465, 5209, 10419]),
        (17856, SIXTY, [10700, 3567, 3566]),
        (16992, SIXTY, [10181, 3394, 3394]),
    ],
)
def test_published_counts(num_steps, fractions, counts):
    split = split_windows(num_steps, 12, 12, fractions, "windows-first")
    assert [len(starts) for starts in split.values()] == counts
    assert list(split) == ["train", "val", "test"]
    assert all(starts.dtype == torch.int64 for starts in split.values())


def test_series_first_has_no_overlap():
    split = split_windows(34272, 12, 12, SEVENTY, "series-first")
    assert len(split["test"]) == 6831
    assert int(split["train"][-1]) + 24 == int(split["val"][0])
    assert int(split["val"][-1]) + 24 == int(split["test"][0])
    assert int(split["test"][-1]) + 24 == 34272
    assert int(split["val"][0]) == 34272 - 3427 - 6854


@settings(deadline=None)
@given(
    num_steps=st.integers(200, 3000),
    window=st.integers(1, 6),
    horizon=st.integers(0, 6),
    order=st.sampled_from(["windows-first", "series-first"]),
    fractions=st.sampled_from([SEVENTY, SIXTY, (0.5, 0.25, 0.25), (0.5, 0.0, 0.5)]),
)
def test_parts_follow_each_other(num_steps, window, horizon, order, fractions):
    split = split_windows(num_steps, window, horizon, fractions, order)
    everything = torch.cat(list(split.values()))
    assert bool((everything.diff() > 0).all())
    assert int(everything[0]) == 0
    assert int(everything[-1]) + window + horizon == num_steps
    if order == "windows-first":
        assert len(everything) == num_steps - window - horizon + 1
    else:
        ends = [int(s[-1]) + window + horizon for s in split.values() if len(s)]
        begins = [int(s[0]) for s in split.values() if len(s)]
        assert begins[1:] == ends[:-1]


def test_floor_is_not_fooled_by_floating_point():
    split = split_windows(100, 1, 0, (0.42, 0.29, 0.29), "series-first")
    assert [len(starts) for starts in split.values()] == [42, 29, 29]


def test_bad_input():
    with pytest.raises(ValueError, match=r"unknown order 'random', choose from \['windows-first'"):
        split_windows(100, 12, 12, SEVENTY, "random")
    with pytest.raises(
        ValueError, match=r"20 steps, fewer than one window of 12 input \+ 12 .* 24"
    ):
        split_windows(20, 12, 12)
    with pytest.raises(ValueError, match=r"val part would hold no window: 26 steps"):
        split_windows(26, 12, 12)
    with pytest.raises(ValueError, match=r"val part would hold no window: 100 .* 'series-first'"):
        split_windows(100, 12, 12, SEVENTY, "series-first")
    for fractions in [(0.7, 0.3), (0.7, 0.2, 0.2), (1.2, -0.1, -0.1)]:
        with pytest.raises(ValueError, match="add up to 1"):
            split_windows(100, 1, 1, fractions)
    with pytest.raises(ValueError, match="window must be at least 1"):
        split_windows(100, 0, 1)
