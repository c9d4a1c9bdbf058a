import csv

import numpy as np
import pytest
import torch

from pyg_stmamba.training import describe, predict
from pyg_stmamba.training.checkpoint import Forecaster
from pyg_stmamba.training.forecast_data import windows_of

START = np.datetime64("2024-01-01T00:00", "s").astype(np.int64)


@pytest.fixture
def trained(graph, protocol, make_model):
    model = make_model(graph).eval()
    model.scaler.fit(graph.x)
    return Forecaster(model, protocol, describe(model, graph, protocol)["facts"])


def test_the_last_window_needs_no_targets(graph, trained):
    found = predict(trained, graph)
    assert found.values.shape == (1, 5, 4, 1)
    expected = [START + 3600 * step for step in range(120, 124)]
    assert found.timestamps.tolist() == [expected]
    hours, day = torch.arange(114, 120) % 24, torch.arange(114, 120) // 24
    direct = trained.model(
        graph.x[:, -6:],
        graph.edge_index,
        graph.edge_attr,
        x_mask=graph.x_mask[:, -6:],
        time_of_day=hours / 24,
        day_of_week=day,
    )
    np.testing.assert_allclose(found.values[0], direct.detach().numpy(), rtol=1e-5)


def test_all_windows_are_those_of_training_and_the_ones_after(graph, protocol, trained):
    found = predict(trained, graph, starts="all", batch_size=10)
    assert found.values.shape == (115, 5, 4, 1)
    windows = windows_of(graph, protocol)["test"]
    for index in (0, len(windows) - 1):
        forecast = trained.model(windows[index]).detach().numpy()
        start = int(windows.starts[index])
        np.testing.assert_allclose(found.values[start], forecast, rtol=1e-4, atol=1e-4)
        assert found.timestamps[start, 0] == START + 3600 * (start + 6)
    np.testing.assert_allclose(found.values[-1], predict(trained, graph).values[0], rtol=1e-5)


def test_forecasts_of_exactly_one_window(make_graph, trained):
    found = predict(trained, make_graph(num_steps=6), starts="all")
    assert found.values.shape == (1, 5, 4, 1)


def test_files_hold_the_forecasts(graph, trained, tmp_path):
    found = predict(trained, graph, starts="all")
    paths = found.save(tmp_path / "folder" / "forecast.v1")
    assert [path.name for path in paths] == ["forecast.v1.npz", "forecast.v1.csv"]
    with np.load(paths[0]) as arrays:
        np.testing.assert_array_equal(arrays["prediction"], found.values)
        np.testing.assert_array_equal(arrays["timestamps"], found.timestamps)
        assert arrays["node_ids"].tolist() == graph.node_id
        assert (arrays["channels"].tolist(), arrays["units"].tolist()) == (["speed"], ["km/h"])
    with paths[1].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 115 * 4 * 5
    for row in (rows[0], rows[777], rows[-1]):
        window, step = int(row["window"]), int(row["step"]) - 1
        node = graph.node_id.index(row["node_id"])
        assert float(row["speed"]) == pytest.approx(float(found.values[window, node, step, 0]))
        time = np.datetime64(row["timestamp"], "s").astype(np.int64)
        assert time == found.timestamps[window, step]
    assert rows[0]["timestamp"] == "2024-01-01T06:00:00"


def test_a_series_without_clock_is_numbered(make_graph, protocol, make_model, tmp_path):
    graph = make_graph(clock=False)
    model = make_model(graph)
    trained = Forecaster(model, protocol, describe(model, graph, protocol)["facts"])
    found = predict(trained, graph)
    assert found.timestamps.tolist() == [[120, 121, 122, 123]]
    _, table = found.save(tmp_path / "x.csv")
    assert table == tmp_path / "x.csv"
    assert table.read_text().splitlines()[1].startswith("0,1,120,sensor 0,")


def test_data_that_do_not_fit_are_refused(make_graph, trained):
    with pytest.raises(ValueError, match="window: reads 6 steps, given 5"):
        predict(trained, make_graph(num_steps=5))
    with pytest.raises(ValueError, match="starts='some' is unknown; choose from 'last', 'all'"):
        predict(trained, make_graph(), starts="some")
