import numpy as np
import pytest
import torch
from torch import nn

from pyg_stmamba.data import split_windows
from pyg_stmamba.training import evaluate


class Last(nn.Module):
    """Repeats the last step of the first channel, plus one."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon

    def forward(self, batch):
        return (batch.x[..., -1:, :1] + 1).expand(*batch.x.shape[:-2], self.horizon, 1)


@pytest.fixture
def truth(graph, protocol):
    """Forecasts, targets, masks ``[S, N, H]`` and hours of the day ``[S, H]``, window by window."""
    starts = split_windows(graph.num_steps, 6, 4, protocol.split, protocol.order)["test"].tolist()
    x, mask = graph.x[..., 0].double().numpy(), graph.x_mask[..., 0].numpy()
    slices = [slice(start + 6, start + 10) for start in starts]
    target = np.stack([x[:, part] for part in slices])
    observed = np.stack([mask[:, part] for part in slices])
    forecast = np.stack([np.repeat(x[:, s + 5 : s + 6] + 1, 4, axis=1) for s in starts])
    hours = np.stack([np.arange(s + 6, s + 10) % 24 for s in starts])
    return starts, forecast, target, observed, hours


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_scores_are_those_of_the_whole_set(graph, protocol, truth, batch_size):
    _, forecast, target, observed, _ = truth
    result = evaluate(Last(4), graph, protocol, baselines=False, batch_size=batch_size)
    error = np.abs(forecast - target)
    assert result.baselines == {}
    for key, part in {"1": np.s_[..., 0], "4": np.s_[..., 3], "average": np.s_[...]}.items():
        scores = result.test["horizons"][key] if key != "average" else result.test["average"]
        seen = observed[part]
        assert scores["mae"] == pytest.approx(error[part][seen].mean(), rel=1e-5)
        assert scores["rmse"] == pytest.approx((error[part][seen] ** 2).mean() ** 0.5, rel=1e-5)
        relative = error[part][seen] / target[part][seen]
        assert scores["mape"] == pytest.approx(relative.mean(), rel=1e-5)


def test_arrays_are_those_of_a_plain_loop(graph, protocol, truth):
    starts, forecast, target, observed, hours = truth
    arrays = evaluate(Last(4), graph, protocol, baselines=True, batch_size=5).arrays
    error = np.where(observed, np.abs(forecast - target), 0)
    np.testing.assert_allclose(arrays["prediction"], forecast, rtol=1e-6)
    np.testing.assert_allclose(arrays["target"], target, rtol=1e-6)
    np.testing.assert_array_equal(arrays["mask"], observed)
    assert arrays["prediction"].dtype == np.float32
    node = error.sum((0, 2)) / observed.sum((0, 2))
    np.testing.assert_allclose(arrays["node_mae"], node, rtol=1e-5)
    horizon = error.sum((0, 1)) / observed.sum((0, 1))
    np.testing.assert_allclose(arrays["horizon_mae"], horizon, rtol=1e-5)
    day = [
        error.transpose(0, 2, 1)[hours == hour].sum()
        / observed.transpose(0, 2, 1)[hours == hour].sum()
        for hour in range(24)
    ]
    np.testing.assert_allclose(arrays["time_of_day_mae"], day, rtol=1e-5)
    first = np.datetime64("2024-01-01T00:00", "s").astype(np.int64)
    assert arrays["start_timestamps"].tolist() == [first + 3600 * start for start in starts]
    assert arrays["step_seconds"] == 3600
    assert arrays["window"] == 6
    assert arrays["node_ids"].tolist() == [f"sensor {node}" for node in range(5)]
    assert arrays["positions"].shape == (0, 2)
    assert arrays["edge_index"].tolist() == [[0, 1, 2, 3], [1, 2, 3, 4]]
    assert (str(arrays["channel"]), str(arrays["unit"])) == ("speed", "km/h")
    for name in ("last_value", "linear_autoregression_shared"):
        assert arrays[f"baseline_{name}_horizon_mae"].shape == (4,)


def test_thinned_forecasts_are_spread_evenly_and_change_no_score(graph, protocol):
    whole = evaluate(Last(4), graph, protocol, baselines=False)
    thin = evaluate(Last(4), graph, protocol, baselines=False, max_windows=4, batch_size=5)
    assert thin.test["average"] == pytest.approx(whole.test["average"])
    kept = [0, 7, 14, 21]
    np.testing.assert_array_equal(thin.arrays["prediction"], whole.arrays["prediction"][kept])
    np.testing.assert_array_equal(thin.arrays["mask"], whole.arrays["mask"][kept])
    times = whole.arrays["start_timestamps"][kept]
    np.testing.assert_array_equal(thin.arrays["start_timestamps"], times)
    np.testing.assert_allclose(thin.arrays["node_mae"], whole.arrays["node_mae"])


def test_the_last_value_baseline_is_literal_where_zero_means_missing(graph, protocol):
    graph.null_value = 0.0
    result = evaluate(Last(4), graph, protocol)
    shifted = Last(4)
    shifted.forward = lambda batch: Last.forward(shifted, batch) - 1
    plain = evaluate(shifted, graph, protocol, baselines=False)
    for key in ("1", "4"):
        expected = plain.test["horizons"][key]
        assert result.baselines["last_value"]["horizons"][key] == pytest.approx(expected)


def test_the_last_value_baseline_is_the_last_observed_one_elsewhere(graph, protocol):
    assert graph.null_value is None
    assert not graph.x_mask.all()
    filled = graph.x.clone()
    for step in range(1, graph.num_steps):
        seen = graph.x_mask[:, step]
        filled[:, step] = torch.where(seen, filled[:, step], filled[:, step - 1])
    last = np.array([0.0, 0.0])
    starts = range(graph.num_steps - 9 - 22, graph.num_steps - 9)
    for start in starts:
        window = graph.x_mask[:, start : start + 6, 0]
        assert window.any(1).all()  # so that the last observation lies inside of the window
        error = graph.x[:, start + 6 : start + 10, 0] - filled[:, start + 5, 0].unsqueeze(1)
        seen = graph.x_mask[:, start + 6 : start + 10, 0]
        last += [error.abs()[seen].sum().item(), seen.sum().item()]
    result = evaluate(Last(4), graph, protocol)
    assert result.baselines["last_value"]["average"]["mae"] == pytest.approx(last[0] / last[1])


def test_a_series_without_clock_and_several_channels(make_graph, protocol):
    graph = make_graph(clock=False, channels=2)
    arrays = evaluate(Last(4), graph, protocol, baselines=True).arrays
    assert arrays["step_seconds"] == 0
    assert arrays["start_timestamps"].size == arrays["time_of_day_mae"].size == 0


def test_the_mode_of_the_model_is_restored(graph, protocol):
    model = Last(4).train()
    evaluate(model, graph, protocol, baselines=False)
    assert model.training


def test_splits_are_told_apart(graph, protocol):
    sizes = {"train": 67, "val": 22, "test": 22}
    for split, size in sizes.items():
        result = evaluate(Last(4), graph, protocol, split=split, baselines=False)
        assert len(result.arrays["prediction"]) == size
        assert result.windows == sizes
    with pytest.raises(ValueError, match="split='exam' is unknown; choose from 'train', 'val'"):
        evaluate(Last(4), graph, protocol, split="exam")


def test_gradients_are_off(graph, protocol):
    model = Last(4)
    model.bias = nn.Parameter(torch.zeros(1))
    seen = []
    model.forward = lambda batch: (
        seen.append(torch.is_grad_enabled()) or Last.forward(model, batch) + model.bias
    )
    evaluate(model, graph, protocol, baselines=False)
    assert not any(seen)
