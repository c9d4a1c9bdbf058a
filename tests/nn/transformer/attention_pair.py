"""Our attention and torch's with the same weights, and tokens for them."""

import torch
from torch import Tensor, nn

from pyg_stmamba.nn.transformer.multi_attention import MultiAttention
from tests.ops.attention_cases import B, H

D = 12
TYPES = ["standard", "xformer", "flash"]
DOUBLE = torch.float64


def with_torch(
    attention_type: str = "standard", dtype: torch.dtype = DOUBLE, **options
) -> tuple[MultiAttention, nn.MultiheadAttention]:
    theirs = nn.MultiheadAttention(D, H, batch_first=True, dtype=dtype, **options)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.4)
    options = {"dropout": 0.0, "block_size": 2, **options}
    ours = MultiAttention(D, H, attention_type=attention_type, **options).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def tokens(*sizes: int, dtype: torch.dtype = DOUBLE) -> list[Tensor]:
    return [torch.randn(B, size, D, dtype=dtype, requires_grad=True) for size in sizes]
