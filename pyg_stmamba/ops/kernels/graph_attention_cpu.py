r"""Graph attention in one pass over the edges of every target on a CPU.

Slices (all that lies between nodes and heads) are independent, so threads share them out, and no
two write to the same place. A block of slices at a time keeps what a target needs in the cache;
nothing of size edges x channels is ever stored. A head of a slice is one column: arrays are
:obj:`[nodes, columns, channels]` and :obj:`[edges, columns]`.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from .arrays import array
from .thread_pool import over_ranges
from .vector_math import exp

COLUMNS = 128

_FLAGS = {"contract", "reassoc", "nsz", "arcp"}


class Options(NamedTuple):
    r"""Which of the optional inputs are there, and how logits are read."""

    heads: int
    edge_logit: bool
    per_slice: bool
    keep: bool
    attention: bool
    slope: np.float32
    scale: np.float32


@njit(inline="always", fastmath=_FLAGS)
def _softmax(  # type: ignore[no-untyped-def]
    i, first, last, begin, end, source, permutation, source_logit, target_logit, edge_logit,
    options, raw, weight, highest, total,
):  # fmt: skip
    size = end - begin
    low, zero, tiny = np.float32(-np.inf), np.float32(0.0), np.float32(1.2e-38)
    highest[:] = low
    total[:] = zero
    target = target_logit[i, begin:end]
    for k in range(last - first):
        sent, raw_k, weight_k = source_logit[source[first + k], begin:end], raw[k], weight[k]
        for q in range(size):
            raw_k[q] = sent[q] + target[q]
        if options.edge_logit:
            e = permutation[first + k]
            if options.per_slice:
                own = edge_logit[e, begin:end]
                for q in range(size):
                    raw_k[q] += own[q]
            else:
                for q in range(size):
                    raw_k[q] += edge_logit[e, (begin + q) % options.heads]
        for q in range(size):
            x = raw_k[q]
            weight_k[q] = x if x > zero else x * options.slope
            highest[q] = max(highest[q], weight_k[q])
    for k in range(last - first):
        weight_k = weight[k]
        for q in range(size):
            # A logit of minus infinity shuts an edge, and may be all that a target has.
            shut = weight_k[q] == low
            w = exp(zero if shut else weight_k[q] - highest[q])
            weight_k[q] = zero if shut else w
            total[q] += weight_k[q]
    for q in range(size):
        total[q] = tiny if total[q] < tiny else total[q]
    for k in range(last - first):
        weight_k = weight[k]
        for q in range(size):
            weight_k[q] /= total[q]


@njit(nogil=True, cache=True, fastmath=_FLAGS, error_model="numpy")
def forward_columns(  # type: ignore[no-untyped-def]
    start, stop, value, source_logit, target_logit, edge_logit, keep, rowptr, source, permutation,
    options, out, attention, log_sum,
):  # fmt: skip
    targets, channels = target_logit.shape[0], value.shape[2]
    zero, tiny, infinity = np.float32(0.0), np.float32(1.2e-38), np.float32(np.inf)
    degree = 0
    for i in range(targets):
        degree = max(degree, rowptr[i + 1] - rowptr[i])
    for begin in range(start, stop, COLUMNS):
        end = min(begin + COLUMNS, stop)
        size = end - begin
        raw = np.empty((degree, size), np.float32)
        weight = np.empty((degree, size), np.float32)
        highest = np.empty(size, np.float32)
        total = np.empty(size, np.float32)
        for i in range(targets):
            first, last = rowptr[i], rowptr[i + 1]
            out_i = out[i, begin:end]
            out_i[:] = zero
            _softmax(
                i, first, last, begin, end, source, permutation, source_logit, target_logit,
                edge_logit, options, raw, weight, highest, total,
            )  # fmt: skip
            for q in range(size):
                # Infinity gives the weight 0 to what a target without open edges has.
                shut = total[q] <= tiny
                log_sum[i, begin + q] = infinity if shut else highest[q] + np.log(total[q])
            for k in range(last - first):
                weight_k, e = weight[k], permutation[first + k]
                if options.keep:
                    keep_e = keep[e, begin:end]
                    for q in range(size):
                        weight_k[q] = weight_k[q] * options.scale if keep_e[q] else zero
                if options.attention:
                    attention[e, begin:end] = weight_k
                value_k = value[source[first + k], begin:end]
                for q in range(size):
                    w = weight_k[q]
                    for c in range(channels):
                        out_i[q, c] += w * value_k[q, c]


@njit(nogil=True, cache=True, fastmath=_FLAGS, error_model="numpy")
def backward_columns(  # type: ignore[no-untyped-def]
    start, stop, grad_out, grad_attention, value, source_logit, target_logit, edge_logit, keep,
    rowptr, source, permutation, options,
    grad_value, grad_source, grad_target, grad_edge,
):  # fmt: skip
    targets, channels = target_logit.shape[0], value.shape[2]
    zero = np.float32(0.0)
    degree = 0
    for i in range(targets):
        degree = max(degree, rowptr[i + 1] - rowptr[i])
    for begin in range(start, stop, COLUMNS):
        end = min(begin + COLUMNS, stop)
        size = end - begin
        raw = np.empty((degree, size), np.float32)
        weight = np.empty((degree, size), np.float32)
        grad = np.empty((degree, size), np.float32)
        highest = np.empty(size, np.float32)
        total = np.empty(size, np.float32)
        mean = np.empty(size, np.float32)
        for s in range(value.shape[0]):
            grad_value[s, begin:end] = zero
            grad_source[s, begin:end] = zero
        for i in range(targets):
            first, last = rowptr[i], rowptr[i + 1]
            grad_target_i, received = grad_target[i, begin:end], grad_out[i, begin:end]
            grad_target_i[:] = zero
            mean[:] = zero
            _softmax(
                i, first, last, begin, end, source, permutation, source_logit, target_logit,
                edge_logit, options, raw, weight, highest, total,
            )  # fmt: skip
            for k in range(last - first):
                weight_k, grad_k = weight[k], grad[k]
                s, e = source[first + k], permutation[first + k]
                value_k, grad_value_k = value[s, begin:end], grad_value[s, begin:end]
                for q in range(size):
                    factor = np.float32(1.0)
                    if options.keep:
                        factor = options.scale if keep[e, begin + q] else zero
                    w = weight_k[q] * factor
                    g = zero
                    for c in range(channels):
                        g += received[q, c] * value_k[q, c]
                        grad_value_k[q, c] += w * received[q, c]
                    if options.attention:
                        g += grad_attention[e, begin + q]
                    g *= factor
                    grad_k[q] = g
                    mean[q] += g * weight_k[q]
            for k in range(last - first):
                raw_k, weight_k, grad_k = raw[k], weight[k], grad[k]
                s, e = source[first + k], permutation[first + k]
                grad_source_k = grad_source[s, begin:end]
                for q in range(size):
                    g = (grad_k[q] - mean[q]) * weight_k[q]
                    g = g if raw_k[q] > zero else g * options.slope
                    grad_k[q] = g
                    grad_source_k[q] += g
                    grad_target_i[q] += g
                if options.edge_logit:
                    if options.per_slice:
                        grad_edge[e, begin:end] = grad_k
                    else:
                        for q in range(size):
                            grad_edge[e, (begin + q) % options.heads] += grad_k[q]


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
    inputs = _inputs(
        value, source_logit, target_logit, edge_logit, keep, rowptr, source, permutation
    )
    options = _options(
        target_logit, edge_logit, keep, heads, negative_slope, scale, attention.numel() > 0
    )
    outputs = [array(out), array(attention), array(log_sum)]
    over_ranges(
        target_logit.size(1),
        lambda _, start, stop: forward_columns(start, stop, *inputs, options, *outputs),
    )


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
    out: Tensor,
    log_sum: Tensor,
    heads: int,
    negative_slope: float,
    scale: float,
) -> tuple[Tensor, ...]:
    r"""Returns the gradients of :obj:`value`, the logits of the sources, of the targets and of the
    edges; outgoing edges are not needed."""
    inputs = _inputs(
        value, source_logit, target_logit, edge_logit, keep, rowptr, source, permutation
    )
    options = _options(
        target_logit, edge_logit, keep, heads, negative_slope, scale, grad_attention is not None
    )
    given = [array(grad_out), array(grad_attention, rank=2)]
    grads = [torch.empty_like(x) for x in (value, source_logit, target_logit)]
    outputs = [array(x) for x in grads]
    # The threads share the columns; one logit for all the slices of an edge they sum apart.
    parts = 1 if options.per_slice else torch.get_num_threads()
    grad_edge = value.new_zeros(parts, *(edge_logit.shape if edge_logit is not None else (0, 0)))
    edge_sums = array(grad_edge)
    over_ranges(
        target_logit.size(1),
        lambda part, start, stop: backward_columns(
            start, stop, *given, *inputs, options, *outputs, edge_sums[min(part, parts - 1)]
        ),
    )
    return *grads, grad_edge.sum(0)


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
    logits = [array(x, rank=2) for x in (source_logit, target_logit, edge_logit)]
    kept = array(keep, rank=2, dtype=torch.bool)
    return [array(value), *logits, kept, *(array(x) for x in (rowptr, source, permutation))]


def _options(
    target_logit: Tensor,
    edge_logit: Tensor | None,
    keep: Tensor | None,
    heads: int,
    negative_slope: float,
    scale: float,
    attention: bool,
) -> Options:
    return Options(
        heads,
        edge_logit is not None,
        edge_logit is not None and edge_logit.size(1) == target_logit.size(1),
        keep is not None,
        attention,
        np.float32(negative_slope),
        np.float32(scale),
    )
