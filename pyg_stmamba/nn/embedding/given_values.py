from __future__ import annotations

import math

import torch
from torch import Tensor


def given_and_padding(
    y: Tensor,
    observed_mask: Tensor | None = None,
    padding_mask: Tensor | None = None,
    null_value: float | None = None,
    pad_value: float | None = None,
    start_len: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    r"""Which values of a window are given, and which are there only to fill it up.

    A value is given if it is observed, neither :obj:`nan` nor :obj:`null_value` nor padding, and
    earlier than :obj:`start_len`. What equals :obj:`pad_value` is padding, observed or not; but
    values from :obj:`start_len` on are unknown, hence also whether they are.

    Args:
        y (torch.Tensor): The values.
        observed_mask (torch.Tensor, optional): Boolean, :obj:`True` = observed.
            (default: :obj:`None`)
        padding_mask (torch.Tensor, optional): Boolean, :obj:`True` = padding; takes the place of
            :obj:`pad_value`. (default: :obj:`None`)
        null_value (float, optional): What stands for a missing value beside :obj:`nan`.
            (default: :obj:`None`)
        pad_value (float, optional): What fills up windows. (default: :obj:`None`)
        start_len (int, optional): Number of leading steps that are known, all by default.
            (default: :obj:`None`)

    Shapes:
        - **input:** values and masks :math:`(B, L, N)`
        - **output:** two Boolean tensors :math:`(B, L, N)`, :obj:`True` = given and :obj:`True` =
          padding; the second is :obj:`None` if nothing says what is padding

    Raises:
        ValueError: If a mask is not Boolean of the shape of :obj:`y`, or :obj:`start_len` is
            negative.
    """
    for name, mask in (("observed_mask", observed_mask), ("padding_mask", padding_mask)):
        if mask is not None and (mask.dtype != torch.bool or mask.shape != y.shape):
            raise ValueError(
                f"{name} must be boolean of shape {list(y.shape)}, got {mask.dtype} of shape "
                f"{list(mask.shape)}"
            )
    given, padding = ~y.isnan(), padding_mask
    if observed_mask is not None:
        given = given & observed_mask
    if null_value is not None:
        given = given & ~_equals(y, null_value)
    if padding is None and pad_value is not None:
        padding = _equals(y, pad_value)
    if padding is not None:
        given = given & ~padding
    if start_len is not None:
        if start_len < 0:
            raise ValueError(f"start_len must not be negative, got {start_len}")
        known = torch.arange(y.size(1), device=y.device).unsqueeze(-1) < start_len
        given = given & known
        padding = None if padding is None else padding & known
    return given, padding


def _equals(y: Tensor, value: float) -> Tensor:
    return y.isnan() if math.isnan(value) else y == value
