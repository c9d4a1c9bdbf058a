"""The error by forecast horizon, beside the baselines."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .lead_time import lead_times
from .style import MODEL, baseline_looks, house_style, legend_below, new_figure, with_unit


@house_style
def plot_horizon_error(
    horizon_mae: np.ndarray,
    baselines: Mapping[str, np.ndarray] | None = None,
    *,
    step_seconds: float | None = None,
    unit: str = "",
    model: str = "model",
) -> Figure:
    r"""Draws the mean absolute error of every forecast step, the model's beside the baselines'.

    Args:
        horizon_mae: Mean absolute error of each forecast step, in :obj:`unit`.
        baselines: The same for each baseline, by name. (default: :obj:`None`)
        step_seconds: Seconds from one step to the next; without it the axis counts steps.
            (default: :obj:`None`)
        unit: Unit of the forecast quantity. (default: :obj:`""`)
        model: The model's name in the legend. (default: :obj:`"model"`)

    Shapes:
        - **input:** :obj:`horizon_mae` :math:`(H)`, each baseline :math:`(H)`
        - **output:** a figure with one line for the model and one for each baseline
    """
    horizon_mae = np.asarray(horizon_mae, dtype=float)
    ahead, label = lead_times(len(horizon_mae), step_seconds)
    figure, (axes,) = new_figure(height=4.2)
    axes.plot(ahead, horizon_mae, label=model, color=MODEL, marker="o", linewidth=2.6, zorder=3)
    for (name, errors), look in zip((baselines or {}).items(), baseline_looks()):
        if len(errors) != len(horizon_mae):
            raise ValueError(
                f"baseline '{name}' has {len(errors)} forecast steps, the model has "
                f"{len(horizon_mae)}; both need one error for each step"
            )
        axes.plot(ahead, errors, label=name, markersize=5, **look._asdict())
    axes.set_title("Error by forecast horizon")
    axes.set_xlabel(label)
    axes.set_ylabel(with_unit("mean absolute error", unit))
    axes.set_ylim(bottom=0)
    if len(ahead) <= 16:
        axes.set_xticks(ahead, [f"{value:.4g}" for value in ahead])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    legend_below(figure, axes)
    return figure
