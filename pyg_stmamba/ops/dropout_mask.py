r"""Which elements survive a dropout."""

import torch
from torch import Tensor

_BITS = 16


def dropout_mask(
    shape: torch.Size,
    dropout: float,
    device: torch.device,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, float]:
    r"""Draws which elements a dropout keeps, and returns them with the factor by which they grow.

    On a CPU, where drawing takes longer than all else of a dropout, one 64-bit integer decides of
    four elements, so that the probability is rounded to a multiple of :math:`2^{-16}`.

    Args:
        shape (torch.Size): The shape of the elements.
        dropout (float): The probability of an element to be dropped.
        device (torch.device): Where to draw.
        generator (torch.Generator, optional): What to draw from. (default: :obj:`None`, the
            generator of :func:`torch.manual_seed`)

    Shapes:
        - **output:** Boolean, of :obj:`shape`
    """
    if device.type != "cpu":
        keep = torch.rand(shape, device=device, generator=generator) >= dropout
        return keep, 1 / (1 - dropout) if dropout < 1 else 0.0
    levels = 2**_BITS
    dropped = round(dropout * levels)
    count = -(-shape.numel() * _BITS // 64)
    words = torch.randint(-(2**63), 2**63 - 1, (count,), generator=generator)
    drawn = words.view(torch.int16)[: shape.numel()].view(shape)
    # Comparing into bytes is four times faster than into booleans, which then are a view.
    keep = torch.empty(shape, dtype=torch.uint8)
    torch.ge(drawn, dropped - levels // 2, out=keep)
    keep = keep.view(torch.bool)
    if dropped == levels:
        return torch.zeros_like(keep), 0.0
    return keep, levels / (levels - dropped)
