r"""Graph attention in one pass over the edges of every target on a CPU.

Slices (all that lies between nodes and heads) are independent, so threads share them out, and no
two write to the same place. A head of a slice is one column: arrays are
:obj:`[nodes, columns, channels]` and :obj:`[edges, columns]`. Sixteen columns at a time keep what
a target needs in the cache; nothing of size edges x channels is ever stored.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from .arrays import memory, zeros
from .lanes import KERNEL, LANES, fill, higher_of, load, number, put, store, total, where_above
from .thread_pool import over_ranges
from .vector_math import exp, log


class Scratch(NamedTuple):
    r"""Memory of one thread: of the edges of a target, for sixteen columns."""

    raw: Any
    weight: Any
    grad: Any
    dot: Any


class Options(NamedTuple):
    r"""Which of the optional inputs are there, how logits are read, and the sizes."""

    edge_logit: bool
    per_slice: bool
    keep: bool
    attention: bool
    slope: float
    scale: float
    heads: int
    columns: int
    channels: int


@njit(inline="always")
def _edge_place(e, begin, edge_logit, edges, options):  # type: ignore[no-untyped-def]
    r"""Where the logits of an edge stand for the columns from :obj:`begin` on.

    Those that are the same for all slices are repeated over some columns more than a block has,
    so that each block finds its own from the head on with which it begins.
    """
    if options.per_slice:
        return e * options.columns + begin
    return e * (edge_logit.size // edges) + begin % options.heads


@njit(inline="always")
def _logit(  # type: ignore[no-untyped-def]
    place, e, begin, width, target, source, source_logit, edge_logit, options
):
    r"""The logits of an edge before the LeakyReLU."""
    raw = target + load(source_logit, source[place] * options.columns + begin, width)
    if options.edge_logit:
        at = _edge_place(e, begin, edge_logit, source.size, options)
        raw += load(edge_logit, at, width)
    return raw


@njit(inline="always")
def _kept(keep, at, width, options):  # type: ignore[no-untyped-def]
    return load(keep, at, width) * options.scale if options.keep else fill(1.0)


@KERNEL
def forward_blocks(  # type: ignore[no-untyped-def]
    start, stop, value, source_logit, target_logit, edge_logit, keep, rowptr, source, permutation,
    options, out, attention, log_sum, weight,
):  # fmt: skip
    columns, channels, slope = options.columns, options.channels, options.slope
    for begin in range(start * LANES, min(stop * LANES, columns), LANES):
        width = min(LANES, columns - begin)
        for i in range(rowptr.size - 1):
            first, last = rowptr[i], rowptr[i + 1]
            at_target = i * columns + begin
            target = load(target_logit, at_target, width)
            highest = fill(-np.inf)
            for place in range(first, last):
                raw = _logit(
                    place, permutation[place], begin, width, target, source, source_logit,
                    edge_logit, options,
                )  # fmt: skip
                logit = where_above(raw, 0.0, raw, raw * slope)
                store(weight, (place - first) * LANES, LANES, logit)
                highest = higher_of(highest, logit)
            norm = fill(0.0)
            for k in range(last - first):
                logit = load(weight, k * LANES, LANES)
                # A logit of minus infinity shuts an edge, and may be all that a target has.
                w = where_above(logit, -np.inf, exp(logit - highest), 0.0)
                store(weight, k * LANES, LANES, w)
                norm += w
            # Infinity gives the weight 0 to what a target without open edges has.
            log_norm = where_above(norm, 0.0, highest + log(norm), np.inf)
            store(log_sum, at_target, width, log_norm)
            share = where_above(norm, 0.0, 1.0 / norm, 0.0)
            for k in range(last - first):
                at = permutation[first + k] * columns + begin
                w = load(weight, k * LANES, LANES) * share * _kept(keep, at, width, options)
                store(weight, k * LANES, LANES, w)
                if options.attention:
                    store(attention, at, width, w)
            for q in range(width):
                for c in range(0, channels, LANES):
                    some = min(LANES, channels - c)
                    y = fill(0.0)
                    for k in range(last - first):
                        at = (source[first + k] * columns + begin + q) * channels + c
                        y += load(value, at, some) * number(weight, k * LANES + q)
                    store(out, (at_target + q) * channels + c, some, y)


@KERNEL
def backward_blocks(  # type: ignore[no-untyped-def]
    start, stop, grad_out, grad_attention, value, source_logit, target_logit, edge_logit, keep,
    rowptr, source, permutation, options, log_sum,
    grad_value, grad_source, grad_target, grad_edge, scratch,
):  # fmt: skip
    columns, channels, slope = options.columns, options.channels, options.slope
    raws, weights, grads, dot = scratch
    for begin in range(start * LANES, min(stop * LANES, columns), LANES):
        width = min(LANES, columns - begin)
        for i in range(rowptr.size - 1):
            first, last = rowptr[i], rowptr[i + 1]
            at_target = i * columns + begin
            target, norm = load(target_logit, at_target, width), load(log_sum, at_target, width)
            for k in range(last - first):
                e = permutation[first + k]
                raw = _logit(
                    first + k, e, begin, width, target, source, source_logit, edge_logit, options
                )
                logit = where_above(raw, 0.0, raw, raw * slope)
                w = where_above(logit, -np.inf, exp(logit - norm), 0.0)
                store(raws, k * LANES, LANES, raw)
                store(weights, k * LANES, LANES, w)
                kept = w * _kept(keep, e * columns + begin, width, options)
                store(grads, k * LANES, LANES, kept)
            for k in range(last - first):
                at_source = source[first + k] * columns + begin
                for q in range(width):
                    w = number(grads, k * LANES + q)
                    product = fill(0.0)
                    for c in range(0, channels, LANES):
                        some = min(LANES, channels - c)
                        g = load(grad_out, (at_target + q) * channels + c, some)
                        at = (at_source + q) * channels + c
                        product += g * load(value, at, some)
                        store(grad_value, at, some, load(grad_value, at, some) + g * w)
                    put(dot, k * LANES + q, total(product))
            mean = fill(0.0)
            for k in range(last - first):
                at = permutation[first + k] * columns + begin
                g = load(dot, k * LANES, LANES)
                if options.attention:
                    g += load(grad_attention, at, width)
                g *= _kept(keep, at, width, options)
                store(grads, k * LANES, LANES, g)
                mean += g * load(weights, k * LANES, LANES)
            grad_i = fill(0.0)
            for k in range(last - first):
                at = k * LANES
                g = (load(grads, at, LANES) - mean) * load(weights, at, LANES)
                g = where_above(load(raws, at, LANES), 0.0, g, g * slope)
                at = source[first + k] * columns + begin
                store(grad_source, at, width, load(grad_source, at, width) + g)
                grad_i += g
                if options.edge_logit:
                    at = _edge_place(
                        permutation[first + k], begin, edge_logit, source.size, options
                    )
                    store(grad_edge, at, width, load(grad_edge, at, width) + g)
            store(grad_target, at_target, width, grad_i)


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
    options = _options(
        value, target_logit, edge_logit, keep, heads, negative_slope, scale, attention.numel() > 0
    )
    repeated = _repeated(edge_logit, options)
    inputs = _inputs(value, source_logit, target_logit, repeated, keep, rowptr, source, permutation)
    outputs, size = [memory(x) for x in (out, attention, log_sum)], _most_edges(rowptr) * LANES

    def work(_: int, start: int, stop: int) -> None:
        forward_blocks(start, stop, *inputs, options, *outputs, *zeros(size))

    over_ranges(-(-options.columns // LANES), work)


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
    edges; outgoing edges are not needed."""
    options = _options(
        value, target_logit, edge_logit, keep, heads, negative_slope, scale,
        grad_attention is not None,
    )  # fmt: skip
    repeated = _repeated(edge_logit, options)
    inputs = _inputs(value, source_logit, target_logit, repeated, keep, rowptr, source, permutation)
    given = [memory(grad_out), memory(grad_attention, value.dtype)]
    grad_value = torch.zeros_like(value, dtype=torch.float32)
    grad_source, grad_target = torch.zeros_like(source_logit), torch.empty_like(target_logit)
    outputs = [memory(x) for x in (grad_value, grad_source, grad_target)]
    # The threads share the columns; one logit for all the slices of an edge they sum apart.
    parts = 1 if options.per_slice else torch.get_num_threads()
    grad_edge = log_sum.new_zeros(parts, *(repeated.shape if repeated is not None else (0, 0)))
    edge_sums, size = grad_edge.flatten(1).numpy(), _most_edges(rowptr) * LANES

    def work(part: int, start: int, stop: int) -> None:
        grad_edge_part = edge_sums[min(part, parts - 1)]
        backward_blocks(
            start, stop, *given, *inputs, options, memory(log_sum), *outputs, grad_edge_part,
            Scratch(*zeros(size, size, size, size)),
        )  # fmt: skip

    over_ranges(-(-options.columns // LANES), work)
    grads = (grad_value.to(value.dtype), grad_source, grad_target)
    grad_logit = grad_edge.sum(0)
    if edge_logit is not None:
        grad_logit = grad_logit.unflatten(1, (-1, edge_logit.size(1))).sum(1)
    return *grads, grad_logit


def _repeated(edge_logit: Tensor | None, options: Options) -> Tensor | None:
    if edge_logit is None or options.per_slice:
        return edge_logit
    return edge_logit.repeat(1, -(-(LANES + options.heads - 1) // options.heads))


def _most_edges(rowptr: Tensor) -> int:
    return max(1, int(rowptr.diff().max())) if rowptr.numel() > 1 else 1


def _inputs(
    value: Tensor,
    source_logit: Tensor,
    target_logit: Tensor,
    edge_logit: Tensor | None,
    keep: Tensor | None,
    rowptr: Tensor,
    source: Tensor,
    permutation: Tensor,
) -> list[Any]:
    logits = [memory(x) for x in (source_logit, target_logit, edge_logit)]
    edges = [memory(x) for x in (rowptr, source, permutation)]
    return [memory(value), *logits, memory(keep, torch.bool), *edges]


def _options(
    value: Tensor,
    target_logit: Tensor,
    edge_logit: Tensor | None,
    keep: Tensor | None,
    heads: int,
    negative_slope: float,
    scale: float,
    attention: bool,
) -> Options:
    return Options(
        edge_logit is not None,
        edge_logit is not None and edge_logit.size(1) == target_logit.size(1),
        keep is not None,
        attention,
        negative_slope,
        scale,
        heads,
        target_logit.size(1),
        value.size(2),
    )
