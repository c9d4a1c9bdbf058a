from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from torch import Tensor

SECONDS_PER_DAY = 86_400

# The last second of the year 2999: larger integers are milliseconds or nanoseconds.
_LATEST = 32_503_679_999


def time_of_day(timestamps: Tensor) -> Tensor:
    r"""The fraction of the day that has passed at each time stamp.

    .. math::
        \frac{t \bmod 86400}{86400} \in [0, 1)

    Args:
        timestamps (torch.Tensor): Seconds since 1970-01-01 00:00 on the local wall clock,
            integers.

    Shapes:
        - **input:** any shape, int64
        - **output:** the same shape, float32
    """
    return (timestamps.remainder(SECONDS_PER_DAY).double() / SECONDS_PER_DAY).float()


def day_of_week(timestamps: Tensor) -> Tensor:
    r"""The day of the week at each time stamp, Monday = 0 to Sunday = 6.

    Args:
        timestamps (torch.Tensor): Seconds since 1970-01-01 00:00 on the local wall clock,
            integers.

    Shapes:
        - **input:** any shape, int64
        - **output:** the same shape, int64
    """
    # 1970-01-01 was a Thursday.
    days = timestamps.div(SECONDS_PER_DAY, rounding_mode="floor")
    return (days + 3).remainder(7)


def as_seconds(timestamps: Any) -> np.ndarray:
    r"""Turns time stamps of any common type into whole seconds since 1970-01-01 00:00.

    Args:
        timestamps: One-dimensional: integers (seconds), :class:`numpy.datetime64`,
            :class:`datetime.datetime` or ISO strings. A time zone is dropped, the wall clock
            kept.

    Returns:
        numpy.ndarray: int64, shape :math:`[T]`.

    Raises:
        ValueError: If the stamps are of another type, not one-dimensional, absent (NaT), finer
            than a second, or integers too large to be seconds.
    """
    array = _as_array(timestamps)
    if array.ndim != 1:
        raise ValueError(f"timestamps must be one-dimensional [T], got shape {array.shape}")
    if array.dtype.kind == "M":
        if np.isnat(array).any():
            raise ValueError(f"timestamps hold {int(np.isnat(array).sum())} NaT entries")
        seconds = array.astype("datetime64[s]")
        if (seconds != array).any():
            raise ValueError(f"timestamps must be whole seconds, got {array[seconds != array][0]}")
        return seconds.astype(np.int64)
    if array.dtype.kind == "f" and (np.isfinite(array) & (array == np.round(array))).all():
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise ValueError(
            "timestamps must be integers (seconds since 1970-01-01), datetime64, datetime or ISO "
            f"strings, got {array.dtype}" + (f" such as {array[0]!r}" if array.size else "")
        )
    seconds = array.astype(np.int64)
    if seconds.size and seconds.max() > _LATEST:
        raise ValueError(
            "timestamps must be seconds since 1970-01-01, but the largest is "
            f"{int(seconds.max())}: it looks like milliseconds or nanoseconds, divide first or "
            "pass numpy.datetime64"
        )
    return seconds


def _as_array(timestamps: Any) -> np.ndarray:
    if isinstance(timestamps, Tensor):
        return timestamps.detach().cpu().numpy()
    array = np.asarray(timestamps)
    if array.dtype.kind in "UO" and array.ndim == 1:
        return np.array([_as_datetime64(value) for value in array], dtype="datetime64[us]")
    return array


def _as_datetime64(value: Any) -> np.datetime64:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip().replace("Z", ""))
        except ValueError:
            raise ValueError(
                f"timestamps must be ISO dates such as '2012-03-01 00:05:00', got {str(value)!r}"
            ) from None
    if not isinstance(value, datetime):
        raise ValueError(
            "timestamps must be integers (seconds since 1970-01-01), datetime64, datetime or ISO "
            f"strings, got {type(value).__name__} such as {value!r}"
        )
    return np.datetime64(value.replace(tzinfo=None), "us")


def step_of(seconds: Sequence[int] | np.ndarray) -> int:
    r"""The regular step of a series: the (lower) median difference of its time stamps.

    Args:
        seconds (numpy.ndarray): Increasing time stamps, at least two.
    """
    differences = np.sort(np.diff(np.asarray(seconds)))
    return int(differences[(len(differences) - 1) // 2])


def check_increasing(seconds: np.ndarray) -> None:
    r"""Refuses time stamps that do not increase strictly.

    Raises:
        ValueError: Naming the first pair out of order.
    """
    wrong = np.flatnonzero(np.diff(seconds) <= 0)
    if wrong.size:
        i = int(wrong[0])
        raise ValueError(
            f"timestamps must increase strictly, but step {i + 1} "
            f"({_readable(seconds[i + 1])}) does not come after step {i} "
            f"({_readable(seconds[i])}); {wrong.size} such place(s). Sort the series and drop "
            "repeated time stamps first"
        )


def grid_positions(seconds: np.ndarray) -> np.ndarray:
    r"""Where each time stamp lies on the regular grid that starts at the first one.

    Args:
        seconds (numpy.ndarray): Strictly increasing time stamps.

    Returns:
        numpy.ndarray: int64, shape :math:`[T]`: :math:`(t_i - t_0) / \Delta` with
        :math:`\Delta` the median difference. Without gaps this is :math:`0, \dots, T - 1`.

    Raises:
        ValueError: If a time stamp lies off the grid, or the gaps are more than 100 times
            longer than the series.
    """
    if len(seconds) < 2:
        return np.zeros(len(seconds), dtype=np.int64)
    step = step_of(seconds)
    offsets = seconds - seconds[0]
    off = np.flatnonzero(offsets % step)
    if off.size:
        i = int(off[0])
        raise ValueError(
            f"timestamps must lie on a regular grid: the median step is {step} s from "
            f"{_readable(seconds[0])} on, but step {i} is at {_readable(seconds[i])} "
            f"({off.size} such place(s)). Resample the series, or pass gaps='keep' to take the "
            "steps as they come"
        )
    positions = offsets // step
    if positions[-1] >= 100 * len(seconds):
        raise ValueError(
            f"{len(seconds)} timestamps with a median step of {step} s reach from "
            f"{_readable(seconds[0])} to {_readable(seconds[-1])}: filling the gaps would need "
            f"{int(positions[-1]) + 1} steps. Check the dates, or pass gaps='keep'"
        )
    return positions


def _readable(seconds: int) -> str:
    return str(np.datetime64(int(seconds), "s")).replace("T", " ")
