"""How the error of a rollout grows, beside the baselines."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyg_stmamba.visualization.style import (
    MODEL,
    WORST,
    LineLook,
    baseline_looks,
    house_style,
    legend_below,
    new_figure,
    with_unit,
)


@house_style
def plot_error_growth(
    time: np.ndarray,
    errors: Mapping[str, np.ndarray],
    *,
    quantity: str = "velocity RMSE",
    unit: str = "",
    time_unit: str = "s",
) -> Figure:
    r"""Draws the error of each step of a rollout over time on a logarithmic axis: the mean over
    the trajectories as a line, from the least to the largest as a band.

    A rollout that diverged ends with a cross, and the line goes on as the mean of the others,
    fewer from there on.

    Args:
        time: Time since the start of the rollout.
        errors: The error of each trajectory at each step by method, the model first; infinite
            from the step at which a rollout diverged on, not-a-number after its end.
        quantity: What the error is of. (default: :obj:`"velocity RMSE"`)
        unit: Its unit. (default: :obj:`""`)
        time_unit: Unit of time. (default: :obj:`"s"`)

    Shapes:
        - **input:** :obj:`time` :math:`(T)`, each error :math:`(R, T)` or :math:`(T)`
        - **output:** a figure with one line a method
    """
    time = np.asarray(time, dtype=float)
    figure, (axes,) = new_figure(height=4.4)
    looks = [LineLook(MODEL, "-", ""), *(look for look, _ in zip(baseline_looks(), errors))]
    for number, ((name, values), look) in enumerate(zip(errors.items(), looks)):
        values = np.atleast_2d(np.asarray(values, dtype=float))
        if values.shape[1] != len(time):
            raise ValueError(
                f"'{name}' has errors of {values.shape[1]} steps, but there are {len(time)} times"
            )
        _draw_method(axes, time, values, f"{name}{_failures(values)}", look, front=not number)
    if any(np.ma.count(_positive(values)) for values in errors.values()):
        axes.set_yscale("log")
    axes.set_title("Error growth in the rollout")
    axes.set_xlabel(with_unit("time since the start", time_unit))
    axes.set_ylabel(with_unit(quantity, unit))
    axes.grid(visible=True, which="minor", axis="y", linewidth=0.4)
    legend_below(figure, axes)
    return figure


def _draw_method(
    axes: Axes, time: np.ndarray, values: np.ndarray, label: str, look: LineLook, front: bool
) -> None:
    finite = _positive(values)
    axes.plot(
        time,
        finite.mean(0),
        label=label,
        color=look.color,
        linestyle=look.linestyle,
        linewidth=2.4 if front else 1.6,
        zorder=4 if front else 3,
    )
    if len(values) > 1:
        axes.fill_between(
            time, finite.min(0), finite.max(0), color=look.color, alpha=0.15, linewidth=0
        )
    for row, kept in zip(values, finite):
        diverged = np.flatnonzero(np.isposinf(row))
        if len(diverged) and diverged[0] > 0:
            last = diverged[0] - 1
            axes.plot(time[last], kept[last], "X", color=WORST, markersize=9, zorder=5)


def _positive(values: np.ndarray) -> np.ma.MaskedArray:
    """A logarithmic axis has no place for 0, nor for what diverged."""
    values = np.asarray(values, dtype=float)
    return np.ma.masked_where(~np.isfinite(values) | (values <= 0), values)


def _failures(values: np.ndarray) -> str:
    failed = int(np.isposinf(values).any(1).sum())
    return f" ({failed} of {len(values)} diverged)" if failed else ""
