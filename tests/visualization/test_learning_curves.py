import numpy as np
import pytest

from pyg_stmamba.visualization import plot_learning_curves
from pyg_stmamba.visualization.style import png


def history(epochs: int) -> dict[str, np.ndarray]:
    epoch = np.arange(1, epochs + 1)
    return {
        "epoch": epoch,
        "train_loss": 5.0 / epoch,
        "val_mae": 3 + (epoch - 6.0) ** 2,
        "learning_rate": 0.01 * 0.5**epoch,
        "seconds": np.ones(epochs),
    }


def test_panels_carry_the_columns() -> None:
    columns = history(9)
    figure = plot_learning_curves(columns, unit="mph")
    assert len(figure.axes) == 3
    for axes, name in zip(figure.axes, ("train_loss", "val_mae", "learning_rate")):
        np.testing.assert_array_equal(axes.lines[0].get_xdata(), columns["epoch"])
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), columns[name])
        assert axes.get_xlabel() == "epoch"
    assert figure.axes[2].get_yscale() == "log"
    title = figure.axes[1].get_title(loc="left")
    assert title == "validation error (MAE) [mph]\nbest 3 at epoch 6"


@pytest.mark.parametrize("epochs", [1, 2, 300])
def test_any_number_of_epochs(epochs: int) -> None:
    assert len(png(plot_learning_curves(history(epochs)))) > 1000


def test_what_was_not_measured_has_no_panel() -> None:
    columns = history(4)
    columns["val_mae"] = np.full(4, np.nan)
    del columns["learning_rate"]
    assert len(plot_learning_curves(columns).axes) == 1


def test_the_best_epoch_ignores_unmeasured_ones() -> None:
    columns = history(4)
    columns["val_mae"] = np.array([np.nan, 4.0, 2.0, np.nan])
    assert "best 2 at epoch 3" in plot_learning_curves(columns).axes[1].get_title(loc="left")


@pytest.mark.parametrize("rate", [0.001, 0.0])
def test_a_constant_rate_stays_linear(rate: float) -> None:
    columns = {**history(4), "learning_rate": np.full(4, rate)}
    assert plot_learning_curves(columns).axes[2].get_yscale() == "linear"


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"given the columns \['epoch', 'note'\]"):
        plot_learning_curves({"epoch": np.arange(3), "note": np.full(3, np.nan)})
