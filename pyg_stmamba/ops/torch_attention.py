r"""Softmax attention by what torch offers for a device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention_mask import AttentionMask

# CUDA lays samples and heads along a grid axis of this length.
MAX_GRID = 65535


def torch_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: AttentionMask,
    dropout: float = 0.0,
    block_size: int | None = None,
) -> Tensor:
    r"""Computes :func:`~pyg_stmamba.ops.explicit_attention.explicit_attention` by
    :func:`torch.nn.functional.scaled_dot_product_attention`, whose own causality is aligned top
    left and serves only where there are as many queries as keys.

    Args:
        query (torch.Tensor): The queries.
        key (torch.Tensor): The keys.
        value (torch.Tensor): The values.
        mask (AttentionMask): What is hidden.
        dropout (float, optional): Dropout probability of the weights. (default: :obj:`0.0`)
        block_size (int, optional): Not used; torch chooses its blocks. (default: :obj:`None`)

    Shapes:
        - **input:** queries :math:`(B, H, L, d)`, keys and values :math:`(B, H, S, d)`
        - **output:** :math:`(B, H, L, d)`
    """
    square = mask.causal and mask.is_bare and mask.length == mask.keys
    bias, empty = (None, None) if square else mask.bias(query.dtype, query.device)
    at_once = max(MAX_GRID // query.size(1), 1)
    parts = []
    for start in range(0, max(query.size(0), 1), at_once):
        rows = slice(start, start + at_once)
        own = bias if bias is None or bias.size(0) == 1 else bias[rows]
        parts.append(
            F.scaled_dot_product_attention(
                query[rows], key[rows], value[rows], own, dropout_p=dropout, is_causal=square
            )
        )
    out = parts[0] if len(parts) == 1 else torch.cat(parts)
    # Not every torch since 2.6 gives zeros and finite gradients where nothing is visible.
    return out if empty is None else out.masked_fill(empty, 0.0)
