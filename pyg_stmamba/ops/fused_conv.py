r"""The causal depthwise convolution by a Numba kernel that passes over the data once."""

from typing import Any

import torch
from torch import Tensor

from .cpu_kernel import array, reasons_against_cpu_kernel


def fused_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    initial_state: Tensor | None = None,
) -> Tensor:
    r"""The sums of :func:`~pyg_stmamba.ops.causal_conv1d` on a CPU in float32."""
    rows = x.reshape(-1, *x.shape[-2:]).float().contiguous()
    y = _forward(
        rows,
        weight.float().t().contiguous(),
        x.new_zeros(x.size(-1), dtype=torch.float32) if bias is None else bias.float().contiguous(),
        None
        if initial_state is None
        else initial_state.reshape(len(rows), *initial_state.shape[-2:]).float().contiguous(),
        activation == "silu",
    )
    return y.to(x.dtype).reshape(x.shape)


def reasons_against_fused_conv(x: Tensor, *others: Any) -> list[str]:
    r"""Why :func:`fused_conv` cannot run on these tensors."""
    return reasons_against_cpu_kernel(x, "causal_conv1d_cpu")


@torch.library.custom_op("pyg_stmamba::fused_conv_forward", mutates_args=())
def _forward(
    x: Tensor, weight: Tensor, bias: Tensor, initial_state: Tensor | None, silu: bool
) -> Tensor:
    from .kernels.causal_conv1d_cpu import forward_rows
    from .kernels.thread_pool import over_ranges

    y = torch.empty_like(x)
    arrays = [array(tensor) for tensor in (x, weight, bias, initial_state)]
    options, out = (initial_state is not None, silu), y.numpy()
    over_ranges(x.size(0), lambda _, start, stop: forward_rows(start, stop, *arrays, *options, out))
    return y


@_forward.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, initial_state: Tensor | None, silu: bool) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("pyg_stmamba::fused_conv_backward", mutates_args=())
def _backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    initial_state: Tensor | None,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from .kernels.causal_conv1d_cpu import backward_rows
    from .kernels.thread_pool import over_ranges

    parts = torch.get_num_threads()
    grad_x, grad_initial = torch.empty_like(x), _like(initial_state, x)
    # Each thread sums over its own rows.
    grad_weight, grad_bias = (p.new_zeros(parts, *p.shape) for p in (weight, bias))
    arrays = [array(tensor) for tensor in (x, weight, bias, initial_state)]
    options, given = (initial_state is not None, silu), grad_y.contiguous().numpy()
    out_x, out_weight, out_bias, out_initial = (
        tensor.numpy() for tensor in (grad_x, grad_weight, grad_bias, grad_initial)
    )

    def work(part: int, start: int, stop: int) -> None:
        backward_rows(
            start, stop, given, *arrays, *options,
            out_x, out_weight[part], out_bias[part], out_initial,
        )  # fmt: skip

    over_ranges(x.size(0), work)
    return grad_x, grad_weight.sum(0), grad_bias.sum(0), grad_initial


@_backward.register_fake
def _(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    initial_state: Tensor | None,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    like = (x, weight, bias, _like(initial_state, x))
    return tuple(torch.empty_like(tensor) for tensor in like)  # type: ignore[return-value]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.silu = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    *grads, grad_initial = _backward(grad_y, *ctx.saved_tensors, ctx.silu)
    return *grads, None if ctx.saved_tensors[3] is None else grad_initial, None


_forward.register_autograd(_differentiate, setup_context=_setup_context)


def _like(initial_state: Tensor | None, x: Tensor) -> Tensor:
    return x.new_empty(0, 0, 0) if initial_state is None else torch.empty_like(initial_state)
