"""Forecast against truth for a few nodes over some days."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from .forecast_lines import (
    Line,
    cut,
    fullest_days,
    lines_by_clock,
    lines_by_window,
    windows_overlap,
)
from .lead_time import DAY, lead_time
from .style import MODEL, TRUTH, house_style, legend_below, new_figure, with_unit

WITHOUT_CLOCK = 300


@house_style
def plot_forecasts(
    prediction: np.ndarray,
    target: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    horizon: int | None = None,
    window: int = 0,
    start_timestamps: np.ndarray | None = None,
    step_seconds: float | None = None,
    nodes: Mapping[str, int] | None = None,
    node_mae: np.ndarray | None = None,
    node_ids: Sequence[str] | None = None,
    days: int | None = None,
    quantity: str = "value",
    unit: str = "",
) -> Figure:
    r"""Draws forecasts made a fixed time ahead over the observed truth, one panel a node.

    Missing truth is a gap. With timestamps, the days shown are the first :obj:`days` ones with the
    fewest gaps, and windows too far apart to overlap are drawn whole; without timestamps the axis
    counts windows.

    Args:
        prediction: Forecasts of some windows in order of time, in :obj:`unit`.
        target: What was observed, in :obj:`unit`.
        mask: Which targets were observed (:obj:`True` = observed); all finite ones without it.
            (default: :obj:`None`)
        horizon: How many steps ahead, from 1 to :math:`H`. (default: :math:`H`)
        window: Number of input steps, so that a window that starts at step :math:`s` forecasts the
            steps from :math:`s` + :obj:`window` on. (default: :obj:`0`)
        start_timestamps: Seconds since 1970 of each window's first input step.
            (default: :obj:`None`)
        step_seconds: Seconds from one step to the next. (default: :obj:`None`)
        nodes: Which nodes, by the word that describes them; those of smallest, median and largest
            error without it. (default: :obj:`None`)
        node_mae: Error of each node, for the choice and the titles; that of the given windows
            without it. (default: :obj:`None`)
        node_ids: Names of the nodes. (default: their numbers)
        days: How many days to show. (default: :obj:`3`, more where these hold under 100 steps)
        quantity: What is forecast. (default: :obj:`"value"`)
        unit: Its unit. (default: :obj:`""`)

    Shapes:
        - **input:** :obj:`prediction`, :obj:`target` and :obj:`mask` :math:`(S, N, H)`,
          :obj:`start_timestamps` :math:`(S)`, :obj:`node_mae` :math:`(N)`
        - **output:** a figure with a truth and a forecast line for each chosen node
    """
    prediction, target = np.asarray(prediction, float), np.asarray(target, float)
    if prediction.ndim != 3 or prediction.shape != target.shape or 0 in prediction.shape:
        raise ValueError(
            f"asked for forecasts against truth, given predictions of shape {prediction.shape} and "
            f"targets of shape {target.shape}; both need the shape (windows, nodes, steps)"
        )
    observed = np.isfinite(target) if mask is None else np.asarray(mask, bool) & np.isfinite(target)
    steps = prediction.shape[2]
    horizon = steps if horizon is None else horizon
    if not 1 <= horizon <= steps:
        raise ValueError(f"asked for {horizon} steps ahead; the forecasts reach from 1 to {steps}")
    if node_mae is None:
        node_mae = mean_error(prediction, target, observed)
    nodes = nodes or choose_nodes(node_mae)
    truth = np.where(observed, target, np.nan)
    ahead = lead_time(horizon, step_seconds) if step_seconds else f"{horizon} steps ahead"
    label = f"forecast made {ahead}"
    starts = np.asarray(() if start_timestamps is None else start_timestamps, dtype=np.int64)
    step = int(step_seconds or 0)
    has_clock = len(starts) > 0 and step > 0
    if has_clock:
        first_target = starts + window * step
        lines = [
            lines_by_clock(prediction[:, node], truth[:, node], first_target, step, horizon)
            for node in nodes.values()
        ]
        days = days or max(3, -(-100 * step // DAY))
        first, last = fullest_days([line.observed for line in lines], days)
        if not windows_overlap(first_target, step, steps):
            label = f"forecasts up to {lead_time(steps, step)}"
    else:
        lines = [
            lines_by_window(prediction[:, node], truth[:, node], horizon, WITHOUT_CLOCK)
            for node in nodes.values()
        ]
        first, last = 0, max(1, min(len(prediction), WITHOUT_CLOCK) - 1)

    figure, panels = new_figure(rows=len(nodes), height=1.0 + 2.1 * len(nodes), share_x=True)
    for axes, (word, node), (observed_line, forecast_line) in zip(panels, nodes.items(), lines):
        _draw(axes, cut(observed_line, first, last), has_clock, TRUTH, "observed")
        _draw(axes, cut(forecast_line, first, last), has_clock, MODEL, label)
        name = node_ids[node] if node_ids is not None and len(node_ids) else node
        axes.set_title(f"node {name}: {word}, MAE {node_mae[node]:.3g} {unit}".rstrip())
        axes.set_ylabel(with_unit(quantity, unit))
    if has_clock:
        margin = 0.01 * (last - first) or step
        panels[0].set_xlim(*np.array([first - margin, last + margin]).astype("datetime64[s]"))
        _write_dates(panels[-1])
    else:
        panels[0].set_xlim(first - 1, last + 1)
        panels[-1].set_xlabel("forecast windows in order of time")
    legend_below(figure, panels[0])
    return figure


def mean_error(prediction: np.ndarray, target: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Mean absolute error of each node over all its observed targets."""
    error = np.where(observed, np.abs(prediction - np.nan_to_num(target)), 0.0).sum((0, 2))
    count = observed.sum((0, 2))
    return np.divide(error, count, out=np.full(len(count), np.nan), where=count > 0)


def choose_nodes(node_mae: np.ndarray) -> dict[str, int]:
    """The nodes of smallest, median and largest error; nodes without an error are not chosen."""
    node_mae = np.asarray(node_mae, dtype=float)
    ranking = np.argsort(node_mae, kind="stable")
    order = [int(node) for node in ranking if np.isfinite(node_mae[node])]
    if not order:
        return {"nothing observed": 0}
    if len(order) == 1:
        return {"the only one observed": order[0]}
    chosen = {
        "smallest error": order[0],
        "median error": order[(len(order) - 1) // 2],
        "largest error": order[-1],
    }
    if len(order) == 2:
        del chosen["median error"]
    return chosen


def _draw(axes: Axes, line: Line, has_clock: bool, color: str, label: str) -> None:
    where = line.where.astype("datetime64[s]") if has_clock else line.where
    marker = "." if np.isfinite(line.values).sum() < 50 else ""
    axes.plot(where, line.values, color=color, label=label, linewidth=1.4, marker=marker)


def _write_dates(axes: Axes) -> None:
    locator = AutoDateLocator(tz="UTC", minticks=5, maxticks=10)
    formatter = ConciseDateFormatter(
        locator,
        tz="UTC",
        formats=["%Y", "%b", "%a %d %b", "%H:%M", "%H:%M", "%H:%M:%S"],
        zero_formats=["", "%Y", "%b", "%a %d %b", "%H:%M", "%H:%M"],
        offset_formats=["", "%Y", "%Y", "%Y", "%d %b %Y", "%d %b %Y"],
    )
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(formatter)
