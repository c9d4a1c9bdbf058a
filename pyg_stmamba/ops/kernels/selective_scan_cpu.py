r"""The selective scan in one pass over the data on a CPU.

A row is walked through a chunk of steps at a time, sixteen channels side by side, so that all that
a chunk takes stays in the first-level cache. The backward pass recomputes the states of a chunk
from the state at its start, so that nothing of size steps x channels x states is ever stored.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from .arrays import memory, rows, zeros
from .lanes import KERNEL, LANES, add_totals, fill, load, number, store
from .thread_pool import over_ranges
from .vector_math import LOG2_E, exp2, sigmoid, softplus

# Rows whose gradients are summed before they are added to the sums of all rows: a float32 sum of
# very many terms, one after the other, would lose digits.
ROWS_AT_ONCE = 256


class Options(NamedTuple):
    r"""Which of the optional inputs are there, and the sizes."""

    softplus: bool
    gate: bool
    initial_state: bool
    mask: bool
    steps: int
    states: int
    chunk: int


class Scratch(NamedTuple):
    r"""Memory of one thread.

    What there is of all channels is :obj:`[blocks, slots, LANES]`: sixteen channels to a block,
    and a slot for each state, of an even number, because the backward pass takes two at once.
    """

    # Of a row: the state, and the gradient that it gets from later chunks; of some rows: sums.
    state: Any
    grad_state: Any
    A: Any
    D: Any
    bias: Any
    # Of a chunk, by state and step: the weights, zero where a step is masked; and by two states and
    # step: the gradients of two in B, then of the same two in C.
    B: Any
    C: Any
    sums: Any
    # Of a chunk and a block, by step; of two states, by step.
    step: Any
    drive: Any
    out: Any
    grad_out: Any
    grad_drive: Any
    grad_step: Any
    before: Any
    decay: Any


@njit(inline="always")
def _read_channels(memory, at, channels, states, slots, parts):  # type: ignore[no-untyped-def]
    r"""Copies :obj:`memory[states, channels]` from :obj:`at` on into all blocks."""
    for first in range(0, channels, LANES):
        for n in range(states):
            part = load(memory, at + n * channels + first, min(LANES, channels - first))
            store(parts, first * slots + n * LANES, LANES, part)


@njit(inline="always")
def _read_states(memory, at, channels, states, slots, parts):  # type: ignore[no-untyped-def]
    r"""Copies :obj:`memory[channels, states]` from :obj:`at` on into all blocks."""
    for c in range(channels):
        place = c // LANES * slots * LANES + c % LANES
        for n in range(states):
            parts[place + n * LANES] = memory[at + c * states + n]


@njit(inline="always")
def _write_states(parts, memory, at, channels, states, slots):  # type: ignore[no-untyped-def]
    for c in range(channels):
        place = c // LANES * slots * LANES + c % LANES
        for n in range(states):
            memory[at + c * states + n] = parts[place + n * LANES]


@KERNEL
def forward_rows(  # type: ignore[no-untyped-def]
    start, stop, u, delta, A, B, C, D, z, bias, initial, mask, options, y, last, checkpoints, state
):
    steps, chunk, channels = options.steps, options.chunk, D.size
    states, slots = options.states, options.states + options.states % 2
    size, chunks = channels * states, (steps - 1) // chunk
    for r in range(start, stop):
        state[:] = 0.0
        if options.initial_state:
            _read_states(initial, r * size, channels, states, slots, state)
        for begin in range(0, steps, chunk):
            for first in range(0, channels, LANES):
                width, base = min(LANES, channels - first), first * slots
                if begin > 0:
                    for n in range(states):
                        at = (r * chunks + begin // chunk - 1) * size + n * channels + first
                        store(checkpoints, at, width, load(state, base + n * LANES, LANES))
                skip, shift = load(D, first, width), load(bias, first, width)
                for t in range(begin, min(begin + chunk, steps)):
                    y_at = (r * steps + t) * channels + first
                    if options.mask and not mask[r * steps + t]:
                        store(y, y_at, width, fill(0.0))
                        continue
                    x = load(u.memory, u.row * r + u.step * t + first, width)
                    step = load(delta.memory, delta.row * r + delta.step * t + first, width) + shift
                    if options.softplus:
                        step = softplus(step)
                    drive, out, scaled = step * x, skip * x, step * LOG2_E
                    B_at, C_at = B.row * r + B.step * t, C.row * r + C.step * t
                    for n in range(states):
                        at = base + n * LANES
                        decay = exp2(scaled * load(A, at, LANES))
                        h = decay * load(state, at, LANES) + drive * number(B.memory, B_at + n)
                        store(state, at, LANES, h)
                        out += h * number(C.memory, C_at + n)
                    if options.gate:
                        gate = load(z.memory, z.row * r + z.step * t + first, width)
                        out *= gate * sigmoid(gate)
                    store(y, y_at, width, out)
        if last.size > 0:
            _write_states(state, last, r * size, channels, states, slots)


@KERNEL
def backward_rows(  # type: ignore[no-untyped-def]
    start, stop, grad_y, grad_last,
    u, delta, A, B, C, D, z, bias, initial, mask, options, checkpoints,
    grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias, grad_initial, scratch,
):  # fmt: skip
    steps, chunk, channels = options.steps, options.chunk, D.size
    states, slots = options.states, options.states + options.states % 2
    size, chunks = channels * states, (steps - 1) // chunk
    for r in range(start, stop):
        scratch.grad_state[:] = 0.0
        if grad_last.size > 0:
            _read_states(grad_last, r * size, channels, states, slots, scratch.grad_state)
        for begin in range(chunks * chunk, -1, -chunk):
            length = min(chunk, steps - begin)
            if begin > 0:
                at = (r * chunks + begin // chunk - 1) * size
                _read_channels(checkpoints, at, channels, states, slots, scratch.state)
            elif options.initial_state:
                _read_states(initial, r * size, channels, states, slots, scratch.state)
            else:
                scratch.state[:] = 0.0
            _read_weights(r, begin, length, B, C, mask, options, scratch)
            for first in range(0, channels, LANES):
                _read_steps(
                    r, begin, length, first, grad_y, u, delta, D, z, bias, mask, options, scratch
                )
                for n in range(0, states, 2):
                    _pass_two_states(first, n, length, A, options, scratch)
                _write_gradients(
                    r, begin, length, first, grad_y, u, delta, D, z, bias, mask, options, scratch,
                    grad_u, grad_delta, grad_z,
                )  # fmt: skip
            for k in range(length):
                own = (r * steps + begin + k) * states
                for n in range(states):
                    at = (n // 2 * chunk + k) * 4 + n % 2
                    grad_B[own + n] = scratch.sums[at]
                    grad_C[own + n] = scratch.sums[at + 2]
        if grad_initial.size > 0:
            _write_states(scratch.grad_state, grad_initial, r * size, channels, states, slots)
        if (r - start) % ROWS_AT_ONCE == ROWS_AT_ONCE - 1 or r == stop - 1:
            for c in range(channels):
                grad_D[c] += scratch.D[c]
                grad_bias[c] += scratch.bias[c]
                place = c // LANES * slots * LANES + c % LANES
                for n in range(states):
                    grad_A[n * channels + c] += scratch.A[place + n * LANES]
            scratch.A[:] = 0.0
            scratch.D[:] = 0.0
            scratch.bias[:] = 0.0


@njit(inline="always")
def _read_weights(r, begin, length, B, C, mask, options, scratch):  # type: ignore[no-untyped-def]
    r"""Lays out the weights of a chunk by state and step, with zeros where a step is masked."""
    scratch.sums[:] = 0.0
    for k in range(length):
        t = begin + k
        observed = not options.mask or mask[r * options.steps + t]
        B_at, C_at = B.row * r + B.step * t, C.row * r + C.step * t
        for n in range(options.states):
            at = n * options.chunk + k
            scratch.B[at] = number(B.memory, B_at + n) if observed else np.float32(0.0)
            scratch.C[at] = number(C.memory, C_at + n) if observed else np.float32(0.0)


@njit(inline="always")
def _read_steps(  # type: ignore[no-untyped-def]
    r, begin, length, first, grad_y, u, delta, D, z, bias, mask, options, scratch
):
    r"""What does not depend on the state, of a block of channels: a masked step is one of size 0
    without input and output."""
    width = min(LANES, D.size - first)
    skip, shift = load(D, first, width), load(bias, first, width)
    for k in range(length):
        t, at = begin + k, k * LANES
        store(scratch.grad_drive, at, LANES, fill(0.0))
        store(scratch.grad_step, at, LANES, fill(0.0))
        if options.mask and not mask[r * options.steps + t]:
            store(scratch.step, at, LANES, fill(0.0))
            store(scratch.drive, at, LANES, fill(0.0))
            store(scratch.grad_out, at, LANES, fill(0.0))
            continue
        x = load(u.memory, u.row * r + u.step * t + first, width)
        step = load(delta.memory, delta.row * r + delta.step * t + first, width) + shift
        if options.softplus:
            step = softplus(step)
        g = load(grad_y, (r * options.steps + t) * D.size + first, width)
        if options.gate:
            gate = load(z.memory, z.row * r + z.step * t + first, width)
            g *= gate * sigmoid(gate)
        store(scratch.step, at, LANES, step)
        store(scratch.drive, at, LANES, step * x)
        store(scratch.out, at, LANES, skip * x)
        store(scratch.grad_out, at, LANES, g)


@njit(inline="always")
def _pass_two_states(first, n, length, A, options, scratch):  # type: ignore[no-untyped-def]
    r"""Walks through a chunk and back, with two states of a block of channels, so that sums over
    the states are stored half as often."""
    chunk = options.chunk
    i = first * (options.states + options.states % 2) + n * LANES
    j, n_i, n_j = i + LANES, n * chunk, (n + 1) * chunk
    rate_i, rate_j = load(A, i, LANES), load(A, j, LANES)
    power_i, power_j = rate_i * LOG2_E, rate_j * LOG2_E
    h_i, h_j = load(scratch.state, i, LANES), load(scratch.state, j, LANES)
    for k in range(length):
        at, at_j = k * LANES, (k + chunk) * LANES
        step, drive = load(scratch.step, at, LANES), load(scratch.drive, at, LANES)
        decay_i, decay_j = exp2(step * power_i), exp2(step * power_j)
        store(scratch.before, at, LANES, h_i)
        store(scratch.before, at_j, LANES, h_j)
        store(scratch.decay, at, LANES, decay_i)
        store(scratch.decay, at_j, LANES, decay_j)
        h_i = decay_i * h_i + drive * number(scratch.B, n_i + k)
        h_j = decay_j * h_j + drive * number(scratch.B, n_j + k)
        if options.gate:
            out = h_i * number(scratch.C, n_i + k) + h_j * number(scratch.C, n_j + k)
            store(scratch.out, at, LANES, load(scratch.out, at, LANES) + out)
    g_i, g_j = load(scratch.grad_state, i, LANES), load(scratch.grad_state, j, LANES)
    sum_i, sum_j = load(scratch.A, i, LANES), load(scratch.A, j, LANES)
    for back in range(length):
        k = length - 1 - back
        at, at_j = k * LANES, (k + chunk) * LANES
        step, drive = load(scratch.step, at, LANES), load(scratch.drive, at, LANES)
        g_out = load(scratch.grad_out, at, LANES)
        g_i += g_out * number(scratch.C, n_i + k)
        g_j += g_out * number(scratch.C, n_j + k)
        sums_at = (n_i + 2 * k) * 2
        add_totals(scratch.sums, sums_at, g_i * drive, g_j * drive, g_out * h_i, g_out * h_j)
        g = g_i * number(scratch.B, n_i + k) + g_j * number(scratch.B, n_j + k)
        store(scratch.grad_drive, at, LANES, load(scratch.grad_drive, at, LANES) + g)
        h_i, h_j = load(scratch.before, at, LANES), load(scratch.before, at_j, LANES)
        g_i *= load(scratch.decay, at, LANES)
        g_j *= load(scratch.decay, at_j, LANES)
        through_i, through_j = g_i * h_i, g_j * h_j
        g = through_i * rate_i + through_j * rate_j
        store(scratch.grad_step, at, LANES, load(scratch.grad_step, at, LANES) + g)
        sum_i += through_i * step
        sum_j += through_j * step
    store(scratch.grad_state, i, LANES, g_i)
    store(scratch.grad_state, j, LANES, g_j)
    store(scratch.A, i, LANES, sum_i)
    store(scratch.A, j, LANES, sum_j)


@njit(inline="always")
def _write_gradients(  # type: ignore[no-untyped-def]
    r, begin, length, first, grad_y, u, delta, D, z, bias, mask, options, scratch,
    grad_u, grad_delta, grad_z,
):  # fmt: skip
    width = min(LANES, D.size - first)
    skip, shift = load(D, first, width), load(bias, first, width)
    sum_D, sum_bias = load(scratch.D, first, LANES), load(scratch.bias, first, LANES)
    for k in range(length):
        t, at = begin + k, k * LANES
        own = (r * options.steps + t) * D.size + first
        if options.mask and not mask[r * options.steps + t]:
            store(grad_u, own, width, fill(0.0))
            store(grad_delta, own, width, fill(0.0))
            if options.gate:
                store(grad_z, own, width, fill(0.0))
            continue
        x = load(u.memory, u.row * r + u.step * t + first, width)
        g_out, g_drive = load(scratch.grad_out, at, LANES), load(scratch.grad_drive, at, LANES)
        store(grad_u, own, width, g_drive * load(scratch.step, at, LANES) + g_out * skip)
        g = load(scratch.grad_step, at, LANES) + g_drive * x
        if options.softplus:
            delta_at = delta.row * r + delta.step * t + first
            g *= sigmoid(load(delta.memory, delta_at, width) + shift)
        store(grad_delta, own, width, g)
        sum_D += g_out * x
        sum_bias += g
        if options.gate:
            gate = load(z.memory, z.row * r + z.step * t + first, width)
            s = sigmoid(gate)
            g = load(grad_y, own, width) * load(scratch.out, at, LANES)
            store(grad_z, own, width, g * s * (1.0 + gate * (1.0 - s)))
    store(scratch.D, first, LANES, sum_D)
    store(scratch.bias, first, LANES, sum_bias)


def forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    delta_bias: Tensor,
    initial_state: Tensor | None,
    mask: Tensor | None,
    delta_softplus: bool,
    chunk: int,
    y: Tensor,
    last_state: Tensor,
    chunks: Tensor,
) -> None:
    r"""Writes :obj:`y`, unless it is empty :obj:`last_state`, and :obj:`chunks`, the states at the
    start of every chunk of :obj:`chunk` steps but the first."""
    inputs = _inputs(
        u, delta, A, B, C, D, z, delta_bias, initial_state, mask, delta_softplus, chunk
    )
    outputs = [memory(x) for x in (y, last_state, chunks)]

    def work(_: int, start: int, stop: int) -> None:
        state = _scratch(A.size(0), A.size(1), chunk).state
        forward_rows(start, stop, *inputs, *outputs, state)

    over_ranges(len(u), work)


def backward(
    grad_y: Tensor,
    grad_last_state: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    delta_bias: Tensor,
    initial_state: Tensor | None,
    mask: Tensor | None,
    delta_softplus: bool,
    chunk: int,
    chunks: Tensor,
) -> tuple[Tensor | None, ...]:
    r"""Returns the gradients of the first eight inputs and of the initial state."""
    inputs = _inputs(
        u, delta, A, B, C, D, z, delta_bias, initial_state, mask, delta_softplus, chunk
    )
    given = [memory(grad_y), memory(grad_last_state)]
    grad_u, grad_delta, grad_z = (_empty_like(x) for x in (u, delta, u[:0] if z is None else z))
    grad_B, grad_C = (torch.empty(x.shape) for x in (B, C))
    grad_initial = None if initial_state is None else torch.empty_like(initial_state)
    # Each thread sums over its own rows.
    parts = torch.get_num_threads()
    grad_A, grad_D, grad_bias = (x.new_zeros(parts, *x.shape) for x in (A, D, delta_bias))
    own = [memory(x) for x in (grad_u, grad_delta, grad_B, grad_C, grad_z, grad_initial)]
    sums = [x.flatten(1).numpy() for x in (grad_A, grad_D, grad_bias)]
    checkpoints = memory(chunks)

    def work(part: int, start: int, stop: int) -> None:
        g_u, g_delta, g_B, g_C, g_z, g_initial = own
        g_A, g_D, g_bias = (x[part] for x in sums)
        backward_rows(
            start, stop, *given, *inputs, checkpoints,
            g_u, g_delta, g_A, g_B, g_C, g_D, g_z, g_bias, g_initial,
            _scratch(A.size(0), A.size(1), chunk),
        )  # fmt: skip

    over_ranges(len(u), work)
    return (
        grad_u, grad_delta, grad_A.sum(0), grad_B.to(B.dtype), grad_C.to(C.dtype), grad_D.sum(0),
        grad_z, grad_bias.sum(0), grad_initial,
    )  # fmt: skip


def _inputs(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    delta_bias: Tensor,
    initial_state: Tensor | None,
    mask: Tensor | None,
    delta_softplus: bool,
    chunk: int,
) -> list[Any]:
    given = (z is not None, initial_state is not None, mask is not None)
    options = Options(delta_softplus, *given, u.size(1), A.size(0), chunk)
    return [
        rows(u), rows(delta), memory(_in_blocks(A)), rows(B), rows(C), memory(D), rows(z, u.dtype),
        memory(delta_bias), memory(initial_state), memory(mask, torch.bool), options,
    ]  # fmt: skip


def _in_blocks(A: Tensor) -> Tensor:
    states, channels = A.shape
    padded = torch.nn.functional.pad(A, (0, -channels % LANES, 0, states % 2))
    return padded.unflatten(1, (-1, LANES)).transpose(0, 1).contiguous()


def _scratch(states: int, channels: int, chunk: int) -> Scratch:
    slots, in_blocks = states + states % 2, -(-channels // LANES) * LANES
    sizes = [slots * in_blocks] * 3 + [in_blocks] * 2 + [slots * chunk] * 2 + [2 * slots * chunk]
    sizes += [chunk * LANES] * 6 + [2 * chunk * LANES] * 2
    return Scratch(*zeros(*sizes))


def _empty_like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
