"""The error by time of day."""

import numpy as np
from matplotlib.figure import Figure

from .style import FAINT, MODEL, house_style, legend_below, new_figure, with_unit


@house_style
def plot_time_of_day_error(
    time_of_day_mae: np.ndarray, *, unit: str = "", model: str = "model"
) -> Figure:
    r"""Draws the mean absolute error of every time of day as a stepped line from 0 to 24 hours.

    Args:
        time_of_day_mae: Mean absolute error of the forecasts for each step of the day, the first
            one at midnight, in :obj:`unit`; not-a-number where nothing was observed.
        unit: Unit of the forecast quantity. (default: :obj:`""`)
        model: The model's name in the legend. (default: :obj:`"model"`)

    Shapes:
        - **input:** :math:`(S)` with :math:`S` steps a day, at least two
        - **output:** a figure with one stepped line
    """
    errors = np.asarray(time_of_day_mae, dtype=float)
    if errors.ndim != 1 or len(errors) < 2:
        raise ValueError(
            f"asked for the error by time of day, given errors of shape {errors.shape}; "
            "it takes one error for each step of the day, at least two steps a day"
        )
    edges = np.linspace(0.0, 24.0, len(errors) + 1)
    figure, (axes,) = new_figure()
    axes.stairs(errors, edges, baseline=None, color=MODEL, linewidth=1.8, label=model)
    average = float(np.nanmean(errors)) if np.isfinite(errors).any() else 0.0
    highest = float(np.nanmax(errors)) if np.isfinite(errors).any() else 1.0
    axes.axhline(
        average,
        color=FAINT,
        linewidth=1.4,
        linestyle="--",
        label=f"mean over the day {average:.3g}",
    )
    axes.set_title("Error by time of day")
    axes.set_xlabel("time of day of the forecast instant [h]")
    axes.set_ylabel(with_unit("mean absolute error", unit))
    axes.set_xlim(0, 24)
    axes.set_ylim(0, 1.1 * highest if highest > 0 else 1.0)
    axes.set_xticks(range(0, 25, 3), [f"{hour:02d}:00" for hour in range(0, 25, 3)])
    legend_below(figure, axes)
    return figure
