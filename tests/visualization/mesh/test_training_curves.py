import numpy as np
import pytest

from pyg_stmamba.visualization.mesh import plot_training_curves
from pyg_stmamba.visualization.style import png

HISTORY = {
    "epoch": np.arange(6.0),
    "train_loss": np.array([3.0, 2, 1, 0.5, 0.4, 0.3]),
    "val_loss": np.array([3.0, 2, 1.5, 1.2, 1.3, 1.4]),
    "val_velocity_rmse": np.array([np.nan, 0.5, np.nan, 0.2, np.nan, 0.3]),
    "learning_rate": np.full(6, 1e-3),
    "seconds": np.ones(6),
}


def test_losses_together_and_the_rest_apart():
    figure = plot_training_curves(HISTORY)
    losses, rollout, rate = figure.axes
    assert [line.get_label() for line in losses.get_legend().get_lines()] == [
        "training loss",
        "validation loss",
    ]
    assert losses.get_title(loc="left") == "training loss and validation loss"
    assert rollout.get_title(loc="left") == "validation velocity rmse"
    assert rate.get_title(loc="left") == "learning rate"
    line, best = rollout.lines
    assert np.allclose(line.get_xdata(), [1, 3, 5])
    assert np.allclose(line.get_ydata(), [0.5, 0.2, 0.3])
    assert best.get_xdata()[0] == 3
    assert losses.get_yscale() == "log"
    assert png(figure)


def test_what_was_not_measured_is_left_out():
    empty = {**HISTORY, "val_loss": np.full(6, np.nan), "val_velocity_rmse": np.full(6, np.nan)}
    assert len(plot_training_curves(empty).axes) == 2
    assert png(plot_training_curves({"epoch": np.zeros(1), "train_loss": np.zeros(1)}))


def test_bad_input():
    with pytest.raises(ValueError, match=r"given the columns \['epoch', 'seconds'\]"):
        plot_training_curves({"epoch": np.zeros(1), "seconds": np.ones(1)})
    with pytest.raises(ValueError, match="'epoch' and a loss"):
        plot_training_curves({"train_loss": np.ones(1)})
