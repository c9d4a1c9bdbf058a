r"""The causal convolution in vectorised torch: shifted multiplies on tiles of rows in the cache."""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def tiled_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    initial_state: Tensor | None = None,
) -> Tensor:
    r"""The sum of :func:`~pyg_stmamba.ops.causal_conv1d`, many rows at a time."""
    return _conv_forward(x, weight, bias, initial_state, activation == "silu")


@torch.library.custom_op(
    "pyg_stmamba::conv_forward",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor? bias, Tensor? initial_state, bool silu) -> Tensor",
)
def _conv_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, silu: bool
) -> Tensor:
    conv = _Conv(x, weight, bias, initial_state)
    y = _empty_like(x)
    y_rows = conv.rows(y)
    for tile in conv.tiles():
        out = conv.apply(conv.padded(tile))
        y_rows[tile] = F.silu(out, inplace=True) if silu else out
    return y


@_conv_forward.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, silu: bool
) -> Tensor:
    return _empty_like(x)


class _Conv:
    r"""The inputs of a convolution as rows, and the arithmetic that both passes share."""

    def __init__(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None
    ) -> None:
        self.num_rows, (self.num_steps, self.channels) = math.prod(x.shape[:-2]), x.shape[-2:]
        self.dtype = torch.promote_types(x.dtype, torch.float32)
        self.x = self.rows(x)
        self.initial_state = None if initial_state is None else self.rows(initial_state)
        self.weights = weight.to(self.dtype).t().contiguous()
        self.bias = None if bias is None else bias.to(self.dtype)
        elements = 2**18 * torch.get_num_threads() if x.device.type == "cpu" else 2**28
        self.tile_rows = max(1, elements // max(1, self.num_steps * self.channels))

    def rows(self, x: Tensor) -> Tensor:
        return x.reshape(self.num_rows, *x.shape[-2:])

    def tiles(self) -> Iterator[slice]:
        for row in range(0, self.num_rows, self.tile_rows):
            yield slice(row, min(row + self.tile_rows, self.num_rows))

    def padded(self, tile: slice) -> Tensor:
        x, past = self.x[tile], len(self.weights) - 1
        padded = self.weights.new_empty(x.size(0), past + self.num_steps, self.channels)
        padded[:, past:] = x
        padded[:, :past] = 0 if self.initial_state is None else self.initial_state[tile]
        return padded

    def shifts(self, padded: Tensor) -> list[Tensor]:
        return [padded.narrow(1, k, self.num_steps) for k in range(len(self.weights))]

    def apply(self, padded: Tensor) -> Tensor:
        first, *others = self.shifts(padded)
        out = first * self.weights[0]
        for shift, weight in zip(others, self.weights[1:]):
            out.addcmul_(shift, weight)
        return out if self.bias is None else out.add_(self.bias)


@torch.library.custom_op(
    "pyg_stmamba::conv_backward",
    mutates_args=(),
    schema="(Tensor grad_y, Tensor x, Tensor weight, Tensor? bias, Tensor? initial_state, "
    "bool silu) -> Tensor[]",
)
def _conv_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    silu: bool,
) -> list[Tensor]:
    conv = _Conv(x, weight, bias, initial_state)
    inputs = (x, weight, bias, initial_state)
    grads = [x.new_empty(0) if t is None else _empty_like(t) for t in inputs]
    grad_weights, grad_sum = torch.zeros_like(conv.weights), conv.weights.new_zeros(conv.channels)
    grad_x, grad_y = conv.rows(grads[0]), conv.rows(grad_y)
    past = len(conv.weights) - 1

    for tile in conv.tiles():
        padded, grad = conv.padded(tile), grad_y[tile].to(conv.dtype)
        if silu:
            out = conv.apply(padded)
            sigmoid = torch.sigmoid(out)
            grad = out.mul_(1 - sigmoid).add_(1).mul_(sigmoid).mul_(grad)
        for k, shift in enumerate(conv.shifts(padded)):
            grad_weights[k] += (shift * grad).sum((0, 1))
        grad_sum += grad.sum((0, 1))
        grad_padded = torch.zeros_like(padded)
        for shift, weights in zip(conv.shifts(grad_padded), conv.weights):
            shift.addcmul_(grad, weights)
        grad_x[tile] = grad_padded[:, past:]
        if initial_state is not None:
            conv.rows(grads[3])[tile] = grad_padded[:, :past]

    grads[1].copy_(grad_weights.t())
    if bias is not None:
        grads[2].copy_(grad_sum)
    return grads


@_conv_backward.register_fake
def _(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    silu: bool,
) -> list[Tensor]:
    inputs = (x, weight, bias, initial_state)
    return [x.new_empty(0) if t is None else _empty_like(t) for t in inputs]


def _empty_like(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.silu = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    grads = _conv_backward(grad_y, *ctx.saved_tensors, ctx.silu)
    return *(None if x is None else grad for x, grad in zip(ctx.saved_tensors, grads)), None


_conv_forward.register_autograd(_differentiate, setup_context=_setup_context)
