import numpy as np
import pytest

from pyg_stmamba.visualization import plot_time_of_day_error
from pyg_stmamba.visualization.style import png


def test_the_steps_carry_the_errors() -> None:
    errors = np.random.default_rng(0).uniform(1, 2, 288)
    errors[30] = np.nan
    figure = plot_time_of_day_error(errors, unit="mph")
    (axes,) = figure.axes
    values, edges, _ = axes.patches[0].get_data()
    np.testing.assert_array_equal(values, errors)
    np.testing.assert_allclose(edges, np.arange(289) / 12)
    assert axes.lines[0].get_ydata()[0] == pytest.approx(np.nanmean(errors))
    assert axes.get_xlim() == (0, 24)
    assert axes.get_ylabel() == "mean absolute error [mph]"
    assert axes.get_ylim()[1] > np.nanmax(errors)


@pytest.mark.parametrize("errors", [[1.0, np.nan], [np.nan, np.nan], [0.0, 0.0]])
def test_tiny_and_empty_days(errors: list[float]) -> None:
    assert len(png(plot_time_of_day_error(np.array(errors)))) > 1000


def test_a_day_of_one_step_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(1,\).*at least two steps a day"):
        plot_time_of_day_error(np.ones(1))
