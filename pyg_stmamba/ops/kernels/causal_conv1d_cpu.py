r"""The causal depthwise convolution and its SiLU in one pass over the data on a CPU."""

import numpy as np
from numba import njit

from .vector_math import sigmoid

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
                grad_bias[d] += grad[d]
            for k in range(width):
                step = t + k - (width - 1)
                if step < 0 and not has_initial:
                    continue
                if step >= 0:
                    x_k, grad_k = x[r, step], grad_x[r, step]
                else:
                    x_k, grad_k = initial[r, step + width - 1], grad_initial[r, step + width - 1]
                weight_k, grad_weight_k = weight[k], grad_weight[k]
                for d in range(grad.size):
                    grad_k[d] += grad[d] * weight_k[d]
                    grad_weight_k[d] += grad[d] * x_k[d]
