import numpy as np
import pandas as pd
import pytest
import torch

from pyg_stmamba.data import TemporalGraph, Windows, great_circle_distance
from pyg_stmamba.models.imputation_baselines import (
    LinearInterpolation,
    MeanImputation,
    NearestStations,
    interpolate,
)
from tests import laws

BASELINES = [
    MeanImputation(),
    LinearInterpolation(),
    NearestStations(2, metric="euclidean"),
    NearestStations(2, metric="correlation"),
]


def name_of(model) -> str:
    return repr(model)


@pytest.fixture
def stations() -> TemporalGraph:
    """Six stations in a city, forty hours, two channels, half of it missing; nothing at hour 7."""
    rng = np.random.default_rng(1)
    values = 100 + rng.normal(size=(40, 6, 2)).cumsum(0) * 5
    mask = rng.random(values.shape) < 0.5
    mask[7] = False
    return TemporalGraph.from_arrays(
        values,
        mask=mask,
        edge_index=np.array([[0], [1]]),
        positions=np.stack([40 + rng.random(6), 116 + rng.random(6)], axis=1),
    )


def test_the_mean_is_that_of_the_observed_entries_of_the_given_steps(stations):
    steps = torch.arange(40) < 25
    filled = MeanImputation().fit(stations, steps)(stations.x, stations.x_mask)
    values = np.ma.masked_array(stations.x.double(), ~stations.x_mask.numpy())
    expected = values[:, :25].mean(1).data
    gaps = ~stations.x_mask
    expected = torch.as_tensor(expected)[:, None].expand(-1, 40, -1)
    torch.testing.assert_close(filled[gaps].double(), expected[gaps], rtol=1e-6, atol=0)


def test_a_node_without_observation_gets_the_mean_of_all(stations):
    stations.x_mask[2, :, 1] = False
    model = MeanImputation().fit(stations)
    rest = stations.x[..., 1][stations.x_mask[..., 1]].double().mean()
    assert model.mean[2, 1].item() == pytest.approx(rest.item(), rel=1e-6)


def test_interpolation_equals_numpy(stations):
    x, mask = stations.x, stations.x_mask
    found = interpolate(x, mask)
    for node in range(6):
        for channel in range(2):
            seen = mask[node, :, channel].numpy()
            expected = np.interp(np.arange(40), np.arange(40)[seen], x[node, seen, channel])
            np.testing.assert_allclose(found[node, :, channel], expected, rtol=1e-6)


def test_linear_interpolation_equals_pandas_at_every_gap(stations):
    windows = Windows(stations, 12, 0, targets=False).batch(range(0, 29, 4))
    filled = LinearInterpolation().fit(stations)(windows)
    mean = MeanImputation().fit(stations).mean
    table = windows.x.masked_fill(~windows.x_mask, torch.nan)
    columns = pd.DataFrame(table.movedim(2, 0).flatten(1).numpy().astype(np.float64))
    expected = columns.interpolate(limit_direction="both").to_numpy().copy()
    expected = torch.as_tensor(expected).unflatten(1, (6, 8, 2)).movedim(0, 2)
    expected = torch.where(expected.isnan(), mean.double()[:, None, None], expected)
    torch.testing.assert_close(filled.double(), expected, rtol=1e-6, atol=0)


def test_a_node_that_is_silent_in_a_window_gets_its_mean(stations):
    model = LinearInterpolation().fit(stations)
    mask = stations.x_mask[:, :5].clone()
    mask[3] = False
    filled = model(stations.x[:, :5], mask)
    assert torch.equal(filled[3], model.mean[3].expand(5, 2))


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("k", [1, 3, 10])
def test_nearest_stations_equal_a_loop(stations, k, power):
    model = NearestStations(k, power).fit(stations)
    filled = model(stations.x, stations.x_mask)
    distance = great_circle_distance(stations.pos[:, None].double(), stations.pos.double())
    for node, step, channel in (~stations.x_mask).nonzero().tolist():
        others = [j for j in distance[node].argsort().tolist() if j != node]
        seen = [j for j in others if stations.x_mask[j, step, channel]][:k]
        if seen:
            weights = distance[node, seen].numpy() ** -power
            expected = np.average(stations.x[seen, step, channel].numpy(), weights=weights)
        else:
            expected = model.mean[node, channel].item()
        assert filled[node, step, channel].item() == pytest.approx(expected, rel=1e-5)


def test_nearest_by_correlation_are_those_of_pandas(stations):
    model = NearestStations(metric="correlation").fit(stations)
    first = stations.x[..., 0].masked_fill(~stations.x_mask[..., 0], torch.nan)
    closeness = pd.DataFrame(first.T.double().numpy()).corr().to_numpy().copy()
    np.fill_diagonal(closeness, -np.inf)
    assert model.neighbors.tolist() == np.argsort(-closeness, axis=1)[:, :-1].tolist()


def test_stations_at_one_place_are_no_division_by_zero(stations):
    stations.pos[1] = stations.pos[0]
    filled = NearestStations(3).fit(stations)(stations.x, stations.x_mask)
    assert filled.isfinite().all()
    alone = stations.x_mask[1] & ~stations.x_mask[0]
    torch.testing.assert_close(filled[0][alone], stations.x[1][alone], rtol=1e-4, atol=0)


@pytest.mark.parametrize("model", BASELINES, ids=name_of)
def test_windows_are_filled_one_by_one(stations, model):
    model.fit(stations)
    windows = Windows(stations, 10, 0, targets=False)
    batch = model(windows.batch([0, 11, 30]))
    for column, start in enumerate((0, 11, 30)):
        torch.testing.assert_close(batch[:, column], model(windows[start]), rtol=0, atol=0)


@pytest.mark.parametrize("model", BASELINES, ids=name_of)
def test_baselines_copy_pickle_and_reload(stations, model):
    model.fit(stations)
    laws.copies_are_equal(model, lambda copy: copy(stations.x, stations.x_mask))
    fresh = type(model)(2, metric=model.metric) if hasattr(model, "k") else type(model)()
    fresh.load_state_dict(model.state_dict(), strict=True)
    expected = model(stations.x, stations.x_mask)
    assert torch.equal(fresh(stations.x, stations.x_mask), expected)


def test_bad_input_is_named(stations):
    with pytest.raises(ValueError, match="unknown metric 'road'"):
        NearestStations(metric="road")
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        NearestStations(0)
    with pytest.raises(ValueError, match="fit it on the graph first"):
        MeanImputation()(stations.x, stations.x_mask)
    stations.pos = None
    with pytest.raises(ValueError, match="needs a graph with positions"):
        NearestStations().fit(stations)
    with pytest.raises(ValueError, match=r"steps must be boolean \[T\] = \[40\]"):
        MeanImputation().fit(stations, torch.arange(40))
