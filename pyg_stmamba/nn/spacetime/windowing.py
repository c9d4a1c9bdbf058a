from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from pyg_stmamba.nn.spacetime.padding import check_padding_mask
from pyg_stmamba.nn.spacetime.token_layout import check_tokens


class _TimeWindows(NamedTuple):
    """Where the windows over a series of some length lie."""

    width: int
    number: int
    before: int  # steps of padding in front of the series, and
    after: int  # behind it, which fill up the first and the last window


def _time_windows(length: int, windows: int, shifted: bool) -> _TimeWindows:
    width = -(-length // windows)
    shift = width // 2 if shifted and windows > 1 else 0
    before = width - shift if shift > 0 else 0
    number = windows + 1 if shift > 0 else windows
    return _TimeWindows(width, number, before, number * width - before - length)


class Windowed(NamedTuple):
    r"""The tokens of each window, and the mask of its padding."""

    tokens: Tensor  # [B * W, N * L / W, ...], the windows of a sample one after the other
    padding_mask: Tensor | None  # [B * W, N * L / W], True = padding; None if there is none


class _OverTime(nn.Module):
    def __init__(self, num_variables: int, windows: int, shifted: bool = False) -> None:
        super().__init__()
        if num_variables < 1 or windows < 1:
            raise ValueError(
                f"there must be at least one variable and one window, got "
                f"num_variables={num_variables} and windows={windows}"
            )
        self.num_variables = num_variables
        self.windows = windows
        self.shifted = shifted

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.num_variables}, windows={self.windows}, "
            f"shifted={self.shifted})"
        )


class Windowing(_OverTime):
    r"""Splits time into windows that hold all variables, every second time shifted by half a
    window as in the `"Swin Transformer: Hierarchical Vision Transformer using Shifted Windows"
    <https://arxiv.org/abs/2103.14030>`_ paper.

    A window is :math:`w = \lceil L / W \rceil` steps wide. Shifted windows start
    :math:`\lfloor w / 2 \rfloor` steps later. Swin rolls the series and forbids the pairs that
    meet only because the end was rolled to the front; here both ends get a window of their own,
    filled up with padding, so that the same tokens meet and a mask of the keys suffices.
    A single window has nowhere to shift to.

    .. code-block:: python

        windowing = Windowing(num_variables, windows=4, shifted=True)
        reverse = ReverseWindowing(num_variables, windows=4, shifted=True)
        tokens, padding_mask = windowing(x)
        y = reverse(attention(tokens, tokens, tokens, padding_mask)[0], length)

    Args:
        num_variables (int): Number of variables :math:`N`.
        windows (int): Number of windows :math:`W`; shifted ones are one more.
        shifted (bool, optional): Whether windows start half a window later.
            (default: :obj:`False`)

    Shapes:
        - **input:** anything that tokens have, :math:`(B, N \cdot L, *)`, variable by variable,
          padding mask :math:`(B, N \cdot L)` *(optional)*
        - **output:** :class:`Windowed` of :math:`(B \cdot W, N \cdot w, *)`, zero at the padding,
          and of its mask
    """

    def forward(self, tokens: Tensor, padding_mask: Tensor | None = None) -> Windowed:
        check_tokens(tokens, self.num_variables)
        length = tokens.size(1) // self.num_variables
        layout = _time_windows(length, self.windows, self.shifted)
        if padding_mask is None and layout.before + layout.after > 0:
            padding_mask = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        if padding_mask is not None:
            check_padding_mask(padding_mask, tokens)
            padding_mask = ~self._split(~padding_mask, layout)
        return Windowed(self._split(tokens, layout), padding_mask)

    def _split(self, tokens: Tensor, layout: _TimeWindows) -> Tensor:
        series = tokens.unflatten(1, (self.num_variables, -1))
        untouched = (0, 0) * (tokens.dim() - 2)
        return rearrange(
            F.pad(series, (*untouched, layout.before, layout.after)),
            "batch variable (window step) ... -> (batch window) (variable step) ...",
            window=layout.number,
        )


class ReverseWindowing(_OverTime):
    r"""Takes :class:`Windowing` back; what stands at the padding is dropped.

    Args:
        num_variables (int): Number of variables :math:`N`.
        windows (int): Number of windows :math:`W`.
        shifted (bool, optional): Whether windows start half a window later.
            (default: :obj:`False`)

    Shapes:
        - **input:** :math:`(B \cdot W, N \cdot w, *)` and the length :math:`L` of the series
        - **output:** :math:`(B, N \cdot L, *)`, variable by variable
    """

    def forward(self, windows: Tensor, length: int) -> Tensor:
        layout = _time_windows(length, self.windows, self.shifted)
        expected = self.num_variables * layout.width
        if windows.size(0) % layout.number != 0 or windows.size(1) != expected:
            raise ValueError(
                f"{self!r} expects windows [B * {layout.number}, {expected}, ...] of series of "
                f"length {length}, got a tensor of shape {list(windows.shape)}"
            )
        series = rearrange(
            windows,
            "(batch window) (variable step) ... -> batch variable (window step) ...",
            window=layout.number,
            variable=self.num_variables,
        )
        return series.narrow(2, layout.before, length).flatten(1, 2)
