r"""Softmax attention block by block of queries, in a memory that is linear in their number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .attention_mask import ALL, AttentionMask, block_of
from .dropout_mask import dropout_mask

# So many weights are computed at once where a block of one head has no more: a few megabytes with
# all that is made of them, which stay in the cache of a CPU.
WEIGHTS_AT_ONCE = 2**18


def blockwise_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: AttentionMask,
    dropout: float = 0.0,
    block_size: int = 128,
) -> Tensor:
    r"""Computes :func:`~pyg_stmamba.ops.explicit_attention.explicit_attention` without ever
    holding the weights of more than a block of queries (`"Self-attention Does Not Need O(n^2)
    Memory" <https://arxiv.org/abs/2112.05682>`_); the backward pass computes them again.

    Beyond inputs and outputs this takes a memory of :math:`\mathcal{O}(S \cdot b)` for blocks of
    :math:`b` queries, and still a time of :math:`\mathcal{O}(L S d)`, half of it if causal. Dropout
    draws from a generator of its own, seeded by that of :func:`torch.manual_seed`, so that both
    passes drop the same weights. There is no second derivative.

    Args:
        query (torch.Tensor): The queries.
        key (torch.Tensor): The keys.
        value (torch.Tensor): The values.
        mask (AttentionMask): What is hidden.
        dropout (float, optional): Dropout probability of the weights. (default: :obj:`0.0`)
        block_size (int, optional): Number of queries of a block. (default: :obj:`128`)

    Shapes:
        - **input:** queries :math:`(B, H, L, d)`, keys and values :math:`(B, H, S, d)`
        - **output:** :math:`(B, H, L, d)`
    """
    seed = int(torch.randint(2**62, ())) if dropout > 0 else 0
    heads = query.size(1)
    # Whatever autocast chose for the inputs, both passes run in.
    with torch.autocast(query.device.type, enabled=False):
        out = _BlockwiseAttention.apply(
            *(x.flatten(0, 1) for x in (query, key, value)),
            mask.pairs,
            mask.padding,
            mask._replace(pairs=None, padding=None),
            _Plan(heads, dropout, seed, block_size),
        )
    return out.unflatten(0, (-1, heads))


class _Plan(NamedTuple):
    heads: int
    dropout: float
    seed: int
    block_size: int


class _Block(NamedTuple):
    rows: slice  # of all heads of all samples
    samples: slice
    heads: slice
    queries: slice
    keys: slice


class _BlockwiseAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        pairs: Tensor | None,
        padding: Tensor | None,
        mask: AttentionMask,
        plan: _Plan,
    ) -> Tensor:
        ctx.mask, ctx.plan = mask, plan
        out = value.new_empty(*query.shape[:-1], value.size(-1))
        mask = mask._replace(pairs=pairs, padding=padding)
        weights_of = _Weights(query, key, mask, plan)
        for block in _blocks(query, mask, plan):
            weights, keep, scale, empty = weights_of(block)
            if keep is not None:
                weights.mul_(keep)
            y = torch.bmm(weights.to(value.dtype), value[block.rows, block.keys]).mul_(scale)
            out[block.rows, block.queries] = y if empty is None else y.masked_fill_(empty, 0.0)
        ctx.save_for_backward(query, key, value, pairs, padding, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, pairs, padding, out = ctx.saved_tensors
        mask = ctx.mask._replace(pairs=pairs, padding=padding)
        wide = torch.promote_types(query.dtype, torch.float32)
        grad_query = torch.empty_like(query)
        grad_key, grad_value = (torch.zeros_like(x, dtype=wide) for x in (key, value))
        grad_bias = [
            torch.zeros_like(part) if part is not None and needed else None
            for part, needed in zip((pairs, padding), ctx.needs_input_grad[3:5])
        ]
        weights_of = _Weights(query, key, mask, ctx.plan)
        for block in _blocks(query, mask, ctx.plan):
            rows, queries, keys = block.rows, block.queries, block.keys
            weights, keep, scale, empty = weights_of(block)
            grad = grad_out[rows, queries] * scale
            if empty is not None:
                grad.masked_fill_(empty, 0.0)
            kept = weights if keep is None else weights * keep
            _add_product(grad_value[rows, keys], kept.to(grad.dtype).mT, grad)
            # The softmax: what a weight gets less what its row gets on average.
            slope = torch.bmm(grad, value[rows, keys].mT).to(wide)
            if keep is not None:
                slope.mul_(keep)
            mean = (grad_out[rows, queries] * out[rows, queries]).sum(-1, True, dtype=wide)
            slope.sub_(mean).mul_(weights)
            _add_bias_gradients(grad_bias, slope, block)
            slope = slope.to(query.dtype)
            grad_query[rows, queries] = torch.bmm(slope, key[rows, keys])
            _add_product(grad_key[rows, keys], slope.mT, query[rows, queries])
        factor = query.size(-1) ** -0.5
        return (
            grad_query.mul_(factor),
            grad_key.mul_(factor).to(key.dtype),
            grad_value.to(value.dtype),
            *grad_bias,
            None,
            None,
        )


class _Weights:
    r"""Computes the weights of a block, and draws which of them dropout keeps."""

    def __init__(self, query: Tensor, key: Tensor, mask: AttentionMask, plan: _Plan) -> None:
        self.query, self.key, self.mask, self.dropout = query, key, mask, plan.dropout
        self.dtype = torch.promote_types(query.dtype, torch.float32)
        parts = [part for part in (mask.pairs, mask.padding) if part is not None]
        self.by_sample, self.by_head = (any(part.size(i) > 1 for part in parts) for i in (0, 1))
        self.last: tuple[Any, tuple[Tensor | None, Tensor | None]] = (None, (None, None))
        self.generator = None
        if plan.dropout > 0:
            self.generator = torch.Generator(query.device).manual_seed(plan.seed)

    def __call__(self, block: _Block) -> tuple[Tensor, Tensor | None, float, Tensor | None]:
        query = self.query[block.rows, block.queries] * self.query.size(-1) ** -0.5
        weights = torch.bmm(query, self.key[block.rows, block.keys].mT).to(self.dtype)
        bias, empty = self._bias(block)
        if bias is not None and empty is not None:
            by_head = weights.unflatten(0, (-1, block.heads.stop - block.heads.start))
            by_head.add_(bias)
            empty = empty.expand(*by_head.shape[:2], -1, -1).flatten(0, 1)
        weights = weights.softmax(-1)
        if self.dropout == 0:
            return weights, None, 1.0, empty
        keep, scale = dropout_mask(weights.shape, self.dropout, query.device, self.generator)
        return weights, keep.view(torch.uint8).to(self.dtype), scale, empty

    def _bias(self, block: _Block) -> tuple[Tensor | None, Tensor | None]:
        """What to add, kept while it is the same for the next block."""
        samples = block.samples if self.by_sample else ALL
        heads = block.heads if self.by_head else ALL
        index = (block.queries, samples, heads)
        if self.last[0] != index:
            self.last = (index, self.mask.bias(self.dtype, self.query.device, *index))
        return self.last[1]


def _blocks(query: Tensor, mask: AttentionMask, plan: _Plan) -> Iterator[_Block]:
    """Blocks of whole samples, or of heads of one sample, of the size that fits."""
    samples = query.size(0) // plan.heads
    fitting = WEIGHTS_AT_ONCE // max(min(plan.block_size, mask.length) * mask.keys, 1)
    many_heads = max(min(fitting, plan.heads), 1)
    many_samples = max(fitting // plan.heads, 1)
    for queries in _slices(mask.length, plan.block_size):
        keys = slice(mask.visible(queries.stop))
        for some in _slices(samples, many_samples):
            for heads in _slices(plan.heads, many_heads):
                first, last = some.start * plan.heads, (some.stop - 1) * plan.heads
                rows = slice(first + heads.start, last + heads.stop)
                yield _Block(rows, some, heads, queries, keys)


def _slices(total: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, total)) for start in range(0, total, size))


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if left.dtype == total.dtype:
        total.baddbmm_(left, right)
    else:
        total.add_(torch.bmm(left, right))


def _add_bias_gradients(gradients: list[Tensor | None], slope: Tensor, block: _Block) -> None:
    by_head = slope.unflatten(0, (-1, block.heads.stop - block.heads.start))
    for gradient in gradients:
        if gradient is not None:
            part = block_of(gradient, block.samples, block.heads, block.queries, block.keys)
            part.add_(by_head.sum_to_size(part.shape))
