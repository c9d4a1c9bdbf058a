from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pyg_stmamba.ops import dropout_mask

# Up to so many queries and keys a CPU takes two plain products, which are two to three times faster
# there than the fused attention, in bfloat16 up to ten times.
FEW = 64
# CUDA lays rows and heads along a grid axis of this length.
MAX_GRID = 65535


def softmax_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    allowed: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:
    r"""Scaled dot product attention for any number of rows.

    Args:
        query (torch.Tensor): The queries.
        key (torch.Tensor): The keys.
        value (torch.Tensor): The values.
        allowed (torch.Tensor, optional): :obj:`True` where a query may look at a key, at least at
            one. (default: :obj:`None`)
        causal (bool, optional): Whether a query looks at keys up to its own place only; not
            together with :obj:`allowed`. (default: :obj:`False`)
        dropout (float, optional): Dropout probability of the weights. (default: :obj:`0.0`)

    Shapes:
        - **input:** queries :math:`(*, H, L, D)`, keys and values :math:`(*, H, S, D)`,
          :obj:`allowed` :math:`(L, S)` or, broadcast, :math:`(*, H, L, S)`
        - **output:** :math:`(*, H, L, D)`
    """
    *batch, heads, length, _ = query.shape
    query, key, value = (t.reshape(-1, *t.shape[-3:]) for t in (query, key, value))
    if allowed is not None and allowed.dim() > 2:
        allowed = allowed.expand(*batch, *allowed.shape[-3:]).reshape(-1, *allowed.shape[-3:])

    few = max(length, key.size(-2)) <= FEW and not torch.compiler.is_compiling()
    if few and query.device.type == "cpu":
        out = _by_products(query, key, value, allowed, causal, dropout)
        return out.reshape(*batch, heads, length, value.size(-1))

    rows = max(MAX_GRID // heads, 1)
    parts = [
        F.scaled_dot_product_attention(
            query[i : i + rows],
            key[i : i + rows],
            value[i : i + rows],
            allowed if allowed is None or allowed.dim() == 2 else allowed[i : i + rows],
            dropout_p=dropout,
            is_causal=causal,
        )
        for i in range(0, max(query.size(0), 1), rows)
    ]
    out = parts[0] if len(parts) == 1 else torch.cat(parts)
    return out.reshape(*batch, heads, length, value.size(-1))


def _by_products(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    allowed: Tensor | None,
    causal: bool,
    dropout: float,
) -> Tensor:
    weight = (query * query.size(-1) ** -0.5) @ key.transpose(-1, -2)
    if causal:
        allowed = torch.ones(weight.shape[-2:], dtype=torch.bool).tril()
    if allowed is not None:
        weight = weight.masked_fill(~allowed, -torch.inf)
    weight = weight.softmax(-1)
    if dropout > 0:
        keep, scale = dropout_mask(weight.shape, dropout, weight.device)
        weight = weight * keep.view(torch.uint8).to(weight.dtype).mul_(scale)
    return weight @ value
