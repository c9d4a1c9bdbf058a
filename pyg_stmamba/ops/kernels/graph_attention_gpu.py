r"""Graph attention in one pass over the edges of every node on a GPU.

A program has one node and a block of slices, with all heads and channels, and walks over the edges
of the node. The forward pass shrinks its sums whenever it meets a higher logit. The backward pass
computes the weights again, from the log-sum-exp of every target, and goes over the edges twice: by
target for the gradients of targets, by source for those of sources and edges. So no two programs
add to the same place, every run gives the same bits, and nothing of size edges x channels is ever
stored. The mean gradient that a softmax takes off is summed from the edges and not from the
output, whose rounding to 16 bits would weigh more than the gradients of some targets.

A head of a slice is one column: arrays are :obj:`[nodes, columns, channels]` and
:obj:`[edges, columns]`. The programs of all nodes for one block of slices follow each other, so
that what they gather stays in the cache.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# Numbers in the tile of a program, and how many of them one thread takes.
TILE, TILE_EACH = 1024, 8

_INFINITY = tl.constexpr(float("inf"))


@triton.jit
def _columns(nodes, slices, heads: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_H: tl.constexpr):  # type: ignore[no-untyped-def]
    r"""The node, the block and the first column of a program; of each of its columns the place
    after the first, and whether it is there."""
    program = tl.program_id(0)
    node, block = (program % nodes).to(tl.int64), (program // nodes).to(tl.int64)
    q = tl.arange(0, BLOCK_S * BLOCK_H)
    s, h = q // BLOCK_H, q % BLOCK_H
    real = (s < slices - block * BLOCK_S) & (h < heads)
    return node, block, block * BLOCK_S * heads, s * heads + h, real


@triton.jit
def _tile(place, real, channels: tl.constexpr, BLOCK_C: tl.constexpr):  # type: ignore[no-untyped-def]
    c = tl.arange(0, BLOCK_C)
    return place[:, None] * channels + c[None, :], real[:, None] & (c < channels)[None, :]


@triton.jit
def _read(x, at, place, real):  # type: ignore[no-untyped-def]
    return tl.load(x + at + place, real, 0.0).to(tl.float32)


@triton.jit
def _edge_places(  # type: ignore[no-untyped-def]
    slices, first, place, heads: tl.constexpr, PER_SLICE: tl.constexpr,
    BLOCK_S: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    r"""How many logits an edge has of its own, and which of them the columns of a program take."""
    if PER_SLICE:
        own, edge_place = slices * heads, first + place
    else:
        own, edge_place = heads, tl.arange(0, BLOCK_S * BLOCK_H) % BLOCK_H
    return own, edge_place


@triton.jit
def _raw_logit(sent, received, edge_logit, at, place, real):  # type: ignore[no-untyped-def]
    raw = sent + received
    if edge_logit is not None:
        raw += _read(edge_logit, at, place, real)
    return raw


@triton.jit
def _leaky(raw, x, slope):  # type: ignore[no-untyped-def]
    r"""The LeakyReLU if :obj:`x` is :obj:`raw`, its gradient if that is what arrives."""
    return tl.where(raw > 0.0, x, x * slope)


@triton.jit
def _factor(keep, at, place, real, scale):  # type: ignore[no-untyped-def]
    r"""By what dropout multiplies the weight of an edge."""
    factor = 1.0
    if keep is not None:
        factor = tl.where(tl.load(keep + at + place, real, 0) != 0, scale, 0.0)
    return factor


@triton.jit(do_not_specialize=["nodes", "slices"])
def forward_targets(  # type: ignore[no-untyped-def]
    value, source_logit, target_logit, edge_logit, keep, rowptr, source, permutation,
    out, attention, log_sum, slope, scale, nodes, slices,
    heads: tl.constexpr, channels: tl.constexpr, PER_SLICE: tl.constexpr,
    BLOCK_S: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    i, _, first, place, real = _columns(nodes, slices, heads, BLOCK_S, BLOCK_H)
    tile, real_tile = _tile(place, real, channels, BLOCK_C)
    own, edge_place = _edge_places(slices, first, place, heads, PER_SLICE, BLOCK_S, BLOCK_H)
    columns = slices * heads
    at = i * columns + first
    begin, end = tl.load(rowptr + i), tl.load(rowptr + i + 1)
    received = _read(target_logit, at, place, real)
    highest = tl.full([BLOCK_S * BLOCK_H], -_INFINITY, tl.float32)
    total = tl.zeros([BLOCK_S * BLOCK_H], tl.float32)
    weighted = tl.zeros([BLOCK_S * BLOCK_H, BLOCK_C], tl.float32)
    for k in range(begin, end):
        e, sent_at = tl.load(permutation + k), tl.load(source + k) * columns + first
        sent = _read(source_logit, sent_at, place, real)
        raw = _raw_logit(sent, received, edge_logit, e * own, edge_place, real)
        logit = _leaky(raw, raw, slope)
        higher = tl.maximum(highest, logit)
        # A logit of minus infinity shuts an edge, and may be all that a target has.
        base = tl.where(higher == -_INFINITY, 0.0, higher)
        shrink, weight = tl.exp(highest - base), tl.exp(logit - base)
        highest, total = higher, total * shrink + weight
        weight *= _factor(keep, e * columns + first, place, real, scale)
        value_k = _read(value, sent_at * channels, tile, real_tile)
        weighted = weighted * shrink[:, None] + weight[:, None] * value_k
    # Infinity gives the weight 0 to every edge of a target without open ones.
    shut = total == 0.0
    total = tl.where(shut, 1.0, total)
    log_total = tl.where(shut, _INFINITY, highest + tl.log(total))
    tl.store(out + at * channels + tile, weighted / total[:, None], real_tile)
    tl.store(log_sum + at + place, log_total, real)
    if attention is not None:
        for k in range(begin, end):
            e, sent_at = tl.load(permutation + k), tl.load(source + k) * columns + first
            sent = _read(source_logit, sent_at, place, real)
            raw = _raw_logit(sent, received, edge_logit, e * own, edge_place, real)
            weight = tl.exp(_leaky(raw, raw, slope) - log_total)
            weight *= _factor(keep, e * columns + first, place, real, scale)
            tl.store(attention + e * columns + first + place, weight, real)


@triton.jit(do_not_specialize=["nodes", "slices"])
def backward_targets(  # type: ignore[no-untyped-def]
    grad_out, grad_attention, value, source_logit, target_logit, edge_logit, keep, rowptr, source,
    permutation, log_sum, mean, grad_target, slope, scale, nodes, slices,
    heads: tl.constexpr, channels: tl.constexpr, PER_SLICE: tl.constexpr,
    BLOCK_S: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    i, _, first, place, real = _columns(nodes, slices, heads, BLOCK_S, BLOCK_H)
    tile, real_tile = _tile(place, real, channels, BLOCK_C)
    own, edge_place = _edge_places(slices, first, place, heads, PER_SLICE, BLOCK_S, BLOCK_H)
    columns = slices * heads
    at = i * columns + first
    received = _read(target_logit, at, place, real)
    log_total = _read(log_sum, at, place, real)
    grad_i = _read(grad_out, at * channels, tile, real_tile)
    # The gradients of the weights, averaged by the weights; as the mean is known in the end only,
    # it is taken off what came through the LeakyReLU as a whole.
    mean_i = tl.zeros([BLOCK_S * BLOCK_H], tl.float32)
    through, passed = tl.zeros_like(mean_i), tl.zeros_like(mean_i)
    for k in range(tl.load(rowptr + i), tl.load(rowptr + i + 1)):
        e, sent_at = tl.load(permutation + k), tl.load(source + k) * columns + first
        sent = _read(source_logit, sent_at, place, real)
        raw = _raw_logit(sent, received, edge_logit, e * own, edge_place, real)
        weight = tl.exp(_leaky(raw, raw, slope) - log_total)
        grad = tl.sum(grad_i * _read(value, sent_at * channels, tile, real_tile), 1)
        if grad_attention is not None:
            grad += _read(grad_attention, e * columns + first, place, real)
        grad *= weight * _factor(keep, e * columns + first, place, real, scale)
        mean_i += grad
        through += _leaky(raw, grad, slope)
        passed += _leaky(raw, weight, slope)
    tl.store(mean + at + place, mean_i, real)
    tl.store(grad_target + at + place, through - mean_i * passed, real)


@triton.jit(do_not_specialize=["nodes", "slices", "edges"])
def backward_sources(  # type: ignore[no-untyped-def]
    grad_out, grad_attention, value, source_logit, target_logit, edge_logit, keep, rowptr, target,
    permutation, log_sum, mean, grad_value, grad_source, grad_edge, slope, scale,
    nodes, slices, edges,
    heads: tl.constexpr, channels: tl.constexpr, PER_SLICE: tl.constexpr,
    BLOCK_S: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    j, block, first, place, real = _columns(nodes, slices, heads, BLOCK_S, BLOCK_H)
    tile, real_tile = _tile(place, real, channels, BLOCK_C)
    own, edge_place = _edge_places(slices, first, place, heads, PER_SLICE, BLOCK_S, BLOCK_H)
    columns = slices * heads
    at = j * columns + first
    sent = _read(source_logit, at, place, real)
    value_j = _read(value, at * channels, tile, real_tile)
    sum_source = tl.zeros([BLOCK_S * BLOCK_H], tl.float32)
    sum_value = tl.zeros([BLOCK_S * BLOCK_H, BLOCK_C], tl.float32)
    for k in range(tl.load(rowptr + j), tl.load(rowptr + j + 1)):
        e, received_at = tl.load(permutation + k), tl.load(target + k) * columns + first
        received = _read(target_logit, received_at, place, real)
        raw = _raw_logit(sent, received, edge_logit, e * own, edge_place, real)
        weight = tl.exp(_leaky(raw, raw, slope) - _read(log_sum, received_at, place, real))
        factor = _factor(keep, e * columns + first, place, real, scale)
        grad_k = _read(grad_out, received_at * channels, tile, real_tile)
        sum_value += (weight * factor)[:, None] * grad_k
        grad = tl.sum(grad_k * value_j, 1)
        if grad_attention is not None:
            grad += _read(grad_attention, e * columns + first, place, real)
        grad = weight * (grad * factor - _read(mean, received_at, place, real))
        grad_logit = _leaky(raw, grad, slope)
        sum_source += grad_logit
        if grad_edge is not None:
            if PER_SLICE:
                tl.store(grad_edge + e * columns + first + place, grad_logit, real)
            else:
                of_heads = tl.sum(tl.reshape(grad_logit, [BLOCK_S, BLOCK_H]), 0)
                h = tl.arange(0, BLOCK_H)
                tl.store(grad_edge + (block * edges + e) * heads + h, of_heads, h < heads)
    tl.store(grad_value + at * channels + tile, sum_value, real_tile)
    tl.store(grad_source + at + place, sum_source, real)


def forward(
    value: Tensor,
    source_logit: Tensor,
    target_logit: Tensor,
    edge_logit: Tensor | None,
    keep: Tensor | None,
    rowptr: Tensor,
    source: Tensor,
    permutation: Tensor,
    heads: int,
    negative_slope: float,
    scale: float,
    out: Tensor,
    attention: Tensor,
    log_sum: Tensor,
) -> None:
    r"""Writes :obj:`out`, the logarithm of every sum of exponentials and, unless it is empty,
    :obj:`attention`."""
    nodes, slices, channels = target_logit.size(0), target_logit.size(1) // heads, value.size(2)
    blocks, constants = _constants(slices, heads, channels, edge_logit)
    with torch.cuda.device_of(value):
        forward_targets[(nodes * blocks,)](
            value, source_logit, target_logit, edge_logit, _bytes(keep), rowptr, source,
            permutation, out, attention if attention.numel() > 0 else None, log_sum,
            negative_slope, scale, nodes, slices, heads, channels, **constants,
        )  # fmt: skip


def backward(
    grad_out: Tensor,
    grad_attention: Tensor | None,
    value: Tensor,
    source_logit: Tensor,
    target_logit: Tensor,
    edge_logit: Tensor | None,
    keep: Tensor | None,
    rowptr: Tensor,
    source: Tensor,
    permutation: Tensor,
    outgoing: tuple[Tensor | None, ...],
    log_sum: Tensor,
    heads: int,
    negative_slope: float,
    scale: float,
) -> tuple[Tensor, ...]:
    r"""Returns the gradients of :obj:`value`, the logits of the sources, of the targets and of the
    edges."""
    slices, channels = target_logit.size(1) // heads, value.size(2)
    blocks, constants = _constants(slices, heads, channels, edge_logit)
    grad_value, grad_source, grad_target = (
        torch.empty_like(x) for x in (value, source_logit, target_logit)
    )
    mean = torch.empty_like(log_sum)
    # Without logits of the edges there is no such gradient, and the kernel is made without it;
    # one for all the slices is the sum of one part for each of their blocks.
    grad_edge = None
    if edge_logit is not None and constants["PER_SLICE"]:
        grad_edge = torch.empty_like(edge_logit)
    elif edge_logit is not None:
        grad_edge = log_sum.new_empty(blocks, *edge_logit.shape)
    with torch.cuda.device_of(value):
        backward_targets[(target_logit.size(0) * blocks,)](
            grad_out, grad_attention, value, source_logit, target_logit, edge_logit, _bytes(keep),
            rowptr, source, permutation, log_sum, mean, grad_target,
            negative_slope, scale, target_logit.size(0), slices, heads, channels, **constants,
        )  # fmt: skip
        backward_sources[(value.size(0) * blocks,)](
            grad_out, grad_attention, value, source_logit, target_logit, edge_logit, _bytes(keep),
            *outgoing, log_sum, mean, grad_value, grad_source, grad_edge,
            negative_slope, scale, value.size(0), slices, permutation.size(0),
            heads, channels, **constants,
        )  # fmt: skip
    if edge_logit is None or grad_edge is None:
        grad_edge = value.new_empty(0, 0)
    elif not constants["PER_SLICE"]:
        grad_edge = grad_edge.sum(0).to(edge_logit.dtype)
    return grad_value, grad_source, grad_target, grad_edge


def _constants(
    slices: int, heads: int, channels: int, edge_logit: Tensor | None
) -> tuple[int, dict[str, Any]]:
    r"""Returns into how many blocks the slices fall, and what is constant in a kernel."""
    block_h, block_c = triton.next_power_of_2(heads), triton.next_power_of_2(channels)
    block_s = min(max(TILE // (block_h * block_c), 1), triton.next_power_of_2(slices))
    threads = block_s * block_h * block_c // TILE_EACH
    constants = {
        "PER_SLICE": edge_logit is not None and edge_logit.size(1) == slices * heads,
        "BLOCK_S": block_s,
        "BLOCK_H": block_h,
        "BLOCK_C": block_c,
        "num_warps": min(max(threads // 32, 1), 16),
    }
    return triton.cdiv(slices, block_s), constants


def _bytes(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.view(torch.uint8)
