from __future__ import annotations

from typing import NamedTuple


class Protocol(NamedTuple):
    r"""How forecasts on a data set are made and measured, so that numbers can be put beside
    published ones.

    Args:
        window (int): Steps the model sees. (default: :obj:`12`)
        horizon (int): Steps the model forecasts. (default: :obj:`12`)
        split (tuple): Fractions of training, validation and test, in the order of time.
            (default: :obj:`(0.7, 0.1, 0.2)`)
        order (str): :obj:`"windows-first"` (windows over the whole series, then split, so that
            windows straddle the borders) or :obj:`"series-first"` (the series is cut, then
            windows are taken within each part); see
            :func:`~pyg_stmamba.data.split_windows`. (default: :obj:`"windows-first"`)
        scale_missing (bool): Whether missing entries, which hold 0, count in the mean and
            standard deviation of the scaler, as they do in published results on METR-LA and
            PEMS-BAY. (default: :obj:`True`)
        target_channels (tuple): Channels that are forecast. (default: :obj:`(0,)`)
        report_steps (tuple): Horizons, counted from 1, that reports list one by one.
            (default: :obj:`(3, 6, 12)`)
    """

    window: int = 12
    horizon: int = 12
    split: tuple[float, float, float] = (0.7, 0.1, 0.2)
    order: str = "windows-first"
    scale_missing: bool = True
    target_channels: tuple[int, ...] = (0,)
    report_steps: tuple[int, ...] = (3, 6, 12)
