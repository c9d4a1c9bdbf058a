from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def in_chunks(
    function: Callable[[Tensor], Tensor], x: Tensor, size: int | None, dim: int
) -> Tensor:
    r"""Applies a function of each token to so many tokens at a time, which takes less memory.

    Where gradients are wanted, what the function keeps of a chunk is computed again in the
    backward pass (`"Training Deep Nets with Sublinear Memory Cost"
    <https://arxiv.org/abs/1604.06174>`_), as it would add up over the chunks otherwise.

    Args:
        function (callable): What is applied.
        x (torch.Tensor): The tokens.
        size (int, optional): Number of tokens at a time, :obj:`None` for all.
        dim (int): The dimension of the tokens.
    """
    if size is None or x.size(dim) <= size:
        return function(x)
    if torch.is_grad_enabled():
        parts = [checkpoint(function, part, use_reentrant=False) for part in x.split(size, dim)]
    else:
        parts = [function(part) for part in x.split(size, dim)]
    return torch.cat(parts, dim)
