import numpy as np
from scipy.signal import lfilter

DAY = 86_400.0


def daily_profile(seconds: np.ndarray, morning: np.ndarray) -> np.ndarray:
    r"""The share of the largest demand at instants of the week, ``[T, origins]``.

    Working days have a morning and an evening peak, Fridays an earlier and broader evening,
    weekends one broad hump in the afternoon.

    Args:
        seconds (numpy.ndarray): Seconds since a Monday 00:00 ``[T]`` or ``[T, origins]``.
        morning (numpy.ndarray): In [0, 1] how much of the peak demand of an origin comes in the
            morning (1) rather than in the evening (0) ``[origins]``.
    """
    hour = (seconds / 3600.0 % 168.0).reshape(len(seconds), -1)

    def hump(middle: float, width: float) -> np.ndarray:
        # The distance on the clock, so that midnight is no step.
        away = (hour - middle + 12.0) % 24.0 - 12.0
        return np.exp(-0.5 * (away / width) ** 2)

    def days(first: float, last: float) -> np.ndarray:
        # 1 within the days, gliding to 0 between 22 and 2 o'clock.
        away = np.abs((hour - 12.0 * (first + last) + 84.0) % 168.0 - 84.0)
        return np.clip((12.0 * (last - first) + 2.0 - away) / 4.0, 0.0, 1.0)

    early = (0.75 + 0.25 * morning) * hump(7.8, 1.4)
    late = 1.0 - 0.25 * morning
    noon = 0.58 * hump(12.8, 3.6) + 0.10
    # A smooth maximum: the peaks rise out of the traffic of the day.
    usual = (np.maximum(early, late * hump(17.0, 1.8)) ** 4 + noon**4) ** 0.25
    friday = (np.maximum(early, late * hump(16.4, 2.3)) ** 4 + noon**4) ** 0.25
    weekend = 0.72 * hump(14.8, 3.8) + 0.10
    return usual * days(0, 4) + friday * days(4, 5) + weekend * days(5, 7)


def random_demand(
    seconds: np.ndarray,
    scale: np.ndarray,
    morning: np.ndarray,
    rng: np.random.Generator,
    *,
    day_to_day: float = 0.09,
    within_day: float = 0.08,
    minutes: float = 45.0,
) -> np.ndarray:
    r"""The demand of every origin, in veh/h ``[T, origins]``: the daily profile with the peaks
    shifted a little every day, times a level that varies from day to day, times a smooth
    variation within the day.

    Args:
        seconds (numpy.ndarray): Evenly spaced seconds since a Monday 00:00 ``[T]``.
        scale (numpy.ndarray): Largest usual demand ``[origins]``, in veh/h.
        morning (numpy.ndarray): See :func:`daily_profile`.
        rng (numpy.random.Generator): Source of chance.
        day_to_day (float): Standard deviation of the logarithm of a day's level, half of its
            variance common to all origins. (default: :obj:`0.09`)
        within_day (float): Standard deviation of the logarithm of the variation within a day,
            half of its variance common to all origins. (default: :obj:`0.08`)
        minutes (float): Correlation time of the variation within a day. (default: :obj:`45.0`)
    """
    origins = len(scale)
    first = int(seconds[0] // DAY) - 1
    days = np.arange(first, int(seconds[-1] // DAY) + 2)

    def shared(*shape: int) -> np.ndarray:
        common = rng.standard_normal((*shape, 1))
        return (common + rng.standard_normal((*shape, origins))) / np.sqrt(2)

    def between_days(values: np.ndarray) -> np.ndarray:
        # A day's value holds at its noon; between noons it glides, at night that is not seen.
        position = np.clip(seconds / DAY - 0.5 - first, 0, len(days) - 1)
        low = np.minimum(position.astype(int), len(days) - 2)
        part = np.clip((position - low) * 3 - 1, 0, 1)[:, None]
        return values[low] * (1 - part) + values[low + 1] * part

    level = between_days(day_to_day * shared(len(days)))
    shift = between_days(600.0 * shared(len(days)))
    step = seconds[1] - seconds[0]
    wander = within_day * _remembered(shared(len(seconds)), step / 60.0 / minutes)
    profile = daily_profile(seconds[:, None] - shift, morning)
    return scale * profile * np.exp(level + wander)


def random_incidents(
    records: int,
    cells: int,
    rng: np.random.Generator,
    *,
    record_seconds: float = 300.0,
    per_day: float = 6.0,
    minutes: float = 25.0,
    remaining: tuple[float, float] = (0.3, 0.7),
) -> np.ndarray:
    r"""The share of their capacity that incidents leave to the cells ``[records, cells]``.

    The first record begins at midnight. Incidents happen anywhere, between 5 and 22 o'clock.

    Args:
        records (int): Number of records.
        cells (int): Number of cells.
        rng (numpy.random.Generator): Source of chance.
        record_seconds (float): Length of a record. (default: :obj:`300.0`)
        per_day (float): Mean number a day (Poisson). (default: :obj:`6.0`)
        minutes (float): Median of the log-normal duration. (default: :obj:`25.0`)
        remaining (tuple): Smallest and largest share of capacity that is left.
            (default: :obj:`(0.3, 0.7)`)
    """
    days = records * record_seconds / DAY
    count = rng.poisson(per_day * days)
    start = np.floor(days * rng.random(count)) * DAY
    start += 3600.0 * (5.0 + 17.0 * rng.beta(1.6, 1.6, size=count))
    duration = np.clip(60.0 * minutes * np.exp(0.5 * rng.standard_normal(count)), 300.0, 7200.0)
    place = rng.integers(cells, size=count)
    lost = 1.0 - rng.uniform(*remaining, size=count)
    share = np.ones((records, cells))
    edge = np.arange(records) * record_seconds
    for begin, end, cell, part in zip(start, start + duration, place, lost):
        overlap = np.minimum(edge + record_seconds, end) - np.maximum(edge, begin)
        share[:, cell] *= 1.0 - part * np.maximum(overlap, 0.0) / record_seconds
    return share


def wandering_capacity(
    records: int,
    cells: int,
    rng: np.random.Generator,
    *,
    record_seconds: float = 300.0,
    deviation: float = 0.08,
    minutes: float = 15.0,
) -> np.ndarray:
    r"""A capacity that varies with the traffic's composition and weather, as a share
    ``[records, cells]``: the exponential of an autoregressive process.

    Args:
        records (int): Number of records.
        cells (int): Number of cells.
        rng (numpy.random.Generator): Source of chance.
        record_seconds (float): Length of a record. (default: :obj:`300.0`)
        deviation (float): Standard deviation of its logarithm. (default: :obj:`0.08`)
        minutes (float): Correlation time. (default: :obj:`15.0`)
    """
    drive = rng.standard_normal((records, cells))
    return np.exp(deviation * _remembered(drive, record_seconds / 60.0 / minutes))


def _remembered(drive: np.ndarray, decay: float) -> np.ndarray:
    """White noise ``[T, ...]`` made into a stationary process of unit variance."""
    memory = np.exp(-decay)
    drive = drive * np.sqrt(1 - memory**2)
    drive[0] /= np.sqrt(1 - memory**2)
    return lfilter([1.0], [1.0, -memory], drive, axis=0)
