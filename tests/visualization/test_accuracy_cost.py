import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread

from pyg_stmamba.visualization import plot_accuracy_cost, write_accuracy_cost
from pyg_stmamba.visualization.accuracy_cost import pareto_front
from pyg_stmamba.visualization.style import png

TEMPORAL = ["mamba", "attention", "mamba", "attention"]
SPATIAL = ["gat", "gat", "dot", "dot"]
ERRORS = [3.3, 3.5, 3.2, 3.6]
COSTS = {"one [ms]": [1.0, 2.0, 3.0, 0.5], "two [s]": [9.0, 7.0, 8.0, 6.0]}


def points(axes) -> dict[str, tuple[float, float]]:
    lines = {line.get_label(): line for line in axes.lines}
    return {name: tuple(*line.get_xydata()) for name, line in lines.items() if " + " in name}


def front(axes) -> np.ndarray:
    return axes.lines[0].get_xydata()


def test_points_are_where_the_numbers_say() -> None:
    figure = plot_accuracy_cost(TEMPORAL, SPATIAL, ERRORS, COSTS, unit="mph")
    assert [axes.get_xlabel() for axes in figure.axes] == list(COSTS)
    for axes, costs in zip(figure.axes, COSTS.values()):
        expected = zip(TEMPORAL, SPATIAL, costs, ERRORS)
        assert points(axes) == {f"{t} + {s}": (cost, error) for t, s, cost, error in expected}
        assert axes.get_ylabel() == "mean absolute error [mph]"
        assert axes.get_xlim()[0] == 0
        assert axes.get_xlim()[1] > max(costs)
        low, high = axes.get_ylim()
        assert low < min(ERRORS)
        assert max(ERRORS) < high
    np.testing.assert_array_equal(front(figure.axes[0]), [[0.5, 3.6], [1.0, 3.3], [3.0, 3.2]])
    np.testing.assert_array_equal(front(figure.axes[1]), [[6.0, 3.6], [7.0, 3.5], [8.0, 3.2]])


def test_color_is_time_and_marker_is_space() -> None:
    figure = plot_accuracy_cost(TEMPORAL, SPATIAL, ERRORS, COSTS)
    looks: dict[str, set] = {}
    for axes in figure.axes:
        for line in axes.lines:
            if " + " in line.get_label():
                temporal, spatial = line.get_label().split(" + ")
                looks.setdefault(f"{temporal} over time", set()).add(to_hex(line.get_color()))
                looks.setdefault(f"{spatial} over nodes", set()).add(line.get_marker())
    assert all(len(look) == 1 for look in looks.values())
    assert looks["mamba over time"] != looks["attention over time"]
    assert looks["gat over nodes"] != looks["dot over nodes"]
    legend = figure.legends[0]
    shown = dict(zip((text.get_text() for text in legend.get_texts()), legend.legend_handles))
    assert set(shown) == set(looks)
    for name, handle in shown.items():
        look = handle.get_marker() if "nodes" in name else to_hex(handle.get_color())
        assert {look} == looks[name]


def test_only_baselines_within_the_picture_are_drawn() -> None:
    baselines = {"last value": 3.45, "far away": 9.0, "nothing": float("nan")}
    figure = plot_accuracy_cost(TEMPORAL, SPATIAL, ERRORS, COSTS, baselines)
    for axes in figure.axes:
        (line,) = [line for line in axes.lines if line.get_label() in baselines]
        assert set(line.get_ydata()) == {3.45}
        assert axes.get_ylim()[1] < 9
    assert "last value" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_front_is_what_none_other_beats() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        # Few values, so that there are ties.
        cost, error = rng.integers(1, 6, (2, 12)).astype(float)
        found = pareto_front(cost, error)
        for index in range(12):
            beaten = (cost <= cost[index]) & (error <= error[index])
            beaten &= (cost < cost[index]) | (error < error[index])
            same = (cost[found] == cost[index]) & (error[found] == error[index])
            assert same.any() == (not beaten.any())
        assert len(found) == len(set(zip(cost[found], error[found])))
        assert (np.diff(cost[found]) > 0).all()
    assert pareto_front(np.array([1.0, 2.0]), np.array([np.nan, 3.0])).tolist() == [1]


def test_a_full_grid_has_its_names_beside_its_points() -> None:
    names = ["mamba", "performer", "attention", "frequency", "factorized"]
    pairs = list(itertools.product(names, ["gat", "gatv2", "attention", "dot"]))
    rng = np.random.default_rng(1)
    costs = {"cost": rng.uniform(1, 3, 20), "other cost": rng.uniform(1, 3, 20)}
    errors = rng.uniform(3.2, 3.5, 20)
    figure = plot_accuracy_cost(*zip(*pairs), errors, costs)
    png(figure)
    for axes in figure.axes:
        assert len(axes.texts) >= 18
        assert {text.get_text() for text in axes.texts} <= {" + ".join(pair) for pair in pairs}


def test_one_point_alone_and_an_error_that_is_no_number() -> None:
    figure = plot_accuracy_cost(["mamba"], ["gat"], [3.0], {"cost": [1.0]})
    assert points(figure.axes[0]) == {"mamba + gat": (1.0, 3.0)}
    errors = [3.0, float("nan")]
    figure = plot_accuracy_cost(["a", "b"], ["c", "c"], errors, {"cost": [1.0, 2.0]})
    assert imread(io.BytesIO(png(figure)), format="png").std() > 0
    assert [text.get_text() for text in figure.axes[0].texts] == ["a + c"]


@pytest.mark.parametrize(
    ("temporal", "errors", "costs"),
    [(["a"], [1.0, 2.0], {"c": [1.0, 2.0]}), (["a", "b"], [1.0, 2.0], {"c": [1.0]}), ([], [], {})],
)
def test_what_does_not_fit_together_is_refused(temporal, errors, costs) -> None:
    with pytest.raises(ValueError, match="one error and one value of each cost"):
        plot_accuracy_cost(temporal, temporal, errors, costs)


def test_the_picture_of_a_folder(tmp_path: Path, monkeypatch) -> None:
    rows = [
        {
            "temporal": temporal,
            "spatial": spatial,
            "test": {"average": {"mae": error}},
            "val_mae": 77.0,
            "inference_milliseconds_per_window": 10 + number,
            "train_seconds_per_1000_windows": 20 + number,
        }
        for number, (temporal, spatial, error) in enumerate(zip(TEMPORAL, SPATIAL, ERRORS))
    ]
    baselines = {"last_value": {"average": {"mae": 3.4}}}
    results = {"combinations": rows, "baselines": baselines, "unit": "km/h"}
    (tmp_path / "comparison.json").write_text(json.dumps(results))
    drawn = []
    draw = "pyg_stmamba.visualization.accuracy_cost.png"
    monkeypatch.setattr(draw, lambda figure: drawn.append(figure) or png(figure))
    path = write_accuracy_cost(tmp_path)
    assert path == tmp_path / "accuracy_cost.png"
    assert imread(path).std() > 0
    one, other = drawn[0].axes
    assert one.get_xlabel() == "inference [ms / window]"
    assert other.get_xlabel() == "training [s / 1,000 windows]"
    assert points(one)["attention + dot"] == (13, 3.6)
    assert points(other)["attention + dot"] == (23, 3.6)
    assert one.get_ylabel() == "mean absolute error [km/h]"
    assert "last value" in [text.get_text() for text in drawn[0].legends[0].get_texts()]
