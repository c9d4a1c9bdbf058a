"""Loss, validation error and learning rate over the epochs of a training."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

from .style import FAINT, MODEL, WORST, house_style, new_figure, with_unit

LEARNING_CURVES = ("train_loss", "val_mae", "learning_rate")


@house_style
def plot_learning_curves(history: Mapping[str, np.ndarray], *, unit: str = "") -> Figure:
    r"""Draws training loss, validation error and learning rate side by side over the epochs, the
    epoch with the smallest validation error marked.

    Args:
        history: Columns :obj:`"epoch"` and any of :obj:`"train_loss"`, :obj:`"val_mae"` and
            :obj:`"learning_rate"`, one entry an epoch; not-a-number where nothing was measured.
        unit: Unit of the validation error. (default: :obj:`""`)

    Shapes:
        - **input:** each column :math:`(E)` for :math:`E` epochs, one or more
        - **output:** a figure with one panel for each column that is there
    """
    columns = [name for name in LEARNING_CURVES if np.isfinite(history.get(name, [])).any()]
    if not columns:
        raise ValueError(
            f"asked for learning curves, given the columns {sorted(history)}; "
            f"at least one of {list(LEARNING_CURVES)} with a finite value is needed"
        )
    labels = {
        "train_loss": "training loss",
        "val_mae": with_unit("validation error (MAE)", unit),
        "learning_rate": "learning rate",
    }
    epochs = np.asarray(history["epoch"], dtype=float)
    figure, panels = new_figure(columns=len(columns), height=3.4)
    for axes, name in zip(panels, columns):
        values = np.asarray(history[name], dtype=float)
        axes.plot(epochs, values, color=MODEL, marker="o", markersize=4 if len(epochs) < 40 else 0)
        axes.set_title(labels[name])
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        if len(epochs) == 1:
            axes.set_xticks(epochs)
            axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
        if name == "learning_rate":
            _log_scale(axes, values[np.isfinite(values)])
        if name == "val_mae":
            best = int(np.nanargmin(values))
            axes.axvline(epochs[best], color=FAINT, linestyle=":", linewidth=1.2, zorder=1)
            axes.plot(
                epochs[best],
                values[best],
                color=WORST,
                marker="o",
                markersize=8,
                markerfacecolor="none",
                markeredgewidth=2,
                linestyle="none",
            )
            axes.set_title(f"{labels[name]}\nbest {values[best]:.4g} at epoch {epochs[best]:g}")
    return figure


def _log_scale(axes: Axes, rates: np.ndarray) -> None:
    """Schedules fall by factors; a constant rate or one that reaches zero stays linear."""
    if rates.min() <= 0 or rates.max() < 1.5 * rates.min():
        return
    decades = np.log10(rates.max() / rates.min())
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 3 else (1.0,)))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%.3g"))
    axes.yaxis.set_minor_formatter(NullFormatter())
