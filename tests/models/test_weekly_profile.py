import math

import pytest
import torch

from pyg_stmamba.data import Windows
from pyg_stmamba.models.weekly_profile import WeeklyProfile
from tests import laws


@pytest.fixture
def windows(graph):
    return Windows(graph, 6, 4, target_channels=(1, 0))


def by_hand(graph, node, channel, place, sigma):
    """The weighted mean of all steps within three widths of a time of the week."""
    total = weights = 0.0
    reach = int(3 * sigma)
    for t in range(graph.num_steps):
        for ahead in range(-reach, reach + 1):
            if 0 <= t + ahead < graph.num_steps and t % 168 == place:
                weight = math.exp(-0.5 * (ahead / sigma) ** 2) if sigma else 1.0
                weight *= float(graph.x_mask[node, t + ahead, channel])
                total += weight * float(graph.x[node, t + ahead, channel])
                weights += weight
    return total / weights


@pytest.mark.parametrize("sigma", [0.0, 0.5, 2.0])
def test_formula(graph, windows, sigma):
    profile = WeeklyProfile((1, 0), smoothing=60 * sigma).fit(windows)
    assert profile.mean.shape == (5, 168, 2)
    for node, channel, place in ((0, 0, 30), (3, 1, 100), (4, 0, 167)):
        expected = by_hand(graph, node, channel, place, sigma)
        assert profile.mean[node, place, 1 - channel].item() == pytest.approx(expected, rel=1e-5)


def test_leaving_a_week_out_is_fitting_without_it(graph, windows):
    profile = WeeklyProfile((1, 0)).fit(windows)
    without = profile.leave_one_week_out(windows)
    assert without.shape == (5, graph.num_steps, 2)
    for week in range(3):
        own = slice(168 * week, 168 * (week + 1))
        graph.x_mask, kept = graph.x_mask.clone(), graph.x_mask
        graph.x_mask[:, own] = False
        refit = WeeklyProfile((1, 0)).fit(Windows(graph, 6, 4, target_channels=(1, 0)))
        torch.testing.assert_close(without[:, own], refit.mean)
        graph.x_mask = kept


def test_no_step_sees_its_own_week(graph, windows):
    profile = WeeklyProfile((1, 0))
    before = profile.leave_one_week_out(windows)
    graph.x = graph.x.clone()
    graph.x[:, 168:336] += 1000
    after = profile.leave_one_week_out(Windows(graph, 6, 4, target_channels=(1, 0)))
    torch.testing.assert_close(after[:, 168:336], before[:, 168:336])
    observed = graph.x_mask[:, 168:336].flip(-1)
    assert (after[:, :168] > before[:, :168] + 100)[observed].all()


def test_later_weeks_get_the_whole_profile(graph):
    train = Windows(graph, 6, 4, starts=torch.arange(200))
    profile = WeeklyProfile().fit(train)
    without = profile.leave_one_week_out(train)
    torch.testing.assert_close(without[:, 336:], profile.mean)
    graph.x = graph.x.clone()
    graph.x[:, 209:] += 1000
    torch.testing.assert_close(profile.leave_one_week_out(train), without)


def test_lookup_goes_on_into_the_next_week(windows):
    profile = WeeklyProfile((1, 0)).fit(windows)
    hours = torch.arange(166, 168)
    found = profile(hours % 24 / 24, hours // 24, ahead=3)
    assert torch.equal(found, profile.mean[:, [166, 167, 0, 1, 2]])
    batch = profile((hours % 24 / 24)[None], (hours // 24)[None])
    assert torch.equal(batch, profile.mean[:, None, 166:168])


def test_few_nodes_at_a_time_give_the_same(windows, monkeypatch):
    whole = WeeklyProfile((1, 0), 90.0)
    expected = whole.fit(windows).mean, whole.leave_one_week_out(windows)
    monkeypatch.setattr("pyg_stmamba.models.weekly_profile._CHUNK", 1)
    assert torch.equal(whole.fit(windows).mean, expected[0])
    assert torch.equal(whole.leave_one_week_out(windows), expected[1])


def test_of_a_single_week_the_mean_of_all_is_left(graph):
    train = Windows(graph, 6, 4, starts=torch.arange(20))
    without = WeeklyProfile().leave_one_week_out(train)[:, :168]
    mean = graph.x[:, :29, 0][graph.x_mask[:, :29, 0]].mean()
    torch.testing.assert_close(without, mean.expand(without.shape))


def test_copies_and_reloads(windows):
    profile = WeeklyProfile((1, 0)).fit(windows)
    hours = torch.arange(5)
    laws.copies_are_equal(profile, lambda copy: copy(hours / 24, hours * 0))
    fresh = WeeklyProfile((1, 0))
    fresh.load_state_dict(profile.state_dict(), strict=True)
    assert torch.equal(fresh.mean, profile.mean)
    assert str(profile) == "WeeklyProfile((1, 0), smoothing=0.0)"
