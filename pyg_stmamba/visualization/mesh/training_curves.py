"""Loss, validation error and learning rate over the epochs of a training on meshes."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyg_stmamba.visualization.style import FAINT, MODEL, WORST, house_style, new_figure


@house_style
def plot_training_curves(history: Mapping[str, np.ndarray]) -> Figure:
    r"""Draws the losses of training and validation in one panel, every other validation error in
    one of its own, and the learning rate, over the epochs.

    Args:
        history: Columns :obj:`"epoch"`, :obj:`"train_loss"`, :obj:`"learning_rate"` and any that
            start with :obj:`"val_"`, one entry an epoch; not-a-number where nothing was measured.

    Shapes:
        - **input:** each column :math:`(E)` for :math:`E` epochs, one or more
        - **output:** a figure with one panel for each kind of column that is there
    """
    there = [name for name, values in history.items() if np.isfinite(values).any()]
    losses = [name for name in there if name in ("train_loss", "val_loss")]
    others = [name for name in there if name.startswith("val_") and name not in losses]
    others += [name for name in there if name == "learning_rate"]
    panels = [part for part in [losses, *([name] for name in others)] if part]
    if not panels or "epoch" not in history:
        raise ValueError(
            f"asked for training curves, given the columns {sorted(history)}; 'epoch' and a loss, "
            "a validation error or the learning rate with a finite value are needed"
        )
    epochs = np.asarray(history["epoch"], dtype=float)
    figure, drawn = new_figure(columns=len(panels), height=3.4)
    for axes, names in zip(drawn, panels):
        for name, color in zip(names, (MODEL, WORST)):
            _draw(axes, epochs, np.asarray(history[name], dtype=float), name, color)
        axes.set_title(" and ".join(_words(name) for name in names))
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        if len(names) > 1:
            axes.legend()
    return figure


def _draw(axes: Axes, epochs: np.ndarray, values: np.ndarray, name: str, color: str) -> None:
    measured = np.isfinite(values)
    marker = "o" if measured.sum() < 40 else ""
    axes.plot(
        epochs[measured],
        values[measured],
        color=color,
        marker=marker,
        markersize=4,
        label=_words(name),
    )
    if (values[measured] > 0).all():
        axes.set_yscale("log")
    if name.startswith("val_"):
        best = int(np.nanargmin(values))
        axes.axvline(epochs[best], color=FAINT, linestyle=":", linewidth=1.2, zorder=1)


def _words(name: str) -> str:
    return name.replace("val_", "validation ").replace("train_", "training ").replace("_", " ")
