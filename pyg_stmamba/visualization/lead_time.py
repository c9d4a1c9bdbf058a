"""How far ahead a forecast looks, in the unit a reader expects."""

import numpy as np

MINUTE, HOUR, DAY = 60, 3600, 86400


def duration(seconds: float) -> str:
    """Write a length of time in its largest whole-sounding unit: 45 min, 1 h, 1.5 h, 2 days."""
    if seconds < MINUTE:
        return f"{seconds:g} s"
    if seconds < HOUR:
        return f"{seconds / MINUTE:g} min"
    if seconds < 2 * DAY:
        return f"{seconds / HOUR:.4g} h"
    return f"{seconds / DAY:.4g} days"


def lead_time(step: int, step_seconds: float | None) -> str:
    """Name the forecast :obj:`step` steps ahead: "15 min ahead", or "step 3" without a clock."""
    return f"{duration(step * step_seconds)} ahead" if step_seconds else f"step {step}"


def lead_times(horizon: int, step_seconds: float | None) -> tuple[np.ndarray, str]:
    """The numbers of an axis that runs over the forecast steps, and the axis' label."""
    steps = np.arange(1, horizon + 1)
    if not step_seconds:
        return steps, "steps ahead"
    longest = horizon * step_seconds
    if longest <= 3 * MINUTE:
        return steps * step_seconds, "seconds ahead"
    if longest <= 3 * HOUR:
        return steps * step_seconds / MINUTE, "minutes ahead"
    if longest <= 3 * DAY:
        return steps * step_seconds / HOUR, "hours ahead"
    return steps * step_seconds / DAY, "days ahead"
