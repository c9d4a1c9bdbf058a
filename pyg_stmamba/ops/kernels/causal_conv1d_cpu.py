r"""The causal depthwise convolution and its SiLU in one pass over the data on a CPU."""

from typing import Any, NamedTuple

import torch
from numba import njit
from torch import Tensor

from .arrays import memory, rows, zeros
from .lanes import KERNEL, LANES, fill, load, store
from .thread_pool import over_ranges
from .vector_math import sigmoid

# Rows whose gradients are summed before they are added to the sums of all rows: a float32 sum of
# very many terms, one after the other, would lose digits.
ROWS_AT_ONCE = 256


class Scratch(NamedTuple):
    r"""The sums over some rows, of all blocks of channels, and the gradients of the sums at each
    step of a row, of one."""

    weight: Any
    bias: Any
    grad: Any


class Options(NamedTuple):
    r"""Which of the optional inputs are there, and the sizes."""

    initial_state: bool
    silu: bool
    steps: int
    width: int


@njit(inline="always")
def _input(x, initial, options, r, t, channels, first, lanes):  # type: ignore[no-untyped-def]
    r"""The input of a step; those before the first are the initial state."""
    if t >= 0:
        return load(x.memory, x.row * r + x.step * t + first, lanes)
    if options.initial_state:
        before = options.width - 1
        return load(initial, (r * before + before + t) * channels + first, lanes)
    return fill(0.0)


@njit(inline="always")
def _convolve(x, weight, bias, initial, options, r, t, channels, first, lanes):  # type: ignore[no-untyped-def]
    out = load(bias, first, lanes)
    for k in range(options.width):
        x_k = _input(x, initial, options, r, t + k + 1 - options.width, channels, first, lanes)
        out += load(weight, k * channels + first, lanes) * x_k
    return out


@KERNEL
def forward_rows(start, stop, x, weight, bias, initial, options, y):  # type: ignore[no-untyped-def]
    channels = bias.size
    for r in range(start, stop):
        for first in range(0, channels, LANES):
            lanes = min(LANES, channels - first)
            for t in range(options.steps):
                out = _convolve(x, weight, bias, initial, options, r, t, channels, first, lanes)
                if options.silu:
                    out *= sigmoid(out)
                store(y, (r * options.steps + t) * channels + first, lanes, out)


@KERNEL
def backward_rows(  # type: ignore[no-untyped-def]
    start, stop, grad_y, x, weight, bias, initial, options,
    grad_x, grad_weight, grad_bias, grad_initial, scratch,
):  # fmt: skip
    steps, width, channels = options.steps, options.width, bias.size
    sum_weight, sum_bias, grad = scratch
    for r in range(start, stop):
        for first in range(0, channels, LANES):
            lanes = min(LANES, channels - first)
            g_bias = load(sum_bias, first, LANES)
            for t in range(steps):
                g = load(grad_y, (r * steps + t) * channels + first, lanes)
                if options.silu:
                    out = _convolve(x, weight, bias, initial, options, r, t, channels, first, lanes)
                    s = sigmoid(out)
                    g *= s * (1.0 + out * (1.0 - s))
                store(grad, t * LANES, LANES, g)
                g_bias += g
            store(sum_bias, first, LANES, g_bias)
            for k in range(width):
                place = first * width + k * LANES
                g_weight = load(sum_weight, place, LANES)
                for t in range(steps):
                    x_k = _input(x, initial, options, r, t + k + 1 - width, channels, first, lanes)
                    g_weight += load(grad, t * LANES, LANES) * x_k
                store(sum_weight, place, LANES, g_weight)
            for t in range(1 - width if options.initial_state else 0, steps):
                g = fill(0.0)
                for k in range(width):
                    later = t + width - 1 - k
                    if 0 <= later < steps:
                        w = load(weight, k * channels + first, lanes)
                        g += w * load(grad, later * LANES, LANES)
                if t >= 0:
                    store(grad_x, (r * steps + t) * channels + first, lanes, g)
                else:
                    at = (r * (width - 1) + width - 1 + t) * channels + first
                    store(grad_initial, at, lanes, g)
        if (r - start) % ROWS_AT_ONCE == ROWS_AT_ONCE - 1 or r == stop - 1:
            for c in range(channels):
                grad_bias[c] += sum_bias[c]
                place = c // LANES * width * LANES + c % LANES
                for k in range(width):
                    grad_weight[k * channels + c] += sum_weight[place + k * LANES]
            sum_weight[:] = 0.0
            sum_bias[:] = 0.0


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    initial_state: Tensor | None,
    silu: bool,
    y: Tensor,
) -> None:
    r"""Writes :obj:`y`."""
    inputs, out = _inputs(x, weight, bias, initial_state, silu), memory(y)
    over_ranges(len(x), lambda _, start, stop: forward_rows(start, stop, *inputs, out))


def backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    initial_state: Tensor | None,
    silu: bool,
) -> tuple[Tensor, ...]:
    r"""Returns the gradients of the first four inputs."""
    inputs, given = _inputs(x, weight, bias, initial_state, silu), memory(grad_y)
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    grad_initial = (
        x.new_empty(0, 0, 0) if initial_state is None else torch.empty_like(initial_state)
    )
    # Each thread sums over its own rows.
    parts = torch.get_num_threads()
    grad_weight, grad_bias = (p.new_zeros(parts, *p.shape) for p in (weight, bias))
    out_weight, out_bias = (x.flatten(1).numpy() for x in (grad_weight, grad_bias))
    out_x, out_initial = memory(grad_x), memory(grad_initial)

    def work(part: int, start: int, stop: int) -> None:
        scratch = _scratch(weight.size(0), weight.size(1), x.size(1))
        backward_rows(
            start, stop, given, *inputs,
            out_x, out_weight[part], out_bias[part], out_initial, scratch,
        )  # fmt: skip

    over_ranges(len(x), work)
    return grad_x, grad_weight.sum(0), grad_bias.sum(0), grad_initial


def _scratch(width: int, channels: int, steps: int) -> Scratch:
    in_blocks = -(-channels // LANES) * LANES
    return Scratch(*zeros(in_blocks * width, in_blocks, steps * LANES))


def _inputs(
    x: Tensor, weight: Tensor, bias: Tensor, initial_state: Tensor | None, silu: bool
) -> list[Any]:
    options = Options(initial_state is not None, silu, x.size(1), weight.size(0))
    return [rows(x), memory(weight), memory(bias), memory(initial_state, x.dtype), options]
