from __future__ import annotations

import math
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch_geometric.data import Data


class WindowTensors(NamedTuple):
    r"""Windows on a graph as a model over variables takes them; :math:`N` and :math:`M` count the
    channels of all nodes, node by node.

    Args:
        enc_x (torch.Tensor): Time features of the window :math:`(B, W, d_x)`.
        enc_y (torch.Tensor): Its values :math:`(B, W, N)`.
        dec_x (torch.Tensor): Time features of the steps ahead :math:`(B, H, d_x)`.
        dec_y (torch.Tensor, optional): Their values :math:`(B, H, M)`.
        observed_mask (torch.Tensor, optional): Which values of the window are observed.
        target_mask (torch.Tensor, optional): Which values ahead.
    """

    enc_x: Tensor
    enc_y: Tensor
    dec_x: Tensor
    dec_y: Tensor | None
    observed_mask: Tensor | None
    target_mask: Tensor | None


def window_tensors(data: Data, d_x: int, horizon: int | None = None) -> WindowTensors:
    r"""Turns a window :class:`~torch_geometric.data.Data`, several on one graph, or a
    :class:`~torch_geometric.data.Batch` of graphs of one size into tensors over variables.

    With :obj:`d_x=2` the time features are the times of the day and of the week as angles, with
    :obj:`d_x=1` the numbers of the steps.

    Args:
        data (Data): The windows.
        d_x (int): Number of time features.
        horizon (int, optional): Number of steps ahead, where the data do not say.
            (default: :obj:`None`)

    Raises:
        ValueError: If the data have no times but need them, or do not tell the horizon.
    """
    x, targets = data.x, data.get("y")
    if targets is not None:
        horizon = targets.size(-2)
    elif "y_time_of_day" in data:
        horizon = data.y_time_of_day.size(-1)
    if horizon is None:
        raise ValueError("data without y and y_time_of_day do not tell how many steps to forecast")
    num_windows = _num_windows(data)
    if d_x == 2:
        enc_x, dec_x = _calendar(data)
    elif d_x == 1:
        start = data.get("start", torch.zeros(num_windows, dtype=torch.long, device=x.device))
        steps = start.unsqueeze(-1) + torch.arange(x.size(-2) + horizon, device=x.device)
        # Later steps of a long series are no whole numbers in float32 any more.
        enc_x, dec_x = steps.double().unsqueeze(-1).split([x.size(-2), horizon], 1)
    else:
        raise ValueError(f"d_x={d_x} time features: data give 2 (calendar) or 1 (step)")
    x_mask, dec_y, target_mask = (
        None if values is None else to_variables(values, data)
        for values in (data.get("x_mask"), targets, data.get("y_mask"))
    )
    return WindowTensors(enc_x, to_variables(x, data), dec_x, dec_y, x_mask, target_mask)


def to_variables(values: Tensor, data: Data) -> Tensor:
    r"""Turns node series :math:`(N, *, T, C)` into :math:`(B, T, N C)`."""
    if values.dim() == 4:
        return rearrange(values, "n b t c -> b t (n c)")
    return rearrange(values, "(b n) t c -> b t (n c)", b=_num_windows(data))


def from_variables(y: Tensor, data: Data) -> Tensor:
    r"""Turns forecasts :math:`(*, B, H, M)` back into :math:`(*, N, B, H, C_y)`, or
    :math:`(*, B N, H, C_y)` for a batch of graphs."""
    num_windows = _num_windows(data)
    if data.x.dim() == 4:
        return rearrange(y, "... b h (n c) -> ... n b h c", n=data.x.size(0))
    return rearrange(y, "... b h (n c) -> ... (b n) h c", n=data.x.size(0) // num_windows)


def _num_windows(data: Data) -> int:
    if data.x.dim() == 4:
        return data.x.size(1)
    batch = data.get("batch")
    if batch is None:
        return 1
    sizes = torch.bincount(batch)
    if bool((sizes != sizes[0]).any()):
        raise ValueError(
            "a model over variables takes graphs of one size, got graphs of "
            f"{sorted(set(sizes.tolist()))} nodes in one batch"
        )
    return sizes.numel()


def _calendar(data: Data) -> tuple[Tensor, Tensor]:
    features = []
    for prefix in ("", "y_"):
        time, day = data.get(f"{prefix}time_of_day"), data.get(f"{prefix}day_of_week")
        if time is None or day is None:
            raise ValueError(
                "d_x=2 needs time_of_day and day_of_week of window and horizon; give the data "
                "timestamps, or build the model with d_x=1, the number of the step"
            )
        features.append(2 * math.pi * torch.stack([time, (day + time) / 7], -1))
    return features[0], features[1]
