from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

ORDERS = ("windows-first", "series-first")
PARTS = ("train", "val", "test")


def split_windows(
    num_steps: int,
    window: int,
    horizon: int,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    order: str = "windows-first",
) -> dict[str, Tensor]:
    r"""Splits the windows of a series chronologically into training, validation and test.

    With :math:`n = T - W - H + 1` windows of :math:`W` input and :math:`H` target steps:

    * :obj:`"windows-first"`: windows are taken over the whole series, then
      :math:`\mathrm{round}(f_\text{train}\, n)` go to training,
      :math:`\mathrm{round}(f_\text{val}\, n)` to validation and the rest to test. A window may
      straddle a border. This is the split of `"Diffusion Convolutional Recurrent Neural Network"
      <https://arxiv.org/abs/1707.01926>`_ and most later work: METR-LA has 23974, 3425 and 6850
      windows.
    * :obj:`"series-first"`: the last :math:`\lfloor f_\text{test}\, T \rfloor` steps are test,
      the :math:`\lfloor f_\text{val}\, T \rfloor` before them validation, the rest training,
      and windows stay within their part. METR-LA then has 6831 test windows.

    Args:
        num_steps (int): Steps :math:`T` of the series.
        window (int): Input steps :math:`W`.
        horizon (int): Target steps :math:`H`.
        fractions (sequence): Of training, validation and test; they add up to 1.
            (default: :obj:`(0.7, 0.1, 0.2)`)
        order (str): :obj:`"windows-first"` or :obj:`"series-first"`.
            (default: :obj:`"windows-first"`)

    Returns:
        dict: :obj:`"train"`, :obj:`"val"` and :obj:`"test"`, each an int64 tensor of the first
        steps of its windows, increasing.

    Raises:
        ValueError: If the series is shorter than one window, or a part with a positive fraction
            would hold no window.
    """
    if order not in ORDERS:
        raise ValueError(f"unknown order {order!r}, choose from {list(ORDERS)}")
    check_length(num_steps, window, horizon)
    if (
        len(fractions) != 3
        or any(not 0 <= f <= 1 for f in fractions)
        or not math.isclose(sum(fractions), 1, abs_tol=1e-6)
    ):
        raise ValueError(
            "fractions must be three numbers from 0 to 1 (training, validation, test) that add "
            f"up to 1, got {tuple(fractions)}"
        )

    if order == "windows-first":
        num_windows = num_steps - window - horizon + 1
        num_train = round(fractions[0] * num_windows)
        num_val = min(round(fractions[1] * num_windows), num_windows - num_train)
        borders = [0, num_train, num_train + num_val, num_windows]
        ranges = list(pairwise(borders))
    else:
        num_val, num_test = (_floor(f * num_steps) for f in fractions[1:])
        borders = [0, num_steps - num_val - num_test, num_steps - num_test, num_steps]
        ranges = [(a, max(a, b - window - horizon + 1)) for a, b in pairwise(borders)]

    for part, fraction, (first, last) in zip(PARTS, fractions, ranges):
        if fraction > 0 and first == last:
            raise ValueError(
                f"the {part} part would hold no window: {num_steps} steps, windows of {window} + "
                f"{horizon} steps, fractions {tuple(fractions)}, order {order!r}. Use a longer "
                "series, shorter windows or other fractions"
            )
    return {part: torch.arange(*range_) for part, range_ in zip(PARTS, ranges)}


def check_length(num_steps: int, window: int, horizon: int) -> None:
    r"""Refuses a series that is shorter than one window.

    Raises:
        ValueError: With the numbers.
    """
    if window < 1 or horizon < 0:
        raise ValueError(
            f"window must be at least 1 and horizon at least 0, got {window} and {horizon}"
        )
    if num_steps < window + horizon:
        raise ValueError(
            f"the series has {num_steps} steps, fewer than one window of {window} input + "
            f"{horizon} target = {window + horizon} steps"
        )


def _floor(x: float) -> int:
    # 0.29 * 100 is 28.999999999999996 in floating point.
    return math.floor(x + 1e-9)
