import math

import numpy as np
import pytest
import torch
from torch import nn

from pyg_stmamba.data import TemporalGraph, Windows, great_circle_distance
from pyg_stmamba.models.imputation_baselines import LinearInterpolation
from pyg_stmamba.models.performer_imputer import PerformerImputer
from tests import laws

SMALL = {"window": 12, "num_neighbors": 2, "d_model": 8, "n_heads": 2, "nb_features": 8}


class Shows(nn.Module):
    """Stands in for the model: corrects nothing, or by a constant, and remembers its inputs."""

    def __init__(self, correction=0.0):
        super().__init__()
        self.correction = correction

    def forward(self, enc_x, enc_y, dec_x, dec_y=None, observed_mask=None):
        self.seen = enc_x, enc_y, dec_x, dec_y, observed_mask
        return torch.full((*enc_y.shape[:2], 1), self.correction)


@pytest.fixture
def stations() -> TemporalGraph:
    """Five stations, three days of hours, two channels with gaps; nothing at hour 5."""
    rng = np.random.default_rng(2)
    values = 100 + rng.normal(size=(72, 1, 2)).cumsum(0) * 8 + rng.normal(size=(72, 5, 2))
    mask = rng.random(values.shape) < 0.7
    mask[5] = False
    return TemporalGraph.from_arrays(
        values,
        mask=mask,
        timestamps=np.datetime64("2024-01-01") + np.arange(72) * np.timedelta64(1, "h"),
        edge_index=np.array([[0], [1]]),
        positions=np.stack([40 + rng.random(5), 116 + rng.random(5)], axis=1),
    )


@pytest.fixture
def model(stations) -> PerformerImputer:
    return PerformerImputer(channels=2, **SMALL).fit(stations).eval()


def batch_of(stations, starts=(0, 20, 60)):
    return Windows(stations, 12, 0, targets=False).batch(list(starts))


def level_by_numpy(x, mask):
    """The level of all nodes of x [N, T], in turn with what each shows beyond it, in loops."""
    steps, beyond = np.arange(x.shape[1]), np.zeros(len(x))
    seen = np.flatnonzero(mask.any(0))
    for _ in range(3):
        means = [np.mean([x[i, t] - beyond[i] for i in np.flatnonzero(mask[:, t])]) for t in seen]
        level = np.interp(steps, seen, means)
        beyond = np.array([(row - level)[own].mean() for row, own in zip(x, mask)])
    return level


def guess_by_numpy(stations, starts):
    """The level, and beyond it the interpolation of each node."""
    guess = np.zeros((5, len(starts), 12, 2))
    steps = np.arange(12)
    for w, start in enumerate(starts):
        x = stations.x[:, start : start + 12].double().numpy()
        mask = stations.x_mask[:, start : start + 12].numpy()
        for c in range(2):
            level = level_by_numpy(x[..., c], mask[..., c])
            for node in range(5):
                own = mask[node, :, c]
                beyond = np.interp(steps, steps[own], (x[node, :, c] - level)[own])
                guess[node, w, :, c] = level + beyond
    return torch.as_tensor(guess)


def test_without_a_correction_it_is_the_guess(stations, model):
    model.performer = Shows()
    starts = (0, 20, 60)
    batch = batch_of(stations, starts)
    expected = torch.where(batch.x_mask, batch.x, guess_by_numpy(stations, starts).float())
    torch.testing.assert_close(model(batch), expected, rtol=1e-5, atol=1e-3)


def test_the_guess_does_not_jump_with_the_nodes_that_are_missing():
    # One weather, and stations that lie 40 apart.
    weather = 5 * torch.randn(1, 12)
    values = (weather + 40 * torch.arange(5.0)[:, None]).unsqueeze(-1)
    mask = torch.rand(values.shape) < 0.6
    mask[:, [0, -1]] = mask[0] = True
    positions = np.stack([40 + np.arange(5), 116 + np.arange(5)], 1)
    graph = TemporalGraph.from_arrays(
        values.transpose(0, 1), mask=mask.transpose(0, 1), positions=positions
    )
    model = PerformerImputer(**SMALL).fit(graph)
    model.performer = Shows()
    filled, lines = model(graph.x, graph.x_mask), LinearInterpolation().fit(graph)
    error = (filled - values).abs().mean()
    assert error < 0.5
    assert error < 0.3 * (lines(graph.x, graph.x_mask) - values).abs().mean()


def test_a_correction_is_in_standard_deviations(stations, model):
    model.performer = Shows(0.5)
    starts = (0, 20, 60)
    batch = batch_of(stations, starts)
    expected = guess_by_numpy(stations, starts).float() + 0.5 * model.scaler.std
    gaps = ~batch.x_mask
    torch.testing.assert_close(model(batch)[gaps], expected[gaps], rtol=1e-5, atol=1e-3)


def test_the_model_sees_the_node_and_its_nearest_beyond_the_common_level(stations, model):
    model.performer = shows = Shows()
    starts = (0, 20, 60)
    batch = batch_of(stations, starts)
    model(batch)
    times, values, decoder_times, _, given = shows.seen
    assert times is decoder_times
    assert values.shape == given.shape == (5 * 3 * 2, 12, 3)
    distance = great_circle_distance(stations.pos[:, None], stations.pos)
    series = 0
    for node in range(5):
        nearest = distance[node].argsort()[:3].tolist()
        assert nearest[0] == node
        for window in range(3):
            for channel in range(2):
                mask = batch.x_mask[nearest, window, :, channel].T
                assert torch.equal(given[series], mask)
                x = batch.x[:, window, :, channel]
                seen = batch.x_mask[:, window, :, channel]
                level = torch.as_tensor(level_by_numpy(x.double().numpy(), seen.numpy())).float()
                expected = (x[nearest].T - level[:, None]) / model.scaler.std[channel]
                torch.testing.assert_close(
                    values[series][mask], expected[mask], rtol=1e-3, atol=1e-4
                )
                assert (values[series][~mask] == 0).all()
                series += 1


def test_features_say_how_far_observed_values_are(stations, model):
    model.performer = shows = Shows()
    batch = batch_of(stations, (0,))
    model(batch)
    since, until = shows.seen[0][..., 3].expm1(), shows.seen[0][..., 4].expm1()
    masks = batch.x_mask[:, 0].movedim(-1, 1).flatten(0, 1)
    for mask, past, future in zip(masks, since, until):
        seen = mask.nonzero().flatten().tolist()
        for t in range(12):
            before, after = [t - s for s in seen if s <= t], [s - t for s in seen if s >= t]
            assert past[t].item() == pytest.approx(min(before, default=12), abs=1e-4)
            assert future[t].item() == pytest.approx(min(after, default=12), abs=1e-4)


def test_missing_values_have_no_influence(stations, model):
    batch = batch_of(stations)
    before = model(batch)
    batch.x = torch.where(batch.x_mask, batch.x, torch.nan)
    assert torch.equal(model(batch), before)


def test_stations_windows_and_channels_are_independent_of_their_order(stations, model):
    batch = batch_of(stations)
    expected = model(batch)
    for column in range(3):
        one = model(
            batch.x[:, column],
            batch.x_mask[:, column],
            batch.time_of_day[column],
            batch.day_of_week[column],
        )
        torch.testing.assert_close(one, expected[:, column], rtol=1e-5, atol=1e-3)
    order = torch.tensor([3, 0, 4, 1, 2])
    other = PerformerImputer(channels=2, **SMALL)
    permuted = stations.select([stations.node_id[i] for i in order])
    other.fit(permuted).performer.load_state_dict(model.performer.state_dict())
    torch.testing.assert_close(
        other.eval()(batch_of(permuted)), expected[order], rtol=1e-5, atol=1e-3
    )


def test_the_unit_of_measurement_does_not_matter(stations, model):
    batch = batch_of(stations)
    expected = model(batch)
    stations.x = (stations.x * 3 + 7) * stations.x_mask
    model.fit(stations)
    torch.testing.assert_close(model(batch_of(stations)), expected * 3 + 7, rtol=1e-4, atol=1e-2)


def test_every_parameter_of_the_model_gets_a_gradient(stations, model):
    batch = batch_of(stations)
    model.train()(batch)[~batch.x_mask].sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # Softmax does not see a constant that all keys share, and nothing is known of the gaps ahead.
    assert [name for name in silent if "key" not in name and "indicator" not in name] == []


def test_a_series_without_a_calendar_is_imputed(stations, model):
    filled = model(stations.x[:, :12], stations.x_mask[:, :12])
    assert filled.isfinite().all()


def test_a_node_that_is_silent_in_a_window_is_imputed(stations, model):
    batch = batch_of(stations)
    batch.x_mask[2] = False
    filled = model(batch)
    assert filled.isfinite().all()
    batch.x_mask[:] = False
    assert model(batch).isfinite().all()


def test_it_copies_pickles_and_reloads(stations, model):
    batch = batch_of(stations)
    with torch.no_grad():
        laws.copies_are_equal(model, lambda copy: copy(batch))
        fresh = PerformerImputer(channels=2, **SMALL)
        fresh.load_state_dict(model.state_dict(), strict=True)
        assert torch.equal(fresh.eval()(batch), model(batch))


def test_what_does_not_fit_is_named(stations):
    with pytest.raises(ValueError, match="num_neighbors=7 needs more than 5 nodes"):
        PerformerImputer(2, num_neighbors=7).fit(stations)
    with pytest.raises(ValueError, match="fit it on the graph first"):
        PerformerImputer(2, **SMALL)(stations.x[:, :12], stations.x_mask[:, :12])
    with pytest.raises(ValueError, match="unknown metric 'road'"):
        PerformerImputer(2, metric="road", **SMALL).fit(stations)


def test_every_feature_of_a_step_equals_a_loop(stations, model):
    model.performer = shows = Shows()
    batch = batch_of(stations, (20,))
    model(batch)
    found = shows.seen[0].unflatten(0, (5, 2))
    distance = great_circle_distance(stations.pos[:, None].double(), stations.pos.double())
    guess = guess_by_numpy(stations, (20,))[:, 0]
    steps = torch.arange(12)
    for node in range(5):
        others = [j for j in range(5) if j != node]
        near = 1 / distance[node]
        near[node] = 0
        near /= near.sum()
        for channel in range(2):
            mean, std = model.scaler.mean[channel].item(), model.scaler.std[channel].item()
            scaled = (batch.x[:, 0, :, channel].double() - mean) / std
            seen = batch.x_mask[:, 0, :, channel]
            common = torch.as_tensor(level_by_numpy(scaled.numpy(), seen.numpy()))
            own = (guess[node, :, channel] - mean) / std - common
            weight = torch.stack([near[j] * seen[j] for j in others]).sum(0)
            beyond = torch.stack([near[j] * seen[j] * (scaled[j] - common) for j in others]).sum(0)
            beyond = torch.where(weight > 0, beyond / weight.clamp(min=1e-9), 0.0)
            line = torch.as_tensor(
                np.interp(steps, steps[seen[node]], scaled[node][seen[node]].numpy())
            )
            expected = [
                steps / 4,
                2 * math.pi * batch.time_of_day[0],
                2 * math.pi * (batch.day_of_week[0] + batch.time_of_day[0]) / 7,
                *(None, None),  # the distances to observed steps, tested above
                common,
                own,
                line - common - own,
                beyond,
                torch.where(weight > 0, beyond - own, 0.0),
                seen[node],
                weight,
                seen.sum(0) / 5,
            ]
            assert found.size(-1) == len(expected)
            for feature, value in zip(found[node, channel].unbind(-1), expected):
                if value is not None:
                    torch.testing.assert_close(feature, value.float(), rtol=1e-3, atol=2e-4)
