import numpy as np
import pytest

from pyg_stmamba.visualization.mesh import plot_error_growth
from pyg_stmamba.visualization.style import MODEL, WORST, png

TIME = 0.1 * np.arange(1, 6)


def lines(figure) -> dict:
    return {line.get_label(): line for line in figure.axes[0].lines}


def test_one_line_a_method_on_a_logarithmic_axis():
    errors = {
        "model": np.array([[1.0, 2, 3, 4, 5], [3, 4, 5, 6, 7]]),
        "persistence": np.array([10.0, 20, 30, 40, 50]),
    }
    figure = plot_error_growth(TIME, errors, quantity="velocity RMSE", unit="m/s")
    (axes,) = figure.axes
    drawn = lines(figure)
    assert set(drawn) == {"model", "persistence"}
    assert np.allclose(drawn["model"].get_xdata(), TIME)
    assert np.allclose(drawn["model"].get_ydata(), [2, 3, 4, 5, 6])
    assert np.allclose(drawn["persistence"].get_ydata(), errors["persistence"])
    assert drawn["model"].get_color() == MODEL != drawn["persistence"].get_color()
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel() == "velocity RMSE [m/s]"
    (band,) = axes.collections
    box = band.get_paths()[0].get_extents()
    assert np.allclose([box.y0, box.y1], [1, 7])
    assert png(figure)


def test_a_divergence_is_marked_and_counted():
    errors = np.array([[1.0, 2, np.inf, np.inf, np.inf], [3, 4, 5, 6, 7]])
    figure = plot_error_growth(TIME, {"model": errors})
    drawn = lines(figure)
    assert np.allclose(drawn["model (1 of 2 diverged)"].get_ydata(), [2, 3, 5, 6, 7])
    (cross,) = [line for line in figure.axes[0].lines if line.get_marker() == "X"]
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (TIME[1], 2)
    assert cross.get_color() == WORST
    assert png(figure)


def test_what_ended_or_is_0_has_no_place():
    errors = np.array([[0.0, 2, 2, 2, 2], [4, 4, 4, np.nan, np.nan]])
    drawn = lines(plot_error_growth(TIME, {"model": errors}))["model"].get_ydata()
    assert np.allclose(drawn, [4, 3, 3, 2, 2])


@pytest.mark.parametrize("start", [np.inf, np.nan, 0.0])
def test_nothing_at_all_is_still_a_picture(start):
    assert png(plot_error_growth(TIME, {"model": np.full((2, 5), start)}))


def test_bad_input():
    with pytest.raises(ValueError, match="'model' has errors of 4 steps, but there are 5 times"):
        plot_error_growth(TIME, {"model": np.ones((2, 4))})
