import numpy as np
import pytest

from pyg_stmamba.visualization.run_pictures import PICTURES, NothingToDraw
from pyg_stmamba.visualization.run_results import read_run_results


def draw(name: str, folder):
    return PICTURES[name][0](read_run_results(folder))


def test_forecasts_are_shown_an_hour_ahead(make_run) -> None:
    figure = draw("forecasts", make_run(horizon=24, samples=30))
    assert "forecast made 1 h ahead" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_shorter_horizon_is_shown_to_its_end(make_run) -> None:
    figure = draw("forecasts", make_run(horizon=6, samples=30))
    assert "forecast made 30 min ahead" in [
        text.get_text() for text in figure.legends[0].get_texts()
    ]


def test_forecast_instants_follow_the_input_window(make_run) -> None:
    folder = make_run(samples=20, stride=1, window=7)
    with np.load(folder / "forecasts.npz") as stored:
        first = stored["start_timestamps"][0] + 7 * 300
    observed = draw("forecasts", folder).axes[0].lines[0]
    assert observed.get_xdata()[0] == np.datetime64(int(first), "s")


def test_every_baseline_has_a_line(make_run) -> None:
    folder = make_run(samples=5)
    with np.load(folder / "forecasts.npz") as stored:
        expected = stored["baseline_last_value_horizon_mae"]
    lines = {line.get_label(): line for line in draw("horizon_error", folder).axes[0].lines}
    assert set(lines) == {"model", "last value", "historical average", "linear autoregression"}
    np.testing.assert_array_equal(lines["last value"].get_ydata(), expected)


@pytest.mark.parametrize(
    ("picture", "array"),
    [
        ("forecasts", "prediction"),
        ("forecasts", "target"),
        ("horizon_error", "horizon_mae"),
        ("time_of_day_error", "time_of_day_mae"),
        ("node_map", "node_mae"),
    ],
)
def test_missing_arrays_are_named(make_run, picture: str, array: str) -> None:
    folder = make_run(lambda stored: stored.pop(array), samples=5)
    with pytest.raises(NothingToDraw, match=f"forecasts.npz has no {array}"):
        draw(picture, folder)


def test_a_training_without_numbers_has_no_curves(make_run) -> None:
    folder = make_run(samples=5)
    (folder / "metrics.csv").write_text("epoch,train_loss\n0,nan\n")
    with pytest.raises(NothingToDraw, match="no finite value"):
        draw("learning_curves", folder)
    (folder / "metrics.csv").write_text("step,train_loss\n0,1.0\n")
    with pytest.raises(NothingToDraw, match="no epochs"):
        draw("learning_curves", folder)
