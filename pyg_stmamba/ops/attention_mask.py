r"""Which queries may look at which keys, kept in the parts in which it was given."""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

ALL = slice(None)


class AttentionMask(NamedTuple):
    r"""What keeps queries from keys: pairs that are not allowed, keys that are padding, and
    causality.

    Masks are boolean, :obj:`True` = not allowed, or are added to the logits. The parts are put
    together only for the block of queries that is at hand, so that no tensor larger than those
    given need ever exist. Causality is aligned bottom right: the last query sees all keys.
    """

    length: int  # number of queries
    keys: int  # number of keys
    pairs: Tensor | None = None  # [1 or B, 1 or H, L, S]
    padding: Tensor | None = None  # [B, 1, 1, S]
    causal: bool = False

    @property
    def is_bare(self) -> bool:
        r"""Whether at most causality hides anything."""
        return self.pairs is None and self.padding is None

    def visible(self, stop: int) -> int:
        r"""Of how many keys, one at least, causality shows the last to a query before
        :obj:`stop`."""
        return max(min(stop + self.keys - self.length, self.keys), 1) if self.causal else self.keys

    def bias(
        self,
        dtype: torch.dtype,
        device: torch.device,
        queries: slice = ALL,
        samples: slice = ALL,
        heads: slice = ALL,
    ) -> tuple[Tensor | None, Tensor | None]:
        r"""What to add to the logits of a block of queries and the visible keys.

        Where a query is left without any key, nothing is hidden from it, as no softmax can be over
        nothing; instead the second tensor is :obj:`True` there. Both are :obj:`None` if nothing is
        hidden.

        Args:
            dtype (torch.dtype): The type of the logits.
            device (torch.device): Where the logits are.
            queries (slice, optional): Which queries. (default: all)
            samples (slice, optional): Which samples. (default: all)
            heads (slice, optional): Which heads. (default: all)

        Shapes:
            - **output:** :math:`(1 | B, 1 | H, 1 | L, S)` and :math:`(1 | B, 1 | H, 1 | L, 1)`
        """
        start, stop, _ = queries.indices(self.length)
        keys = self.visible(stop)
        parts = [
            block_of(part, samples, heads, queries, slice(keys))
            for part in (self.pairs, self.padding)
            if part is not None
        ]
        first_hidden = start + 1 + self.keys - self.length
        if self.causal and first_hidden < keys:
            later = torch.ones(stop - start, keys, dtype=torch.bool, device=device)
            parts.append(later.triu(first_hidden)[None, None])
        if not parts:
            return None, None
        hidden = [part for part in parts if part.dtype == torch.bool]
        added = [part.to(dtype) for part in parts if part.dtype != torch.bool]
        if hidden:
            both = reduce(torch.logical_or, hidden)
            added.append(torch.zeros_like(both, dtype=dtype).masked_fill_(both, -torch.inf))
        bias = reduce(torch.add, added)
        empty = (bias == -torch.inf).all(-1, keepdim=True)
        return bias.masked_fill(empty, 0.0), empty


def block_of(mask: Tensor, *index: slice) -> Tensor:
    r"""The block of a mask :math:`(1 | B, 1 | H, 1 | L, S)` for slices of samples, heads, queries
    and keys."""
    return mask[tuple(part if size > 1 else ALL for part, size in zip(index, mask.shape))]


def attention_mask(
    logits: tuple[int, int, int, int],
    attn_mask: Tensor | None = None,
    key_padding_mask: Tensor | None = None,
    is_causal: bool = False,
) -> AttentionMask:
    r"""Checks the masks of :class:`torch.nn.MultiheadAttention` and keeps them as an
    :class:`AttentionMask`.

    Args:
        logits (tuple of int): The shape :math:`(B, H, L, S)` that the masks are for.
        attn_mask (torch.Tensor, optional): Which pairs are not allowed, or what is added to their
            logits. (default: :obj:`None`)
        key_padding_mask (torch.Tensor, optional): Which keys are padding, or what is added to
            their logits. (default: :obj:`None`)
        is_causal (bool, optional): Whether a query sees keys up to its own place only, the last
            query all keys. (default: :obj:`False`)

    Shapes:
        - **input:** :obj:`attn_mask` :math:`(L, S)`, :math:`(B, L, S)`,
          :math:`(B \cdot H, L, S)` or :math:`(1 | B, 1 | H, L, S)`, :obj:`key_padding_mask`
          :math:`(B, S)`

    Raises:
        ValueError: If a mask has another shape, or is neither boolean nor floating point.
    """
    batch, _, length, keys = logits
    for name, mask in (("attn_mask", attn_mask), ("key_padding_mask", key_padding_mask)):
        if mask is not None and mask.dtype != torch.bool and not mask.is_floating_point():
            raise ValueError(
                f"{name} must be boolean, True = not allowed, or floating point, what is added to "
                f"the logits; got {mask.dtype}"
            )
    if key_padding_mask is not None and key_padding_mask.shape != (batch, keys):
        raise ValueError(
            f"key_padding_mask must be [B, S] = {[batch, keys]}, got {list(key_padding_mask.shape)}"
        )
    # A single query sees all keys.
    causal = is_causal and length > 1
    padding = None if key_padding_mask is None else key_padding_mask[:, None, None]
    pairs = None if attn_mask is None else _by_head(attn_mask, logits)
    return AttentionMask(length, keys, pairs, padding, causal)


def _by_head(attn_mask: Tensor, logits: tuple[int, int, int, int]) -> Tensor:
    batch, heads, *pairs = logits
    given = list(attn_mask.shape)
    if given == pairs:
        return attn_mask[None, None]
    if given == [batch, *pairs]:
        return attn_mask.unsqueeze(1)
    if given == [batch * heads, *pairs]:
        return attn_mask.unflatten(0, (batch, heads))
    if len(given) == 4 and given[0] in (1, batch) and given[1] in (1, heads) and given[2:] == pairs:
        return attn_mask
    raise ValueError(
        f"attn_mask must be [L, S] = {pairs}, or have B = {batch}, B * H = {batch * heads}, or B "
        f"and H = {[batch, heads]} before that, got {given}"
    )
