from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pyg_stmamba.nn.embedding.power_spectrum import SHORTEST_SEGMENT


def standardized_channels(y: Tensor, observed_mask: Tensor | None = None) -> np.ndarray:
    r"""Turns data with gaps into complete series of mean 0 and standard deviation 1.

    Gaps are filled by lines between their ends. A channel is left out if more than half of it is
    missing or if it is constant. Each series of a batch is a channel of its own.

    Args:
        y (torch.Tensor): The data, :obj:`nan` where nothing was observed.
        observed_mask (torch.Tensor, optional): Boolean, :obj:`True` = observed.
            (default: :obj:`None`)

    Shapes:
        - **input:** data and mask :math:`(T, N)` or :math:`(B, T, N)`
        - **output:** :math:`(T, M)` with the :math:`M \leq B N` channels that are left, float64

    Raises:
        ValueError: If shapes do not fit, the record is too short, or no channel is left.
    """
    if y.dim() not in (2, 3):
        raise ValueError(f"y must be [T, N] or [B, T, N], got a tensor of shape {list(y.shape)}")
    if y.size(-2) < SHORTEST_SEGMENT:
        raise ValueError(
            f"a record needs at least {SHORTEST_SEGMENT} rows, got {y.size(-2)} in y of shape "
            f"{list(y.shape)}"
        )
    values = y.detach().double()
    if observed_mask is not None:
        if observed_mask.dtype != torch.bool or observed_mask.shape != y.shape:
            raise ValueError(
                f"observed_mask must be boolean (True = observed) of shape {list(y.shape)}, got "
                f"{observed_mask.dtype} of shape {list(observed_mask.shape)}"
            )
        values = values.masked_fill(~observed_mask, math.nan)
    if values.isinf().any():
        raise ValueError("y holds infinity; mark such entries as not observed")
    channels = values.movedim(-2, 0).flatten(1).cpu().numpy()

    missing = np.isnan(channels)
    channels = channels[:, missing.mean(axis=0) <= 0.5]
    for channel in channels.T:
        gaps = np.isnan(channel)
        if gaps.any():
            rows = np.arange(len(channel))
            channel[gaps] = np.interp(rows[gaps], rows[~gaps], channel[~gaps])
    mean, std = channels.mean(axis=0), channels.std(axis=0)
    # Below the resolution of float32 what is left is rounding, not variation.
    varies = std > np.finfo(np.float32).eps * np.abs(mean)
    if not varies.any():
        raise ValueError(
            f"none of the {missing.shape[1]} channel(s) varies and is observed at least half of "
            "the time"
        )
    return (channels[:, varies] - mean[varies]) / std[varies]
