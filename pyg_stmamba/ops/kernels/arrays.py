r"""Arrays in place of tensors."""

from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Rows(NamedTuple):
    r"""A tensor :math:`(R, T, D)`: the number :obj:`[r, t, d]` stands at
    :obj:`memory[row * r + step * t + d]`."""

    memory: Any
    row: int
    step: int


def rows(x: Tensor | None, dtype: torch.dtype = torch.float32) -> Rows:
    r"""The memory of a tensor whose last dimension is contiguous; an empty one of :obj:`dtype`
    stands for :obj:`None`, so that a kernel is compiled once for both."""
    if x is None or x.numel() == 0:
        return Rows(memory(None, dtype), 0, 0)
    span = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride()))
    return Rows(memory(x.as_strided((span,), (1,))), x.stride(0), x.stride(1))


def memory(x: Tensor | None, dtype: torch.dtype = torch.float32) -> Any:
    r"""The numbers of a contiguous tensor one after the other, those of bfloat16 as their bits; an
    empty array of :obj:`dtype` stands for :obj:`None`."""
    x = torch.empty(0, dtype=dtype) if x is None else x.detach().view(-1)
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()


def zeros(*sizes: int) -> list[Any]:
    r"""Arrays of float32 zeros, each from the start of a cache line on."""
    ends = list(accumulate(-(-size // 16) * 16 for size in sizes))
    together = torch.zeros(ends[-1]).numpy()
    return [together[start : start + size] for start, size in zip([0, *ends], sizes)]
