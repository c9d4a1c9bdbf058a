r"""The selective scan in one pass over the data on a CPU.

Work goes row by row in blocks of channels small enough for the first-level cache. The innermost
loops run over the channels of a block and are vectorized by LLVM. The backward pass recomputes
the states of one chunk of steps at a time from the state at the start of the chunk, so that
nothing of size steps x channels x states is ever stored.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from .vector_math import exp, sigmoid, softplus

CHUNK = 16
BLOCK = 128

# Sums over channels may be reordered; NaN and infinity keep their meaning.
_FLAGS = {"contract", "reassoc", "nsz", "arcp"}


class Options(NamedTuple):
    r"""Which of the optional inputs are there."""

    softplus: bool
    gate: bool
    initial_state: bool
    mask: bool


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
    states = A.shape[0]
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
                if t > 0 and t % CHUNK == 0:
                    checkpoints[r, t // CHUNK - 1, :, block] = state
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
    states = A.shape[0]
    zero, one = np.float32(0.0), np.float32(1.0)
    grad_B[start:stop] = zero
    grad_C[start:stop] = zero
    for first in range(0, channels, BLOCK):
        width = min(BLOCK, channels - first)
        block = slice(first, first + width)
        A_block, D_block, bias_block = A[:, block].copy(), D[block], bias[block]
        grad_A_block = np.zeros((states, width), np.float32)
        grad_D_block, grad_bias_block = grad_D[block], grad_bias[block]
        # Of one chunk: the states before each step and at the end, the decays, the outputs.
        state = np.empty((CHUNK + 1, states, width), np.float32)
        decay = np.empty((CHUNK, states, width), np.float32)
        step = np.empty((CHUNK, width), np.float32)
        out = np.empty((CHUNK, width), np.float32)
        drive = np.empty(width, np.float32)
        grad_state = np.empty((states, width), np.float32)
        grad_out = np.empty(width, np.float32)
        grad_drive = np.empty(width, np.float32)
        grad_step = np.empty(width, np.float32)
        for r in range(start, stop):
            grad_state[:] = grad_last[r, block].T
            for chunk in range((steps - 1) // CHUNK, -1, -1):
                begin = chunk * CHUNK
                length = min(CHUNK, steps - begin)
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
        grad_A[:, block] += grad_A_block
