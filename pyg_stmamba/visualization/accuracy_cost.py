"""The errors of forecasters with different operators over what they cost."""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pyg_stmamba.data.whole_file import written_whole

from .point_labels import label_points
from .style import FAINT, TRUTH, house_style, new_figure, png, with_unit

COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8c6d1f", "#3d3d3d")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
COSTS = {
    "inference_milliseconds_per_window": "inference [ms / window]",
    "train_seconds_per_1000_windows": "training [s / 1,000 windows]",
}


@house_style
def plot_accuracy_cost(
    temporal: Sequence[str],
    spatial: Sequence[str],
    errors: Sequence[float],
    costs: Mapping[str, Sequence[float]],
    baselines: Mapping[str, float] | None = None,
    *,
    unit: str = "",
) -> Figure:
    r"""Draws the error of each combination of operators over its costs, one picture a cost. Those
    that none other beats in both are joined by a line.

    Args:
        temporal: Name of the temporal operator of each combination; it has a color.
        spatial: Name of the spatial operator of each; it has a marker.
        errors: Mean absolute error of each, in :obj:`unit`.
        costs: What each costs, by the label of the axis.
        baselines: Errors of baselines, drawn as lines where they lie among the others.
            (default: :obj:`None`)
        unit: Unit of the forecast quantity. (default: :obj:`""`)

    Shapes:
        - **input:** :obj:`temporal`, :obj:`spatial`, :obj:`errors` and each of :obj:`costs`
          :math:`(M)`
        - **output:** a figure with one panel a cost

    Raises:
        ValueError: If there is nothing to draw, or the lengths differ.
    """
    error = np.asarray(errors, dtype=float)
    lengths = {len(temporal), len(spatial), len(error), *map(len, costs.values())}
    if lengths != {len(error)} or not len(error) or not costs:
        raise ValueError(
            "accuracy over cost needs one temporal and one spatial operator, one error and one "
            f"value of each cost for each combination; got lengths {sorted(lengths)}"
        )
    color = dict(zip(sorted(set(temporal)), itertools.cycle(COLORS)))
    marker = dict(zip(sorted(set(spatial)), itertools.cycle(MARKERS)))
    figure, panels = new_figure(rows=len(costs), height=0.7 + 3.9 * len(costs))
    for axes, (label, values) in zip(panels, costs.items()):
        cost = np.asarray(values, dtype=float)
        front = pareto_front(cost, error)
        axes.plot(cost[front], error[front], color=FAINT, linewidth=1.2, zorder=1)
        for name, place, x, y in zip(temporal, spatial, cost, error):
            (point,) = axes.plot([x], [y], color=color[name], marker=marker[place], markersize=7.5)
            point.set(label=f"{name} + {place}", zorder=3)
        _set_limits(axes, cost, error)
        drawn = _draw_baselines(axes, baselines or {})
        axes.set_xlabel(label)
        axes.set_ylabel(with_unit("mean absolute error", unit))
    panels[0].set_title("Error over cost; the line joins what none other beats in both")
    _legend(figure, color, marker, drawn)
    # Where labels fit is known once everything else has its place.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    names = [f"{name} + {place}" for name, place in zip(temporal, spatial)]
    for axes, values in zip(panels, costs.values()):
        cost = np.asarray(values, dtype=float)
        front = pareto_front(cost, error)
        first = [*front, *(i for i in np.argsort(error) if i not in set(front))]
        label_points(axes, cost, error, names, [color[name] for name in temporal], first)
    return figure


def write_accuracy_cost(folder: str | Path) -> Path:
    r"""Draws :obj:`accuracy_cost.png` of a comparison from its :obj:`comparison.json`.

    Args:
        folder (str or pathlib.Path): Folder that :func:`pyg_stmamba.training.compare` wrote.

    Returns:
        pathlib.Path: The picture.
    """
    folder = Path(folder)
    results = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = results.get("combinations", [])
    figure = plot_accuracy_cost(
        [row["temporal"] for row in rows],
        [row["spatial"] for row in rows],
        [row["test"]["average"]["mae"] for row in rows],
        {label: [row[name] for row in rows] for name, label in COSTS.items()},
        {
            name.replace("_", " "): scores["average"]["mae"]
            for name, scores in results.get("baselines", {}).items()
        },
        unit=results.get("unit", ""),
    )
    path = folder / "accuracy_cost.png"
    with written_whole(path) as temporary:
        temporary.write_bytes(png(figure))
    return path


def pareto_front(cost: np.ndarray, error: np.ndarray) -> np.ndarray:
    r"""Returns which points no other one beats in both, from the cheapest on."""
    front: list[int] = []
    for index in np.lexsort((error, cost)):
        if np.isfinite(error[index]) and (not front or error[index] < error[front[-1]]):
            front.append(int(index))
    return np.array(front, dtype=int)


def _set_limits(axes: Axes, cost: np.ndarray, error: np.ndarray) -> None:
    axes.set_xlim(0, 1.12 * np.nanmax(cost))
    low, high = np.nanmin(error), np.nanmax(error)
    margin = 0.12 * (high - low) or 0.05 * high or 1.0
    axes.set_ylim(low - margin, high + margin)


def _draw_baselines(axes: Axes, baselines: Mapping[str, float]) -> list[Line2D]:
    low, high = axes.get_ylim()
    dashes = itertools.cycle([":", "--", "-.", (0, (6, 1, 1, 1, 1, 1))])
    return [
        axes.axhline(value, label=name, color=FAINT, linestyle=look, linewidth=1.2, zorder=0)
        for (name, value), look in zip(baselines.items(), dashes)
        if low < value < high
    ]


def _legend(
    figure: Figure,
    color: Mapping[str, str],
    marker: Mapping[str, str],
    baselines: Sequence[Line2D],
) -> None:
    handles = [
        Line2D([], [], color=look, marker="o", linestyle="", label=f"{name} over time")
        for name, look in color.items()
    ]
    handles += [
        Line2D([], [], color=TRUTH, marker=look, linestyle="", label=f"{name} over nodes")
        for name, look in marker.items()
    ]
    handles += baselines
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
