import numpy as np
import pytest

from pyg_stmamba.simulation import (
    daily_profile,
    random_demand,
    random_incidents,
    wandering_capacity,
)

WEEK = np.arange(7 * 288) * 300.0


def autocorrelation(series: np.ndarray, lag: int) -> float:
    return float(np.corrcoef(series[:-lag].ravel(), series[lag:].ravel())[0, 1])


def test_profile_has_the_peaks_of_a_week() -> None:
    profile = daily_profile(WEEK, np.array([0.0, 1.0])).reshape(7, 288, 2)
    hours = np.arange(288) / 12
    assert 0 < profile.min() < 0.15
    assert profile.max() <= 1.05
    for day in range(4):
        np.testing.assert_allclose(profile[day, 24:264], profile[0, 24:264])
        assert 16 < hours[profile[day, :, 0].argmax()] < 18
        assert 7 < hours[profile[day, :, 1].argmax()] < 9
    early = slice(13 * 12, 16 * 12)
    assert (profile[4, early] > profile[3, early]).all(), "Friday evenings begin early"
    np.testing.assert_allclose(profile[4, 24:120], profile[3, 24:120], rtol=0.02)
    assert 13 < hours[profile[5, :, 0].argmax()] < 16
    np.testing.assert_allclose(profile[5, 24:264], profile[6, 24:264])
    assert profile[6].max() < profile[0].max()


def test_profile_has_no_step_at_midnight() -> None:
    profile = daily_profile(WEEK, np.array([0.5]))[:, 0]
    jumps = np.abs(np.diff(profile, append=profile[:1]))
    assert jumps.max() < 0.04, "steeper than the morning"
    assert jumps.reshape(7, 288)[:, [-1, 0]].max() < 0.01


def test_demand_is_reproducible_and_follows_the_profile() -> None:
    seconds = np.arange(-288, 3 * 7 * 288) * 300.0
    scale, morning = np.array([100.0, 2000.0]), np.array([0.2, 0.8])
    demand, again, other = (
        random_demand(seconds, scale, morning, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(demand, again)
    assert not np.allclose(demand, other)
    assert demand.shape == (len(seconds), 2)
    assert (demand > 0).all()
    ratio = np.log(demand / (scale * daily_profile(seconds, morning)))
    assert 0.05 < ratio.std() < 0.2
    assert abs(ratio.mean()) < 0.1
    calm = random_demand(
        seconds, scale, morning, np.random.default_rng(0), day_to_day=0.0, within_day=0.0
    )
    moved = np.log(calm / (scale * daily_profile(seconds, morning)))
    assert np.abs(moved).max() > 0.01, "the peaks shift from day to day"


def test_demand_is_smooth() -> None:
    seconds = np.arange(7 * 288) * 300.0
    demand = random_demand(seconds, np.ones(3), np.full(3, 0.5), np.random.default_rng(0))
    assert np.abs(np.diff(np.log(demand), axis=0)).max() < 0.2


def test_wander_has_the_deviation_and_memory_asked_for() -> None:
    share = wandering_capacity(
        20_000, 4, np.random.default_rng(0), record_seconds=300.0, deviation=0.1, minutes=15.0
    )
    wander = np.log(share)
    assert wander.std() == pytest.approx(0.1, rel=0.03)
    assert wander[0].std() > 0.02, "stationary from the first record on"
    assert autocorrelation(wander, 3) == pytest.approx(np.exp(-1), abs=0.03)
    assert np.abs(np.corrcoef(wander.T) - np.eye(4)).max() < 0.05


def test_incidents_have_the_number_time_and_depth_asked_for() -> None:
    days, cells = 200, 50
    share = random_incidents(days * 288, cells, np.random.default_rng(0), per_day=3.0)
    assert share.shape == (days * 288, cells)
    assert share.max() == 1.0
    blocked = share < 1
    starts = (blocked & ~np.roll(blocked, 1, axis=0)).sum()
    assert starts / days == pytest.approx(3.0, rel=0.1)
    minutes = 5 * blocked.sum() / starts
    # Mean of the log-normal duration, and on average one record more that is touched only in part.
    assert minutes == pytest.approx(25 * np.exp(0.125) + 5, rel=0.1)
    hour = np.nonzero(blocked)[0] % 288 / 12
    assert hour.min() >= 5
    assert np.mean((hour > 8) & (hour < 19)) > 0.7
    depth = np.sort(share[blocked])
    assert 0.3 <= np.quantile(depth, 0.05) < 0.4


def test_an_incident_that_begins_within_a_record_counts_in_part() -> None:
    share = random_incidents(
        288, 1, np.random.default_rng(0), per_day=1.0, minutes=60.0, remaining=(0.5, 0.5)
    )[:, 0]
    hit = np.nonzero(share < 1)[0]
    assert len(hit) > 3
    np.testing.assert_allclose(share[hit[1:-1]], 0.5)
    assert 0.5 < share[hit[0]] < 1
