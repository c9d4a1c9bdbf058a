from __future__ import annotations

import torch
from torch import Tensor, nn


def check_padding_mask(padding_mask: Tensor, tokens: Tensor) -> None:
    r"""Raises if a mask is not that of the padding among some tokens.

    Args:
        padding_mask (torch.Tensor): The mask.
        tokens (torch.Tensor): The tokens.

    Shapes:
        - **input:** :math:`(B, L)`, tokens :math:`(B, L, *)`

    Raises:
        ValueError: If the mask is not boolean or not of the shape of the tokens.
    """
    if padding_mask.dtype != torch.bool or padding_mask.shape != tokens.shape[:2]:
        raise ValueError(
            f"the padding mask must be boolean, True = padding, with one entry for each token, "
            f"{list(tokens.shape[:2])} for tokens of shape {list(tokens.shape)}, got "
            f"{list(padding_mask.shape)} and dtype {padding_mask.dtype}"
        )


def hide_padding(tokens: Tensor, padding_mask: Tensor | None) -> Tensor:
    r"""Puts zero where there is padding, so that what it holds, be it NaN, reaches nothing.

    Args:
        tokens (torch.Tensor): The tokens.
        padding_mask (torch.Tensor, optional): Boolean, :obj:`True` = padding; with :obj:`None`
            the tokens come back as they are.

    Shapes:
        - **input:** tokens :math:`(B, L, D)`, padding mask :math:`(B, L)`
        - **output:** :math:`(B, L, D)`
    """
    if padding_mask is None:
        return tokens
    check_padding_mask(padding_mask, tokens)
    return tokens.masked_fill(padding_mask.unsqueeze(-1), 0.0)


class CrossMaskingSeq(nn.Module):
    r"""The mask of the pairs of queries and keys of which at least one is padding, for attentions
    that take a mask of pairs.

    Shapes:
        - **input:** padding masks of the queries :math:`(B, L)` and the keys :math:`(B, S)`,
          :obj:`True` = padding
        - **output:** :math:`(B, L, S)`, :obj:`True` = not allowed
    """

    def forward(self, query_padding_mask: Tensor, key_padding_mask: Tensor) -> Tensor:
        return query_padding_mask.unsqueeze(-1) | key_padding_mask.unsqueeze(-2)


class SelfMaskingSeq(nn.Module):
    r"""The mask of the pairs of tokens of which at least one is padding, for attentions that take
    a mask of pairs.

    Shapes:
        - **input:** padding mask :math:`(B, L)`, :obj:`True` = padding
        - **output:** :math:`(B, L, L)`, :obj:`True` = not allowed
    """

    def forward(self, padding_mask: Tensor) -> Tensor:
        return padding_mask.unsqueeze(-1) | padding_mask.unsqueeze(-2)
