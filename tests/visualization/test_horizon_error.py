import numpy as np
import pytest

from pyg_stmamba.visualization import plot_horizon_error


def test_lines_carry_the_errors() -> None:
    own = np.linspace(2, 4, 12)
    baselines = {"last value": own * 2, "historical average": np.full(12, 3.3)}
    figure = plot_horizon_error(own, baselines, step_seconds=300, unit="mph", model="STMamba")
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    assert set(lines) == {"STMamba", *baselines}
    np.testing.assert_array_equal(lines["STMamba"].get_ydata(), own)
    np.testing.assert_array_equal(lines["STMamba"].get_xdata(), np.arange(5, 61, 5))
    for name, errors in baselines.items():
        np.testing.assert_array_equal(lines[name].get_ydata(), errors)
    assert axes.get_xlabel() == "minutes ahead"
    assert axes.get_ylabel() == "mean absolute error [mph]"
    assert axes.get_ylim()[0] == 0
    assert {text.get_text() for text in figure.legends[0].get_texts()} == set(lines)


def test_without_baselines_and_clock() -> None:
    (axes,) = plot_horizon_error(np.array([1.0])).axes
    assert axes.get_xlabel() == "steps ahead"
    assert axes.get_ylabel() == "mean absolute error"
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [1])


def test_many_steps_are_not_all_written() -> None:
    (axes,) = plot_horizon_error(np.arange(1.0, 97), step_seconds=900).axes
    assert len(axes.get_xticks()) <= 14


def test_a_baseline_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="'naive' has 3 forecast steps, the model has 2"):
        plot_horizon_error(np.ones(2), {"naive": np.ones(3)})
