"""From overlapping windows to the lines of a picture: what was observed, what was forecast."""

from typing import NamedTuple

import numpy as np

from .lead_time import DAY


class Line(NamedTuple):
    """Points to connect; a value that is not a number is a gap."""

    where: np.ndarray
    values: np.ndarray


class ForecastLines(NamedTuple):
    """What one node showed, and what was forecast for it."""

    observed: Line
    forecast: Line


def lines_by_clock(
    prediction: np.ndarray,
    truth: np.ndarray,
    first_target: np.ndarray,
    step_seconds: int,
    horizon: int,
) -> ForecastLines:
    """One node's truth from all steps of all windows, and its forecasts :obj:`horizon` ahead.

    Where the windows lie too far apart to overlap, such forecasts would be lonely points; then
    each window's whole forecast is a piece of line.

    Args:
        prediction: Forecasts of one node.
        truth: What was observed; not a number where nothing was.
        first_target: Seconds since 1970 of each window's first forecast step.
        step_seconds: Seconds from one step to the next.
        horizon: How many steps ahead, from 1 to :math:`H`.

    Shapes:
        - **input:** :obj:`prediction` and :obj:`truth` :math:`(S, H)`, :obj:`first_target`
          :math:`(S)`
    """
    order = np.argsort(first_target, kind="stable")
    prediction, truth, first_target = prediction[order], truth[order], first_target[order]
    ahead = np.arange(truth.shape[1]) * step_seconds
    instants = (first_target[:, None] + ahead).ravel()
    values = truth.ravel()
    # Of the several copies of an instant an observed one counts.
    observed_first = np.lexsort((np.isnan(values), instants))
    times, index = np.unique(instants[observed_first], return_index=True)
    observed = with_gaps(times, values[observed_first][index], 1.5 * step_seconds)
    if windows_overlap(first_target, step_seconds, truth.shape[1]):
        forecast = with_gaps(
            first_target + ahead[horizon - 1],
            prediction[:, horizon - 1],
            2 * max(step_seconds, _spacing(first_target)),
        )
    else:
        forecast = with_gaps(instants, prediction.ravel(), 1.5 * step_seconds)
    return ForecastLines(observed, forecast)


def windows_overlap(first_target: np.ndarray, step_seconds: int, steps: int) -> bool:
    """Whether the windows' targets leave no instant between them."""
    return _spacing(first_target) <= steps * step_seconds and len(first_target) > 1


def lines_by_window(
    prediction: np.ndarray, truth: np.ndarray, horizon: int, most: int
) -> ForecastLines:
    """The first windows of one node, counted for want of a clock."""
    count = np.arange(min(len(prediction), most))
    return ForecastLines(
        Line(count, truth[: len(count), horizon - 1]),
        Line(count, prediction[: len(count), horizon - 1]),
    )


def with_gaps(times: np.ndarray, values: np.ndarray, longest: float) -> Line:
    """Break the line where two neighbours lie further apart than :obj:`longest` seconds."""
    after = np.flatnonzero(np.diff(times) > longest) + 1
    return Line(np.insert(times, after, times[after] - 1), np.insert(values, after, np.nan))


def fullest_days(observed: list[Line], days: int) -> tuple[float, float]:
    """Begin and end of the first :obj:`days` days with the fewest gaps, from a midnight if the
    record holds that many whole days, else from its beginning."""
    begin, end = observed[0].where[0], observed[0].where[-1]
    length = days * DAY
    midnights = np.arange(-(-begin // DAY) * DAY, end - length + 1, DAY)
    if not len(midnights):
        return begin, min(end, begin + length)
    seen = np.sort(np.concatenate([line.where[np.isfinite(line.values)] for line in observed]))
    counts = np.searchsorted(seen, midnights + length) - np.searchsorted(seen, midnights)
    first = midnights[int(np.argmax(counts))]
    return first, first + length


def cut(line: Line, first: float, last: float) -> Line:
    shown = (line.where >= first) & (line.where <= last)
    return Line(line.where[shown], line.values[shown])


def _spacing(first_target: np.ndarray) -> int:
    return int(np.median(np.diff(first_target))) if len(first_target) > 1 else 0
