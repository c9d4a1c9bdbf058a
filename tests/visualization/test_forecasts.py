import numpy as np
import pytest
from matplotlib.dates import date2num

from pyg_stmamba.visualization import plot_forecasts
from pyg_stmamba.visualization.forecasts import choose_nodes, mean_error
from pyg_stmamba.visualization.style import png

START, STEP = 1330560000, 300  # 2012-03-01 00:00


def example(samples: int = 900, nodes: int = 5, horizon: int = 12) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    series = random.normal(50, 5, (nodes, samples + horizon))
    target = np.stack([series[:, s : s + horizon] for s in range(samples)])
    mask = random.random((1, nodes, 1)) < 2  # everything observed
    error = np.arange(nodes)[None, :, None]  # node i is wrong by i
    return {
        "prediction": target + error,
        "target": target,
        "mask": np.broadcast_to(mask, target.shape),
    }


def test_lines_carry_truth_and_forecast_of_the_chosen_nodes() -> None:
    arrays = example()
    figure = plot_forecasts(
        **arrays,
        horizon=3,
        window=12,
        start_timestamps=START + STEP * np.arange(900),
        step_seconds=STEP,
        node_ids=[f"sensor {n}" for n in range(5)],
        quantity="speed",
        unit="mph",
    )
    assert len(figure.axes) == 3
    for axes, node in zip(figure.axes, (0, 2, 4)):
        assert axes.get_title(loc="left").startswith(f"node sensor {node}: ")
        assert f"MAE {node} mph" in axes.get_title(loc="left")
        assert axes.get_ylabel() == "speed [mph]"
        observed, forecast = axes.lines
        # From 01:00 on there are 3.1 days of targets: no three whole days after a midnight, so
        # the first three days of the record are shown.
        times = START + STEP * (np.arange(911) + 12)
        shown = times <= times[0] + 3 * 86400
        series = np.append(arrays["target"][:, node, 0], arrays["target"][-1, node, 1:])
        np.testing.assert_array_equal(observed.get_ydata(), series[shown])
        np.testing.assert_allclose(
            date2num(observed.get_xdata()), times[shown] / 86400, rtol=0, atol=1e-6
        )
        ahead = START + STEP * (np.arange(900) + 12 + 2)
        shown = ahead <= times[0] + 3 * 86400
        np.testing.assert_array_equal(forecast.get_ydata(), arrays["prediction"][shown, node, 2])
        np.testing.assert_allclose(
            date2num(forecast.get_xdata()), ahead[shown] / 86400, rtol=0, atol=1e-6
        )
        assert forecast.get_label() == "forecast made 15 min ahead"


def test_missing_truth_is_a_gap_and_never_a_value() -> None:
    arrays = example(samples=50)
    mask = np.ones(arrays["target"].shape, dtype=bool)
    mask[10:20, 1, 3] = False
    arrays["target"] = np.where(mask, arrays["target"], -1e9)
    figure = plot_forecasts(
        arrays["prediction"], arrays["target"], mask, horizon=4, nodes={"a chosen one": 1}
    )
    observed, forecast = figure.axes[0].lines
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(observed.get_ydata())), np.arange(10, 20))
    assert np.nanmin(observed.get_ydata()) > 0
    assert np.isfinite(forecast.get_ydata()).all()
    assert figure.axes[0].get_xlabel() == "forecast windows in order of time"
    assert "MAE 1" in figure.axes[0].get_title(loc="left")


def test_dates_are_written_in_the_data_s_own_clock() -> None:
    figure = plot_forecasts(
        **example(), start_timestamps=START + STEP * np.arange(900), step_seconds=STEP, days=1
    )
    png(figure)
    labels = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert "Thu 01 Mar" in labels
    assert "Fri 02 Mar" in labels
    assert figure.axes[-1].xaxis.get_offset_text().get_text() == "2012"


@pytest.mark.parametrize(("nodes", "samples", "horizon"), [(1, 1, 1), (2, 3, 2), (3, 2, 24)])
def test_tiny_sizes(nodes: int, samples: int, horizon: int) -> None:
    arrays = example(samples, nodes, horizon)
    for clock in (
        {},
        {"start_timestamps": START + STEP * np.arange(samples), "step_seconds": STEP},
    ):
        assert len(png(plot_forecasts(**arrays, **clock))) > 1000


def test_choose_nodes() -> None:
    assert choose_nodes(np.array([3.0, np.nan, 1.0, 2.0, 9.0])) == {
        "smallest error": 2,
        "median error": 3,
        "largest error": 4,
    }
    assert list(choose_nodes(np.array([5.0, 4.0])).values()) == [1, 0]
    assert choose_nodes(np.array([np.nan, 4.0])) == {"the only one observed": 1}
    assert choose_nodes(np.array([np.nan])) == {"nothing observed": 0}


def test_mean_error_is_numpy_s_masked_mean() -> None:
    random = np.random.default_rng(0)
    prediction, target = random.normal(size=(2, 6, 4, 3))
    observed = random.random((6, 4, 3)) < 0.5
    observed[:, 2] = False
    target[:, 2] = np.nan
    expected = (
        np.ma.masked_array(np.abs(prediction - target), ~observed).mean((0, 2)).filled(np.nan)
    )
    np.testing.assert_allclose(mean_error(prediction, target, observed), expected)


def test_errors() -> None:
    arrays = example(5)
    with pytest.raises(ValueError, match=r"asked for 13 steps ahead; .* from 1 to 12"):
        plot_forecasts(**arrays, horizon=13)
    with pytest.raises(ValueError, match=r"shape \(5, 12\).*\(windows, nodes, steps\)"):
        plot_forecasts(arrays["prediction"][0], arrays["target"])
