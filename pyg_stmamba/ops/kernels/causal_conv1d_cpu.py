r"""The causal depthwise convolution and its SiLU in one pass over the data on a CPU."""

import numpy as np
import torch
from numba import njit
from torch import Tensor

from .arrays import array
from .thread_pool import over_ranges
from .vector_math import sigmoid

# Rows whose gradients are summed before they are added to the sums of all rows: a float32 sum of
# very many terms, one after the other, would lose digits.
ROWS_AT_ONCE = 256

_FLAGS = {"contract", "reassoc", "nsz", "arcp"}


@njit(inline="always", fastmath=_FLAGS)
def _convolve(r, t, x, weight, bias, initial, has_initial, out):  # type: ignore[no-untyped-def]
    width = weight.shape[0]
    out[:] = bias
    for k in range(width):
        step = t + k - (width - 1)
        if step < 0 and not has_initial:
            continue
        x_k = x[r, step] if step >= 0 else initial[r, step + width - 1]
        weight_k = weight[k]
        for d in range(out.size):
            out[d] += weight_k[d] * x_k[d]


@njit(nogil=True, cache=True, fastmath=_FLAGS, error_model="numpy")
def forward_rows(start, stop, x, weight, bias, initial, has_initial, silu, y):  # type: ignore[no-untyped-def]
    out = np.empty(x.shape[2], np.float32)
    for r in range(start, stop):
        for t in range(x.shape[1]):
            _convolve(r, t, x, weight, bias, initial, has_initial, out)
            y_t = y[r, t]
            if silu:
                for d in range(out.size):
                    y_t[d] = out[d] * sigmoid(out[d])
            else:
                y_t[:] = out


@njit(nogil=True, cache=True, fastmath=_FLAGS, error_model="numpy")
def backward_rows(  # type: ignore[no-untyped-def]
    start, stop, grad_y, x, weight, bias, initial, has_initial, silu,
    grad_x, grad_weight, grad_bias, grad_initial,
):  # fmt: skip
    steps, width = x.shape[1], weight.shape[0]
    zero, one = np.float32(0.0), np.float32(1.0)
    out = np.empty(x.shape[2], np.float32)
    grad = np.empty(x.shape[2], np.float32)
    grad_weight_part, grad_bias_part = np.zeros_like(weight), np.zeros_like(bias)
    for r in range(start, stop):
        grad_x[r] = zero
        if has_initial:
            grad_initial[r] = zero
        for t in range(steps):
            g_t = grad_y[r, t]
            if silu:
                _convolve(r, t, x, weight, bias, initial, has_initial, out)
                for d in range(out.size):
                    s = sigmoid(out[d])
                    grad[d] = g_t[d] * s * (one + out[d] * (one - s))
            else:
                grad[:] = g_t
            for d in range(grad.size):
                grad_bias_part[d] += grad[d]
            for k in range(width):
                step = t + k - (width - 1)
                if step < 0 and not has_initial:
                    continue
                if step >= 0:
                    x_k, grad_k = x[r, step], grad_x[r, step]
                else:
                    x_k, grad_k = initial[r, step + width - 1], grad_initial[r, step + width - 1]
                weight_k, grad_weight_k = weight[k], grad_weight_part[k]
                for d in range(grad.size):
                    grad_k[d] += grad[d] * weight_k[d]
                    grad_weight_k[d] += grad[d] * x_k[d]
        if (r - start) % ROWS_AT_ONCE == ROWS_AT_ONCE - 1 or r == stop - 1:
            grad_weight += grad_weight_part
            grad_bias += grad_bias_part
            grad_weight_part[:] = zero
            grad_bias_part[:] = zero


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    initial_state: Tensor | None,
    silu: bool,
    y: Tensor,
) -> None:
    r"""Writes :obj:`y`."""
    inputs = [array(tensor) for tensor in (x, weight, bias, initial_state)]
    options, out = (initial_state is not None, silu), array(y)
    over_ranges(len(x), lambda _, start, stop: forward_rows(start, stop, *inputs, *options, out))


def backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    initial_state: Tensor | None,
    silu: bool,
) -> tuple[Tensor, ...]:
    r"""Returns the gradients of the first four inputs."""
    inputs = [array(tensor) for tensor in (x, weight, bias, initial_state)]
    options, given = (initial_state is not None, silu), array(grad_y)
    grad_x = torch.empty_like(x)
    grad_initial = (
        x.new_empty(0, 0, 0) if initial_state is None else torch.empty_like(initial_state)
    )
    # Each thread sums over its own rows.
    parts = torch.get_num_threads()
    grad_weight, grad_bias = (p.new_zeros(parts, *p.shape) for p in (weight, bias))
    out_x, out_weight, out_bias, out_initial = (
        array(tensor) for tensor in (grad_x, grad_weight, grad_bias, grad_initial)
    )

    def work(part: int, start: int, stop: int) -> None:
        backward_rows(
            start, stop, given, *inputs, *options,
            out_x, out_weight[part], out_bias[part], out_initial,
        )  # fmt: skip

    over_ranges(len(x), work)
    return grad_x, grad_weight.sum(0), grad_bias.sum(0), grad_initial
