"""Which pictures a run has, and what each takes from its results."""

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.figure import Figure

from .forecasts import plot_forecasts
from .horizon_error import plot_horizon_error
from .learning_curves import LEARNING_CURVES, plot_learning_curves
from .node_map import plot_node_map
from .run_results import RunResults
from .time_of_day_error import plot_time_of_day_error


class NothingToDraw(ValueError):
    """A picture's data are not there; the message says which."""


def _forecasts(run: RunResults) -> Figure:
    stored = run.forecasts
    prediction = _need(stored, "prediction")
    horizon = prediction.shape[-1]
    step_seconds = run.step_seconds
    an_hour = max(1, round(3600 / step_seconds)) if step_seconds else horizon
    return plot_forecasts(
        prediction,
        _need(stored, "target"),
        stored.get("mask"),
        horizon=min(horizon, an_hour),
        window=int(stored.get("window", 0)),
        start_timestamps=stored.get("start_timestamps"),
        step_seconds=step_seconds,
        node_mae=stored.get("node_mae"),
        node_ids=[str(name) for name in stored.get("node_ids", ())],
        quantity=run.channel,
        unit=run.unit,
    )


def _horizon_error(run: RunResults) -> Figure:
    start, end = "baseline_", "_horizon_mae"
    baselines = {
        name[len(start) : -len(end)].replace("_", " "): errors
        for name, errors in run.forecasts.items()
        if name.startswith(start) and name.endswith(end)
    }
    return plot_horizon_error(
        _need(run.forecasts, "horizon_mae"),
        baselines,
        step_seconds=run.step_seconds,
        unit=run.unit,
        model=run.model,
    )


def _time_of_day_error(run: RunResults) -> Figure:
    errors = _need(run.forecasts, "time_of_day_mae")
    if len(errors) < 2:
        raise NothingToDraw("a single step covers the whole day")
    return plot_time_of_day_error(errors, unit=run.unit, model=run.model)


def _node_map(run: RunResults) -> Figure:
    errors = _need(run.forecasts, "node_mae")
    edges = run.forecasts.get("edge_index", np.zeros((2, 0), dtype=int))
    return plot_node_map(errors, edges, run.forecasts.get("positions"), unit=run.unit)


def _learning_curves(run: RunResults) -> Figure:
    if "epoch" not in run.history:
        raise NothingToDraw("metrics.csv has no epochs")
    if not any(np.isfinite(run.history.get(name, [])).any() for name in LEARNING_CURVES):
        raise NothingToDraw("metrics.csv has no finite value")
    return plot_learning_curves(run.history, unit=run.unit)


PICTURES: dict[str, tuple[Callable[[RunResults], Figure], str]] = {
    "forecasts": (
        _forecasts,
        "Forecasts made a fixed time ahead over what was observed, for the nodes of smallest, "
        "median and largest error, on the first days with the fewest gaps. Gaps in the dark line "
        "are missing data.",
    ),
    "horizon_error": (
        _horizon_error,
        "Mean absolute error over the whole test set for each step "
        "ahead, beside the baselines on the same windows.",
    ),
    "time_of_day_error": (
        _time_of_day_error,
        "Mean absolute error over the whole test set and "
        "all steps ahead, by the time of day of the forecast instant.",
    ),
    "node_map": (
        _node_map,
        "Mean absolute error of each node over the whole test set. An arrow at the "
        "end of the colour scale stands for single nodes far beyond it.",
    ),
    "learning_curves": (_learning_curves, "The training, epoch by epoch."),
}


def _need(stored: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    value = stored.get(name)
    if value is None:
        raise NothingToDraw(f"forecasts.npz has no {name}")
    if value.size == 0 or not np.isfinite(value).any():
        raise NothingToDraw(f"{name} in forecasts.npz is empty")
    return value
