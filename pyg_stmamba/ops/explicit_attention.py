r"""Softmax attention with every weight written out: the reference of the other ways."""

from __future__ import annotations

import torch
from torch import Tensor

from .attention_mask import AttentionMask
from .dropout_mask import dropout_mask


def explicit_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: AttentionMask,
    dropout: float = 0.0,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    r"""The scaled dot product attention of the `"Attention Is All You Need"
    <https://arxiv.org/abs/1706.03762>`_ paper.

    .. math::
        \mathbf{y}_i = \sum_j \mathrm{softmax}_j \left( \mathbf{q}_i^{\top} \mathbf{k}_j / \sqrt{d}
        + m_{ij} \right) \mathbf{v}_j

    A query without any key gives 0, with weights 0.

    Args:
        query (torch.Tensor): The queries.
        key (torch.Tensor): The keys.
        value (torch.Tensor): The values.
        mask (AttentionMask): What is hidden.
        dropout (float, optional): Dropout probability of the weights. (default: :obj:`0.0`)
        need_weights (bool, optional): Whether to return the weights too, those before dropout.
            (default: :obj:`False`)

    Shapes:
        - **input:** queries :math:`(B, H, L, d)`, keys and values :math:`(B, H, S, d)`
        - **output:** :math:`(B, H, L, d)`, and :math:`(B, H, L, S)` or :obj:`None`
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    logits = ((query * query.size(-1) ** -0.5) @ key.transpose(-1, -2)).to(wide)
    bias, empty = mask.bias(wide, query.device)
    if bias is not None:
        logits = logits + bias
    weights = logits.softmax(-1)
    kept = weights
    if dropout > 0:
        keep, scale = dropout_mask(weights.shape, dropout, weights.device)
        kept = weights * keep.view(torch.uint8).to(wide).mul_(scale)
    out = kept.to(value.dtype) @ value
    if empty is not None:
        out = out.masked_fill(empty, 0.0)
        weights = weights.masked_fill(empty, 0.0) if need_weights else weights
    return out, weights if need_weights else None
