r"""Arrays in place of tensors."""

from typing import Any

import torch
from torch import Tensor


def array(x: Tensor | None, rank: int = 3, dtype: torch.dtype = torch.float32) -> Any:
    r"""The memory of a tensor; an empty array of a fixed rank stands for :obj:`None`, so that a
    kernel is compiled once for both."""
    return torch.empty([0] * rank, dtype=dtype).numpy() if x is None else x.detach().numpy()
