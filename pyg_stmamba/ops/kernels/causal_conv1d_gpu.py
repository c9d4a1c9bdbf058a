r"""The causal depthwise convolution and its SiLU in one pass over the data on a GPU.

A program works on a tile of steps and channels of several rows one after the other. The backward
pass computes what stood before the SiLU again, so that the forward pass keeps nothing. Sums over
rows are written as one partial sum per program and added up by torch, which gives the same bits
in every run.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# Programs along the rows in the backward pass, and with it the memory for partial sums.
PARTS = 2048
# Steps and channels of a tile.
STEPS, CHANNELS = 16, 64


@triton.jit
def _inputs(x, initial, row, begin, k, c, steps, channels, wanted, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    r"""What stands at the steps :obj:`begin + k`, those before the first included."""
    past = (begin + k < 0)[:, None]
    tile = k[:, None] * channels + c[None, :]
    at = (row * steps + begin) * channels
    found = tl.load(x + at + tile, wanted & (past == 0), 0.0).to(tl.float32)
    if initial is not None:
        at = (row * (WIDTH - 1) + begin + (WIDTH - 1)) * channels
        found += tl.load(initial + at + tile, wanted & past, 0.0).to(tl.float32)
    return found


@triton.jit
def _convolve(  # type: ignore[no-untyped-def]
    x, weight, bias, initial, row, begin, k, c, steps, channels, wanted, WIDTH: tl.constexpr
):  # fmt: skip
    total = tl.zeros(wanted.shape, tl.float32) + tl.load(bias + c, c < channels, 0.0)[None, :]
    for tap in tl.static_range(WIDTH):
        weight_c = tl.load(weight + tap * channels + c, c < channels, 0.0)
        seen = _inputs(
            x, initial, row, begin + tap - (WIDTH - 1), k, c, steps, channels, wanted, WIDTH
        )
        total += weight_c[None, :] * seen
    return total


@triton.jit
def forward_tiles(  # type: ignore[no-untyped-def]
    x, weight, bias, initial, y, steps, channels,
    WIDTH: tl.constexpr, SILU: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    tiles = (steps + BLOCK_T - 1) // BLOCK_T
    row = (tl.program_id(0) // tiles).to(tl.int64)
    begin, k = (tl.program_id(0) % tiles) * BLOCK_T, tl.arange(0, BLOCK_T)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    real = (k < steps - begin)[:, None] & (c < channels)[None, :]
    out = _convolve(x, weight, bias, initial, row, begin, k, c, steps, channels, real, WIDTH)
    if SILU:
        out *= tl.sigmoid(out)
    tl.store(y + (row * steps + begin) * channels + k[:, None] * channels + c[None, :], out, real)


@triton.jit(do_not_specialize=["rows", "rows_each"])
def backward_tiles(  # type: ignore[no-untyped-def]
    grad_y, x, weight, bias, initial, grad_x, grad_weight, grad_bias, grad_initial,
    rows, rows_each, steps, channels,
    WIDTH: tl.constexpr, SILU: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    real_c = c < channels
    k, taps = tl.arange(0, BLOCK_T), tl.arange(0, BLOCK_K)
    tile = k[:, None] * channels + c[None, :]
    sum_weight, sum_bias = tl.zeros([BLOCK_K, BLOCK_C], tl.float32), tl.zeros([BLOCK_C], tl.float32)
    first = part * rows_each
    for row in range(first, tl.minimum(first + rows_each, rows)):
        start = 0
        if initial is not None:
            # The steps before the first have a gradient too.
            start = 1 - WIDTH
        for begin in range(start, steps, BLOCK_T):
            real = (k < steps - begin)[:, None] & real_c[None, :]
            given = _inputs(x, initial, row, begin, k, c, steps, channels, real, WIDTH)
            grad = tl.zeros([BLOCK_T, BLOCK_C], tl.float32)
            for ahead in range(WIDTH):
                later = begin + ahead
                inside = ((later + k >= 0) & (later + k < steps))[:, None] & real_c[None, :]
                at = (row * steps + later) * channels
                received = tl.load(grad_y + at + tile, inside, 0.0).to(tl.float32)
                if SILU:
                    out = _convolve(
                        x, weight, bias, initial, row, later, k, c, steps, channels, inside, WIDTH
                    )
                    s = tl.sigmoid(out)
                    received *= s * (1.0 + out * (1.0 - s))
                tap = WIDTH - 1 - ahead
                grad += tl.load(weight + tap * channels + c, real_c, 0.0)[None, :] * received
                of_tap = tl.sum(received * given, 0)
                sum_weight += tl.where((taps == tap)[:, None], of_tap[None, :], 0.0)
                if ahead == 0:
                    sum_bias += tl.sum(received, 0)
            past = (begin + k < 0)[:, None]
            at = (row * steps + begin) * channels
            tl.store(grad_x + at + tile, grad, real & (past == 0))
            if grad_initial is not None:
                at = (row * (WIDTH - 1) + begin + (WIDTH - 1)) * channels
                tl.store(grad_initial + at + tile, grad, real & past)
    of_part = (part * WIDTH + taps)[:, None] * channels + c[None, :]
    tl.store(grad_weight + of_part, sum_weight, (taps < WIDTH)[:, None] & real_c[None, :])
    tl.store(grad_bias + part * channels + c, sum_bias, real_c)


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    initial_state: Tensor | None,
    silu: bool,
    y: Tensor,
) -> None:
    r"""Writes :obj:`y`."""
    rows, steps, channels = x.shape
    grid = (rows * triton.cdiv(steps, STEPS), triton.cdiv(channels, CHANNELS))
    with torch.cuda.device_of(x):
        forward_tiles[grid](
            x, weight, bias, initial_state, y, steps, channels,
            weight.size(0), silu, STEPS, CHANNELS, num_warps=4, enable_fp_fusion=True,
        )  # fmt: skip


def backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    initial_state: Tensor | None,
    silu: bool,
) -> tuple[Tensor, ...]:
    r"""Returns the gradients of the first four inputs."""
    (rows, steps, channels), width = x.shape, weight.size(0)
    rows_each = triton.cdiv(rows, PARTS)
    parts = triton.cdiv(rows, rows_each)
    grad_x = torch.empty_like(x)
    grad_weight = weight.new_empty(parts, width, channels)
    grad_bias = bias.new_empty(parts, channels)
    # Without an initial state there is no such gradient, and the kernel is made without it.
    grad_initial = None if initial_state is None else torch.empty_like(initial_state)
    with torch.cuda.device_of(x):
        backward_tiles[(parts, triton.cdiv(channels, CHANNELS))](
            grad_y, x, weight, bias, initial_state, grad_x, grad_weight, grad_bias, grad_initial,
            rows, rows_each, steps, channels,
            width, silu, STEPS, CHANNELS, triton.next_power_of_2(width),
            num_warps=8, enable_fp_fusion=True,
        )  # fmt: skip
    if grad_initial is None:
        grad_initial = x.new_empty(0, 0, 0)
    return grad_x, grad_weight.sum(0), grad_bias.sum(0), grad_initial
