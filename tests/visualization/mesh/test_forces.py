import numpy as np
import pytest

from pyg_stmamba.visualization.mesh import plot_forces
from pyg_stmamba.visualization.style import png

TIME = np.linspace(0, 2, 200)


def test_a_panel_a_signal_with_the_prediction_over_the_truth():
    truth = {"drag": 3 + 0.1 * np.sin(12 * TIME), "lift": np.sin(6 * TIME)}
    signals = {name: (0.9 * values, values) for name, values in truth.items()}
    figure = plot_forces(TIME, signals, model="mesh-simulator", title="Trajectory 3", unit="N/m")
    assert [axes.get_ylabel() for axes in figure.axes] == ["drag [N/m]", "lift [N/m]"]
    for axes, name in zip(figure.axes, truth):
        true, predicted = axes.lines
        assert (true.get_label(), predicted.get_label()) == ("truth", "mesh-simulator")
        assert np.allclose(true.get_ydata(), truth[name])
        assert np.allclose(predicted.get_ydata(), 0.9 * truth[name])
        low, high = axes.get_ylim()
        assert low < truth[name].min() < truth[name].max() < high
    assert figure.axes[0].get_title(loc="left") == "Trajectory 3"
    assert figure.axes[-1].get_xlabel() == "time [s]"
    assert png(figure)


def test_the_thrust_of_the_first_steps_does_not_flatten_the_rest():
    truth = np.sin(6 * TIME)
    truth[0] = 500
    (axes,) = plot_forces(TIME, {"drag": (truth, truth)}).axes
    assert axes.get_ylim()[1] < 3


def test_what_diverged_leaves_the_truth():
    prediction = np.where(TIME < 1, np.sin(TIME), np.nan)
    assert png(plot_forces(TIME, {"lift": (prediction, np.sin(TIME))}))
    assert png(plot_forces(TIME, {"lift": (np.ones(200), np.ones(200))}))


def test_bad_input():
    with pytest.raises(ValueError, match="no signal to draw"):
        plot_forces(TIME, {})
