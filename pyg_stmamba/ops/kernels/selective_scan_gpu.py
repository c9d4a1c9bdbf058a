r"""The selective scan in one pass over the data on a GPU.

Made for tens of thousands of short rows: one thread owns one channel of a row and walks through
time, so no step waits for another thread. A program works on a block of channels of several rows
one after the other.

The forward pass keeps all states of its channel in registers. The backward pass takes one state
at a time and keeps a chunk of steps in registers: it recomputes the states of the chunk from the
checkpoint before it, and nothing of size steps x channels x states is ever stored.

Sums over rows and channels are written as one partial sum per program and added up by torch.
Unlike atomic additions that gives the same bits in every run, and the partial sums are small: at
most :obj:`PARTS` for the rows, one per block of channels.

The numbers of channels and states are constants of a kernel. With the steps of a chunk they make
distances between addresses that are constants too, which takes no registers; with distances known
at run time alone the backward pass does not fit into them.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# Programs along the rows in the backward pass, and with it the memory for partial sums.
PARTS = 2048
# Rows of one program in the forward pass, which share its load of A.
ROWS = 4
# Channels of one program, one for each thread of a warp.
CHANNELS = 32
# States of one thread in the forward pass; where there are more, several warps share a channel.
STATES_EACH = 16

_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _softplus(x):  # type: ignore[no-untyped-def]
    # The logarithm of 1 + e by the series of 2 artanh(s), exact to a few units in the last place;
    # the sum 1 + e would lose the digits of a small e.
    e = tl.exp2(-tl.abs(x) * _LOG2_E)
    s = e / (2.0 + e)
    q = s * s
    p = q * (1.0 / 13.0) + 1.0 / 11.0
    p = p * q + 1.0 / 9.0
    p = p * q + 1.0 / 7.0
    p = p * q + 1.0 / 5.0
    p = p * q + 1.0 / 3.0
    p = p * q + 1.0
    return tl.maximum(x, 0.0) + 2.0 * s * p


# The arguments called stride are 1. The compiler must not know, else it gives several neighboring
# channels to one thread and spreads states or steps, along which the recurrence and its sums run,
# over threads.
@triton.jit(do_not_specialize=["rows", "rows_each", "stride"])
def forward_rows(  # type: ignore[no-untyped-def]
    u, delta, A, B, C, D, z, bias, initial, mask, y, last, chunks,
    rows, rows_each, steps, stride,
    channels: tl.constexpr, states: tl.constexpr, SOFTPLUS: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    n = tl.arange(0, BLOCK_N)
    c = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)) * stride
    real_n, real_c = n < states, c < channels
    real = real_n[:, None] & real_c[None, :]
    A_c = tl.load(A + c[None, :] + (n * channels)[:, None], real, 0.0) * _LOG2_E
    D_c, bias_c = tl.load(D + c, real_c, 0.0), tl.load(bias + c, real_c, 0.0)
    first = tl.program_id(0).to(tl.int64) * rows_each
    for row in range(first, tl.minimum(first + rows_each, rows)):
        state = tl.zeros([BLOCK_N, BLOCK_C], tl.float32)
        if initial is not None:
            of_row = (row * channels + c)[None, :] * states
            state += tl.load(initial + of_row + n[:, None], real, 0.0)
        for t in range(steps):
            if t > 0 and t % CHUNK == 0:
                chunk = row * ((steps - 1) // CHUNK) + t // CHUNK - 1
                of_chunk = (chunk * states * channels + c)[None, :]
                tl.store(chunks + of_chunk + (n * channels)[:, None], state, real)
            at = row * steps + t
            seen_n, seen_c = real_n, real_c
            if mask is not None:
                flag = tl.load(mask + at).to(tl.int32)
                observed = flag != 0
                seen_n, seen_c = n < flag * states, c < flag * channels
            u_t = tl.load(u + at * channels + c, seen_c, 0.0).to(tl.float32)
            step = tl.load(delta + at * channels + c, seen_c, 0.0).to(tl.float32) + bias_c
            B_t = tl.load(B + at * states + n, seen_n, 0.0).to(tl.float32)
            C_t = tl.load(C + at * states + n, seen_n, 0.0).to(tl.float32)
            if SOFTPLUS:
                step = _softplus(step)
            after = tl.exp2(step[None, :] * A_c) * state + (step * u_t)[None, :] * B_t[:, None]
            if mask is not None:
                after = tl.where(observed, after, state)
            if states < BLOCK_N:
                # An infinite step would make a NaN of a state that is not there.
                after = tl.where(real_n[:, None], after, 0.0)
            state = after
            out = tl.sum(state * C_t[:, None], 0) + D_c * u_t
            if z is not None:
                z_t = tl.load(z + at * channels + c, seen_c, 0.0).to(tl.float32)
                out *= z_t * tl.sigmoid(z_t)
            if mask is not None:
                out = tl.where(observed, out, 0.0)
            tl.store(y + at * channels + c, out, real_c)
        if last is not None:
            of_row = (row * channels + c)[None, :] * states
            tl.store(last + of_row + n[:, None], state, real)


@triton.jit
def _one_after_the_other(a1, b1, p1, q1, a2, b2, p2, q2):  # type: ignore[no-untyped-def]
    # Steps are maps h -> a h + b; p and q are the map without its last step.
    return a2 * a1, a2 * b1 + b2, p2 * a1, p2 * b1 + q2


@triton.jit
def _states_before(decay, added, state, is_first, REVERSE: tl.constexpr):  # type: ignore[no-untyped-def]
    r"""The states before each step of :math:`h_t = a_t h_{t-1} + b_t`."""
    added = tl.where(is_first, decay * state[None, :] + added, added)
    one, zero = tl.full(decay.shape, 1.0, tl.float32), tl.zeros(decay.shape, tl.float32)
    scanned = tl.associative_scan(
        (decay, added, one, zero), 0, _one_after_the_other, reverse=REVERSE
    )
    return tl.where(is_first, state[None, :], scanned[3])


@triton.jit(do_not_specialize=["rows", "rows_each", "stride"])
def backward_rows(  # type: ignore[no-untyped-def]
    grad_y, grad_last, u, delta, A, B, C, D, z, bias, initial, mask, chunks,
    grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias, grad_initial, carry,
    rows, rows_each, steps, stride,
    channels: tl.constexpr, states: tl.constexpr, SOFTPLUS: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    part, block = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    c = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)) * stride
    real_c = c < channels
    k = tl.arange(0, BLOCK_T)
    is_first, is_last = (k == 0)[:, None], (k == BLOCK_T - 1)[:, None]
    # Constants, added to an address last, so that one register holds the addresses of all steps.
    later = (k * channels)[:, None]
    D_c, bias_c = tl.load(D + c, real_c, 0.0), tl.load(bias + c, real_c, 0.0)
    sum_D, sum_bias = tl.zeros([BLOCK_C], tl.float32), tl.zeros([BLOCK_C], tl.float32)
    chunk_count = (steps + CHUNK - 1) // CHUNK
    first = part * rows_each
    for row in range(first, tl.minimum(first + rows_each, rows)):
        for chunks_done in range(chunk_count):
            chunk = chunk_count - 1 - chunks_done
            at = row * steps + chunk * CHUNK
            real_t = k < steps - chunk * CHUNK
            seen_t = real_t
            if mask is not None:
                seen_t = real_t & (tl.load(mask + at + k, real_t, 0) != 0)
            real, seen = real_t[:, None] & real_c[None, :], seen_t[:, None] & real_c[None, :]
            here = (at * channels + c)[None, :]
            step = tl.load(delta + here + later, seen, 0.0).to(tl.float32) + bias_c[None, :]
            if SOFTPLUS:
                step = _softplus(step)
            step = tl.where(seen_t[:, None], step, 0.0)
            drive = step * tl.load(u + here + later, seen, 0.0).to(tl.float32)
            grad_out = tl.load(grad_y + here + later, seen, 0.0).to(tl.float32)
            if z is not None:
                z_k = tl.load(z + here + later, seen, 0.0).to(tl.float32)
                grad_out *= z_k * tl.sigmoid(z_k)
                out = tl.zeros([BLOCK_T, BLOCK_C], tl.float32)
            grad_drive = tl.zeros([BLOCK_T, BLOCK_C], tl.float32)
            grad_step = tl.zeros([BLOCK_T, BLOCK_C], tl.float32)
            # The carry and the sums for A, written in the chunk before, may be another thread's.
            tl.debug_barrier()
            for n in range(states):
                of_state = n * channels + c
                of_part = part * states * channels + of_state
                of_row = (row * channels + c) * states + n
                A_n = tl.load(A + of_state, real_c, 0.0)
                first_n = at * states + n
                B_n = tl.load(B + first_n + k * states, seen_t, 0.0).to(tl.float32)[:, None]
                C_n = tl.load(C + first_n + k * states, seen_t, 0.0).to(tl.float32)[:, None]
                state = tl.zeros([BLOCK_C], tl.float32)
                if chunk > 0:
                    before_it = row * (chunk_count - 1) + chunk - 1
                    state = tl.load(chunks + before_it * states * channels + of_state, real_c, 0.0)
                elif initial is not None:
                    state = tl.load(initial + of_row, real_c, 0.0)
                grad_state = tl.zeros([BLOCK_C], tl.float32)
                if chunk < chunk_count - 1:
                    grad_state = tl.load(carry + of_part, real_c, 0.0)
                elif grad_last is not None:
                    grad_state = tl.load(grad_last + of_row, real_c, 0.0)

                decay = tl.exp2(step * (A_n * _LOG2_E)[None, :])
                decay = tl.where(seen_t[:, None], decay, 1.0)
                before = _states_before(decay, drive * B_n, state, is_first, False)
                after = decay * before + drive * B_n
                if z is not None:
                    out += after * C_n
                sum_C = tl.where(seen_t, tl.sum(grad_out * after, 1), 0.0)
                # Of the state after a step: the gradient that the later steps send back, first
                # without this step's output, then with it, then sent on to the state before.
                grad = grad_out * C_n
                grad += _states_before(decay, decay * grad, grad_state, is_last, True)
                sum_B = tl.where(seen_t, tl.sum(grad * drive, 1), 0.0)
                grad_drive += grad * B_n
                grad *= decay
                through_decay = tl.where(seen_t[:, None], grad * before, 0.0)
                grad_step += through_decay * A_n[None, :]

                sum_A = tl.sum(through_decay * step, 0)
                tl.store(grad_A + of_part, tl.load(grad_A + of_part, real_c, 0.0) + sum_A, real_c)
                of_block = (block * rows * steps + at) * states + n
                tl.store(grad_B + of_block + k * states, sum_B, real_t)
                tl.store(grad_C + of_block + k * states, sum_C, real_t)
                grad_state = tl.sum(tl.where(is_first, grad, 0.0), 0)
                if chunk > 0:
                    tl.store(carry + of_part, grad_state, real_c)
                elif grad_initial is not None:
                    tl.store(grad_initial + of_row, grad_state, real_c)

            # Loaded once more, because all this did not fit into registers beside the states.
            u_k = tl.load(u + here + later, seen, 0.0).to(tl.float32)
            sum_D += tl.sum(grad_out * u_k, 0)
            grad_u_k = grad_drive * step + grad_out * D_c[None, :]
            tl.store(grad_u + here + later, tl.where(seen, grad_u_k, 0.0), real)
            grad_raw = tl.where(seen, grad_step + grad_drive * u_k, 0.0)
            if SOFTPLUS:
                raw = tl.load(delta + here + later, seen, 0.0).to(tl.float32) + bias_c[None, :]
                grad_raw *= tl.sigmoid(raw)
            sum_bias += tl.sum(grad_raw, 0)
            tl.store(grad_delta + here + later, grad_raw, real)
            if z is not None:
                z_k = tl.load(z + here + later, seen, 0.0).to(tl.float32)
                grad_y_k = tl.load(grad_y + here + later, seen, 0.0).to(tl.float32)
                s = tl.sigmoid(z_k)
                grad_z_k = grad_y_k * (out + D_c[None, :] * u_k) * s * (1.0 + z_k * (1.0 - s))
                tl.store(grad_z + here + later, tl.where(seen, grad_z_k, 0.0), real)
    tl.store(grad_D + part * channels + c, sum_D, real_c)
    tl.store(grad_bias + part * channels + c, sum_bias, real_c)


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
    (rows, steps, channels), states = u.shape, A.size(0)
    block = triton.next_power_of_2(states)
    grid = (triton.cdiv(rows, ROWS), triton.cdiv(channels, CHANNELS))
    with torch.cuda.device_of(u):
        forward_rows[grid](
            u, delta, A, B, C, D, z, delta_bias, initial_state, _bytes(mask),
            y, last_state if last_state.numel() > 0 else None, chunks,
            rows, ROWS, steps, 1,
            channels, states, delta_softplus, chunk, block, CHANNELS,
            num_warps=min(max(block // STATES_EACH, 1), 8), enable_fp_fusion=True,
        )  # fmt: skip


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
    (rows, steps, channels), states = u.shape, A.size(0)
    rows_each = triton.cdiv(rows, PARTS)
    parts, blocks = triton.cdiv(rows, rows_each), triton.cdiv(channels, CHANNELS)
    grad_u, grad_delta = torch.empty_like(u), torch.empty_like(delta)
    grad_z = torch.empty_like(u[:0] if z is None else z)
    # Without an initial state there is no such gradient, and the kernel is made without it.
    grad_initial = None if initial_state is None else torch.empty_like(initial_state)
    grad_A = A.new_zeros(parts, states, channels)
    carry = torch.empty_like(grad_A)
    grad_D, grad_bias = (A.new_empty(parts, channels) for _ in range(2))
    grad_B, grad_C = (A.new_empty(blocks, rows, steps, states) for _ in range(2))
    with torch.cuda.device_of(u):
        backward_rows[(parts, blocks)](
            grad_y, grad_last_state, u, delta, A, B, C, D, z, delta_bias, initial_state,
            _bytes(mask), chunks,
            grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias, grad_initial,
            carry, rows, rows_each, steps, 1,
            channels, states, delta_softplus, chunk, min(triton.next_power_of_2(steps), chunk),
            CHANNELS, num_warps=1, enable_fp_fusion=True,
        )  # fmt: skip
    return (
        grad_u, grad_delta, grad_A.sum(0), grad_B.sum(0).to(B.dtype), grad_C.sum(0).to(C.dtype),
        grad_D.sum(0), grad_z, grad_bias.sum(0), grad_initial,
    )  # fmt: skip


def _bytes(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.view(torch.uint8)
