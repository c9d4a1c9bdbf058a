"""Every kind of mask, and softmax attention as a loop over its queries."""

import math

import numpy as np
import torch
from torch import Tensor

B, H, D = 3, 2, 4
SIZES = [(7, 7), (5, 9), (9, 5), (1, 6)]
MASKS = ["none", "pairs", "by sample", "by head", "added", "padding", "added padding", "all pairs",
         "a sample of padding", "pairs and padding", "added and padding"]  # fmt: skip


def tokens(length: int, keys: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.randn(B, H, n, D, dtype=dtype, requires_grad=True) for n in (length, keys, keys)]


def masks(name: str, length: int, keys: int) -> dict[str, Tensor]:
    """Masks as users give them; in all but the last two each query may look at some key."""
    hidden, padding = torch.rand(B, H, length, keys) > 0.6, torch.rand(B, keys) > 0.6
    hidden[..., 0], padding[:, 0] = False, False
    added = torch.randn(B, H, length, keys, dtype=torch.float64).masked_fill(hidden, -math.inf)
    sample = padding.clone()
    sample[1] = True
    empty = hidden[0, 0].clone()
    empty[length // 2] = True
    return {
        "none": {},
        "pairs": {"attn_mask": hidden[0, 0]},
        "by sample": {"attn_mask": hidden[:, 0]},
        "by head": {"attn_mask": hidden.flatten(0, 1)},
        "added": {"attn_mask": added},
        "padding": {"key_padding_mask": padding},
        "added padding": {"key_padding_mask": added[:, 0, 0]},
        "pairs and padding": {"attn_mask": hidden[0, 0], "key_padding_mask": padding},
        "added and padding": {"attn_mask": added[:1, :1], "key_padding_mask": padding},
        "all pairs": {"attn_mask": empty},
        "a sample of padding": {"key_padding_mask": sample},
    }[name]


def hidden_or_added(
    shape: tuple[int, int, int, int],
    attn_mask: Tensor | None = None,
    key_padding_mask: Tensor | None = None,
    is_causal: bool = False,
) -> np.ndarray:
    """What is added to each logit, element by element."""
    batch, heads, length, keys = shape
    total = np.zeros(shape)
    for b, h, i, j in np.ndindex(*shape):
        given = []
        if attn_mask is not None:
            index = {
                (length, keys): (i, j),
                (batch, length, keys): (b, i, j),
                (batch * heads, length, keys): (b * heads + h, i, j),
            }.get(tuple(attn_mask.shape))
            if attn_mask.dim() == 4:
                index = (b % attn_mask.size(0), h % attn_mask.size(1), i, j)
            given.append(attn_mask[index].item())
        if key_padding_mask is not None:
            given.append(key_padding_mask[b, j].item())
        given.append(is_causal and keys - 1 - j < length - 1 - i)
        total[b, h, i, j] = sum((-math.inf if m else 0.0) if type(m) is bool else m for m in given)
    return total


def by_loop(
    query: Tensor, key: Tensor, value: Tensor, added: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs and weights, zero where nothing is visible."""
    query, key, value = (x.detach().double().numpy() for x in (query, key, value))
    weights, out = np.zeros(added.shape), np.zeros(query.shape)
    for b, h, i in np.ndindex(*query.shape[:3]):
        logits = key[b, h] @ query[b, h, i] / math.sqrt(query.shape[-1]) + added[b, h, i]
        if logits.max() > -math.inf:
            share = np.exp(logits - logits.max())
            weights[b, h, i] = share / share.sum()
        out[b, h, i] = weights[b, h, i] @ value[b, h]
    return out, weights
