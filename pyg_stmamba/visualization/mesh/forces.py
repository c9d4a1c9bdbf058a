"""Drag and lift over time, predicted and true."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from pyg_stmamba.visualization.style import (
    MODEL,
    TRUTH,
    house_style,
    legend_below,
    new_figure,
    with_unit,
)


@house_style
def plot_forces(
    time: np.ndarray,
    signals: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    model: str = "model",
    title: str = "",
    unit: str = "",
    time_unit: str = "s",
) -> Figure:
    r"""Draws predicted signals over the true ones, one panel each above the other.

    Args:
        time: Time of each step.
        signals: Prediction and truth by name, usually :obj:`"drag"` and :obj:`"lift"`; a
            prediction is not a number where the rollout had diverged.
        model: The model's name in the legend. (default: :obj:`"model"`)
        title: Over the first panel. (default: :obj:`""`)
        unit: Unit of the signals. (default: :obj:`""`)
        time_unit: Unit of time. (default: :obj:`"s"`)

    Shapes:
        - **input:** :obj:`time` :math:`(T)`, each signal a pair of :math:`(T)`
        - **output:** a figure with one panel a signal
    """
    if not signals:
        raise ValueError("there is no signal to draw; at least one is needed")
    figure, panels = new_figure(rows=len(signals), height=1.2 + 2.1 * len(signals), share_x=True)
    for axes, (name, (prediction, truth)) in zip(panels, signals.items()):
        axes.plot(time, truth, color=TRUTH, linewidth=2.6, label="truth")
        axes.plot(time, prediction, color=MODEL, linestyle="--", label=model)
        axes.set_ylabel(with_unit(name, unit))
        low, high = _view(np.asarray(truth, dtype=float))
        axes.set_ylim(low, high)
    panels[0].set_title(title)
    panels[-1].set_xlabel(with_unit("time", time_unit))
    legend_below(figure, panels[0])
    return figure


def _view(truth: np.ndarray) -> tuple[float, float]:
    """What is to be seen: the truth but for the thrust of a start from rest, and as much again
    for a prediction that overshoots."""
    low, high = np.nanquantile(truth, [0.02, 0.98])
    margin = 0.5 * (high - low) or 0.5 * abs(high) or 1.0
    return float(low - margin), float(high + margin)
