import numpy as np
import pytest
import torch
from scipy.linalg import lstsq
from torch_geometric.data import Data

from pyg_stmamba.data import TemporalGraph, Windows, collate_shared
from pyg_stmamba.models import HistoricalAverage, LastValue, LinearAutoregression
from tests import laws


def all_windows(graph, window=6, horizon=4, channels=(0,)):
    return Windows(graph, window, horizon, target_channels=channels)


def test_last_value_is_literal_unless_told_otherwise():
    x = torch.tensor([[[1.0], [2.0], [0.0]], [[4.0], [0.0], [6.0]]])
    data = Data(x=x, x_mask=x != 0)
    assert LastValue(2)(data).tolist() == [[[0.0], [0.0]], [[6.0], [6.0]]]
    assert LastValue(2, observed_only=True)(data).tolist() == [[[2.0], [2.0]], [[6.0], [6.0]]]


def test_last_value_without_any_observation_is_the_first_step():
    data = Data(x=torch.zeros(1, 3, 1), x_mask=torch.zeros(1, 3, 1, dtype=torch.bool))
    assert LastValue(1, observed_only=True)(data).tolist() == [[[0.0]]]


def test_historical_average_equals_a_dictionary(graph):
    windows = all_windows(graph, channels=(1, 0))
    model = HistoricalAverage(4, (1, 0)).fit(windows)
    seconds = graph.timestamps[0].tolist()
    batch = collate_shared([windows[3], windows[170]])
    forecast = model(batch)
    assert forecast.shape == (5, 2, 4, 2)
    for column, first in enumerate((3, 170)):
        for ahead in range(4):
            week_second = seconds[first + 6 + ahead] % (7 * 86400)
            steps = [t for t, s in enumerate(seconds) if s % (7 * 86400) == week_second]
            for node in range(5):
                for output, channel in enumerate((1, 0)):
                    seen = [t for t in steps if graph.x_mask[node, t, channel]]
                    if seen:
                        expected = graph.x[node, seen, channel].double().mean().item()
                        got = forecast[node, column, ahead, output].item()
                        assert got == pytest.approx(expected, rel=1e-6)


def test_historical_average_uses_no_step_after_the_training_windows(graph):
    windows = Windows(graph, 6, 4, starts=torch.arange(200))
    before = HistoricalAverage(4).fit(windows).profile.mean
    graph.x[:, 200 + 6 + 4 - 1 :] += 1000
    torch.testing.assert_close(HistoricalAverage(4).fit(windows).profile.mean, before)


def test_historical_average_falls_back_to_the_day_and_to_the_node(graph):
    noon = torch.arange(graph.num_steps) % 24 == 12
    graph.x_mask[0, noon & (torch.arange(graph.num_steps) // 24 % 7 == 0)] = False
    graph.x_mask[1, noon] = False
    model = HistoricalAverage(1).fit(all_windows(graph, 6, 1))
    slot = 12 + 0 * 24
    weekdays = graph.x_mask[0, :, 0] & noon
    expected = graph.x[0, weekdays, 0].mean()
    torch.testing.assert_close(model.profile.mean[0, slot, 0], expected)
    expected = graph.x[1, graph.x_mask[1, :, 0], 0].mean()
    torch.testing.assert_close(model.profile.mean[1, slot, 0], expected)


def test_historical_average_without_timestamps_is_the_mean_of_the_node():
    values = np.arange(40.0).reshape(20, 2)
    graph = TemporalGraph.from_arrays(values, edge_index=np.array([[0], [1]]))
    windows = all_windows(graph, 3, 2)
    forecast = HistoricalAverage(2).fit(windows)(collate_shared([windows[0], windows[1]]))
    assert forecast[:, 0, 0, 0].tolist() == pytest.approx([19.0, 20.0])


@pytest.mark.parametrize("shared", [False, True])
def test_linear_autoregression_equals_least_squares(graph, shared):
    windows = all_windows(graph, channels=(0,))
    model = LinearAutoregression(6, 4, shared=shared, ridge=1e-9).fit(windows)
    batch = collate_shared([windows[i] for i in range(len(windows))])
    values = model.scaler(batch.x).masked_fill(~batch.x_mask, 0.0)
    ones = torch.ones(5, len(windows), 1)
    features = torch.cat([values.flatten(-2), (~batch.x_mask).float().flatten(-2), ones], -1)
    forecast = model(batch)
    nodes = [slice(None)] if shared else [slice(i, i + 1) for i in range(5)]
    for node in nodes:
        for ahead in range(4):
            seen = batch.y_mask[node, :, ahead, 0]
            a = features[node][seen].double().numpy()
            b = batch.y[node, :, ahead, 0][seen].double().numpy()
            weights = lstsq(a, b)[0]
            expected = features[node].double().numpy() @ weights
            np.testing.assert_allclose(forecast[node, :, ahead, 0], expected, rtol=2e-4)


def test_linear_autoregression_takes_one_window_like_a_batch(graph):
    windows = all_windows(graph)
    for shared in (False, True):
        model = LinearAutoregression(6, 4, shared=shared).fit(windows)
        single, batch = model(windows[7]), model(collate_shared([windows[7], windows[8]]))
        torch.testing.assert_close(single, batch[:, 0])


def test_linear_autoregression_of_a_node_without_targets_forecasts_the_mean(graph):
    graph.x_mask[2] = False
    windows = all_windows(graph)
    model = LinearAutoregression(6, 4).fit(windows)
    forecast = model(windows[0])[2]
    torch.testing.assert_close(forecast, model.scaler.mean[0].expand_as(forecast))


@pytest.mark.parametrize(
    "model",
    [LastValue(4), HistoricalAverage(4), LinearAutoregression(6, 4)],
    ids=lambda model: type(model).__name__,
)
def test_baselines_copy_pickle_and_reload(graph, model):
    windows = all_windows(graph)
    model.fit(windows)
    laws.copies_are_equal(model, lambda copy: copy(windows[5]))


@pytest.mark.parametrize("build", [HistoricalAverage, LinearAutoregression])
def test_a_fresh_baseline_loads_a_fitted_state(graph, build):
    windows = all_windows(graph, 12, 12)
    fitted, fresh = build().fit(windows), build()
    fresh.load_state_dict(fitted.state_dict(), strict=True)
    assert torch.equal(fresh(windows[4]), fitted(windows[4]))


def test_last_value_on_metr_la_equals_the_published_protocol(shared_data, tmp_path):
    from pyg_stmamba.datasets import METRLA
    from pyg_stmamba.training import evaluate

    (tmp_path / "raw").symlink_to(shared_data / "metr_la" / "raw")
    dataset = METRLA(tmp_path)
    result = evaluate(LastValue(12), dataset[0], dataset.protocol, baselines=False, progress=False)
    horizons = result.test["horizons"]
    rows = [*(horizons[step] for step in ("3", "6", "12")), result.test["average"]]
    printed = [f"{r['mae']:.3f} {r['rmse']:.3f} {100 * r['mape']:.2f}" for r in rows]
    assert printed == [
        "4.124 8.620 10.53",
        "5.222 10.985 13.80",
        "6.908 13.887 18.90",
        "5.251 11.080 13.90",
    ]
