r"""The selective scan in one pass over the data on a CPU.

Work goes row by row in blocks of channels small enough for the first-level cache. The innermost
loops run over the channels of a block and are vectorized by LLVM. The backward pass recomputes
the states of one chunk of steps at a time from the state at the start of the chunk, so that
nothing of size steps x channels x states is ever stored.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from .arrays import array
from .thread_pool import over_ranges
from .vector_math import exp, sigmoid, softplus

BLOCK = 128

# Rows whose gradients are summed before they are added to the sums of all rows: a float32 sum of
# very many terms, one after the other, would lose digits.
ROWS_AT_ONCE = 256

# Sums over channels may be reordered; NaN and infinity keep their meaning.
_FLAGS = {"contract", "reassoc", "nsz", "arcp"}


class Options(NamedTuple):
    r"""Which of the optional inputs are there, and the steps of a chunk."""

    softplus: bool
    gate: bool
    initial_state: bool
    mask: bool
    chunk: int


@njit(inline="always", fastmath=_FLAGS)
def _prepare(u, delta, D, bias, options, step, drive, out):  # type: ignore[no-untyped-def]
    for d in range(u.size):
        x = delta[d] + bias[d]
        step[d] = softplus(x) if options.softplus else x
        drive[d] = step[d] * u[d]
        out[d] = D[d] * u[d]


# Slices of the arguments start at zero: an index such as first + d, which may be negative for all
# that the compiler knows, would keep it from vectorizing the loop.
@njit(nogil=True, cache=True, fastmath=_FLAGS, error_model="numpy")
def forward_rows(  # type: ignore[no-untyped-def]
    start, stop, u, delta, A, B, C, D, z, bias, initial, mask, options, y, last, checkpoints
):
    channels, steps = u.shape[2], u.shape[1]
    states, chunk_steps = A.shape[0], options.chunk
    zero = np.float32(0.0)
    for first in range(0, channels, BLOCK):
        width = min(BLOCK, channels - first)
        block = slice(first, first + width)
        A_block, D_block, bias_block = A[:, block].copy(), D[block], bias[block]
        state = np.empty((states, width), np.float32)
        step = np.empty(width, np.float32)
        drive = np.empty(width, np.float32)
        out = np.empty(width, np.float32)
        for r in range(start, stop):
            if options.initial_state:
                state[:] = initial[r, block].T
            else:
                state[:] = zero
            for t in range(steps):
                if t > 0 and t % chunk_steps == 0:
                    checkpoints[r, t // chunk_steps - 1, :, block] = state
                y_t = y[r, t, block]
                if options.mask and not mask[r, t]:
                    y_t[:] = zero
                    continue
                _prepare(
                    u[r, t, block], delta[r, t, block], D_block, bias_block, options,
                    step, drive, out,
                )  # fmt: skip
                for n in range(states):
                    b, c = B[r, t, n], C[r, t, n]
                    for d in range(width):
                        h = exp(step[d] * A_block[n, d]) * state[n, d] + drive[d] * b
                        state[n, d] = h
                        out[d] += h * c
                if options.gate:
                    z_t = z[r, t, block]
                    for d in range(width):
                        y_t[d] = out[d] * z_t[d] * sigmoid(z_t[d])
                else:
                    y_t[:] = out
            last[r, block] = state.T


@njit(nogil=True, cache=True, fastmath=_FLAGS, error_model="numpy")
def backward_rows(  # type: ignore[no-untyped-def]
    start, stop, grad_y, grad_last,
    u, delta, A, B, C, D, z, bias, initial, mask, options, checkpoints,
    grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias, grad_initial,
):  # fmt: skip
    channels, steps = u.shape[2], u.shape[1]
    states, chunk_steps = A.shape[0], options.chunk
    zero, one = np.float32(0.0), np.float32(1.0)
    grad_B[start:stop] = zero
    grad_C[start:stop] = zero
    for first in range(0, channels, BLOCK):
        width = min(BLOCK, channels - first)
        block = slice(first, first + width)
        A_block, D_block, bias_block = A[:, block].copy(), D[block], bias[block]
        grad_A_block = np.zeros((states, width), np.float32)
        grad_D_block = np.zeros(width, np.float32)
        grad_bias_block = np.zeros(width, np.float32)
        # Of one chunk: the states before each step and at the end, the decays, the outputs.
        state = np.empty((chunk_steps + 1, states, width), np.float32)
        decay = np.empty((chunk_steps, states, width), np.float32)
        step = np.empty((chunk_steps, width), np.float32)
        out = np.empty((chunk_steps, width), np.float32)
        drive = np.empty(width, np.float32)
        grad_state = np.empty((states, width), np.float32)
        grad_out = np.empty(width, np.float32)
        grad_drive = np.empty(width, np.float32)
        grad_step = np.empty(width, np.float32)
        for r in range(start, stop):
            grad_state[:] = grad_last[r, block].T
            for chunk in range((steps - 1) // chunk_steps, -1, -1):
                begin = chunk * chunk_steps
                length = min(chunk_steps, steps - begin)
                if chunk > 0:
                    state[0] = checkpoints[r, chunk - 1, :, block]
                elif options.initial_state:
                    state[0] = initial[r, block].T
                else:
                    state[0] = zero
                for k in range(length):
                    t = begin + k
                    if options.mask and not mask[r, t]:
                        state[k + 1] = state[k]
                        continue
                    _prepare(
                        u[r, t, block], delta[r, t, block], D_block, bias_block, options,
                        step[k], drive, out[k],
                    )  # fmt: skip
                    step_k, out_k = step[k], out[k]
                    for n in range(states):
                        b, c = B[r, t, n], C[r, t, n]
                        before, after, decay_n = state[k, n], state[k + 1, n], decay[k, n]
                        for d in range(width):
                            a = exp(step_k[d] * A_block[n, d])
                            decay_n[d] = a
                            h = a * before[d] + drive[d] * b
                            after[d] = h
                            out_k[d] += h * c
                for k in range(length - 1, -1, -1):
                    t = begin + k
                    u_t, grad_u_t, grad_delta_t = (
                        u[r, t, block], grad_u[r, t, block], grad_delta[r, t, block],
                    )  # fmt: skip
                    if options.mask and not mask[r, t]:
                        grad_u_t[:] = zero
                        grad_delta_t[:] = zero
                        if options.gate:
                            grad_z[r, t, block] = zero
                        continue
                    g_t = grad_y[r, t, block]
                    step_k, out_k = step[k], out[k]
                    if options.gate:
                        z_t, grad_z_t = z[r, t, block], grad_z[r, t, block]
                        for d in range(width):
                            s = sigmoid(z_t[d])
                            grad_out[d] = g_t[d] * z_t[d] * s
                            grad_z_t[d] = g_t[d] * out_k[d] * s * (one + z_t[d] * (one - s))
                    else:
                        grad_out[:] = g_t
                    for d in range(width):
                        grad_D_block[d] += grad_out[d] * u_t[d]
                        drive[d] = step_k[d] * u_t[d]
                        grad_drive[d] = zero
                        grad_step[d] = zero
                    for n in range(states):
                        b, c = B[r, t, n], C[r, t, n]
                        before, after, decay_n = state[k, n], state[k + 1, n], decay[k, n]
                        sum_b, sum_c = zero, zero
                        for d in range(width):
                            g = grad_state[n, d] + grad_out[d] * c
                            sum_c += grad_out[d] * after[d]
                            sum_b += g * drive[d]
                            grad_drive[d] += g * b
                            g *= decay_n[d]
                            grad_state[n, d] = g
                            g *= before[d]
                            grad_step[d] += g * A_block[n, d]
                            grad_A_block[n, d] += g * step_k[d]
                        grad_B[r, t, n] += sum_b
                        grad_C[r, t, n] += sum_c
                    delta_t = delta[r, t, block]
                    for d in range(width):
                        grad_u_t[d] = grad_drive[d] * step_k[d] + grad_out[d] * D_block[d]
                        g = grad_step[d] + grad_drive[d] * u_t[d]
                        if options.softplus:
                            g *= sigmoid(delta_t[d] + bias_block[d])
                        grad_delta_t[d] = g
                        grad_bias_block[d] += g
            grad_initial[r, block] = grad_state.T
            if (r - start) % ROWS_AT_ONCE == ROWS_AT_ONCE - 1 or r == stop - 1:
                grad_A[:, block] += grad_A_block
                grad_D[block] += grad_D_block
                grad_bias[block] += grad_bias_block
                grad_A_block[:] = zero
                grad_D_block[:] = zero
                grad_bias_block[:] = zero


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
    r"""Writes :obj:`y`, :obj:`last_state` and :obj:`chunks`, the states at the start of every
    chunk of :obj:`chunk` steps but the first."""
    inputs = _inputs(
        u, delta, A, B, C, D, z, delta_bias, initial_state, mask, delta_softplus, chunk
    )
    outputs = [array(x) for x in (y, last_state, chunks)]
    over_ranges(len(u), lambda _, start, stop: forward_rows(start, stop, *inputs, *outputs))


def backward(
    grad_y: Tensor,
    grad_last_state: Tensor,
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
) -> tuple[Tensor, ...]:
    r"""Returns the gradients of the first eight inputs and of the initial state."""
    inputs = _inputs(
        u, delta, A, B, C, D, z, delta_bias, initial_state, mask, delta_softplus, chunk
    )
    given = [array(x) for x in (grad_y, grad_last_state)]
    checkpoints = array(chunks)
    grad_u, grad_delta, grad_B, grad_C = (torch.empty_like(x) for x in (u, delta, B, C))
    grad_z = torch.empty_like(u if z is not None else u[:0])
    grad_initial = torch.empty_like(grad_last_state)
    # Each thread sums over its own rows.
    parts = torch.get_num_threads()
    grad_A, grad_D, grad_bias = (x.new_zeros(parts, *x.shape) for x in (A, D, delta_bias))
    own = [array(x) for x in (grad_u, grad_delta, grad_B, grad_C, grad_z, grad_initial)]
    sums = [array(x) for x in (grad_A, grad_D, grad_bias)]

    def work(part: int, start: int, stop: int) -> None:
        g_u, g_delta, g_B, g_C, g_z, g_initial = own
        g_A, g_D, g_bias = (x[part] for x in sums)
        backward_rows(
            start, stop, *given, *inputs, checkpoints,
            g_u, g_delta, g_A, g_B, g_C, g_D, g_z, g_bias, g_initial,
        )  # fmt: skip

    over_ranges(len(u), work)
    return (
        grad_u, grad_delta, grad_A.sum(0), grad_B, grad_C, grad_D.sum(0), grad_z, grad_bias.sum(0),
        grad_initial,
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
    options = Options(delta_softplus, *given, chunk)
    arrays = [array(x) for x in (u, delta, A, B, C, D, z, delta_bias, initial_state)]
    return [*arrays, array(mask, rank=2, dtype=torch.bool), options]
