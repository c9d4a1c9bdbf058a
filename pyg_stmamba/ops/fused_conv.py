r"""The causal depthwise convolution by a kernel that passes over the data once."""

from typing import Any

import torch
from torch import Tensor

from .kernel import load_kernel, reasons_against_cpu_kernel, reasons_against_gpu_kernel


def fused_conv_on_cpu(x: Tensor, weight: Tensor, *others: Any) -> Tensor:
    r"""The sums of :func:`~pyg_stmamba.ops.causal_conv1d` on a CPU, in float32 between the memory
    and the memory."""
    return _fused_conv("cpu", x, weight, *others).to(x.dtype)


def reasons_against_fused_conv_on_cpu(x: Tensor, *others: Any) -> list[str]:
    r"""Why :func:`fused_conv_on_cpu` cannot run on these tensors."""
    return reasons_against_cpu_kernel("causal_conv1d", x)


def fused_conv_on_gpu(x: Tensor, *others: Any) -> Tensor:
    r"""The sums of :func:`~pyg_stmamba.ops.causal_conv1d` on a GPU, in float32 between the memory
    and the memory."""
    return _fused_conv("gpu", x, *others)


def reasons_against_fused_conv_on_gpu(x: Tensor, *others: Any) -> list[str]:
    r"""Why :func:`fused_conv_on_gpu` cannot run on these tensors."""
    return reasons_against_gpu_kernel("causal_conv1d", x)


def _fused_conv(
    device: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    initial_state: Tensor | None = None,
) -> Tensor:
    narrow = device == "gpu" or x.dtype == torch.bfloat16
    dtype = x.dtype if narrow else torch.float32
    rows = x.reshape(-1, *x.shape[-2:]).to(dtype)
    if device == "gpu" or rows.stride(-1) != 1:
        # The kernel on a CPU walks over rows and steps at any distance from each other.
        rows = rows.contiguous()
    y = _forward(
        rows,
        weight.float().t().contiguous(),
        x.new_zeros(x.size(-1), dtype=torch.float32) if bias is None else bias.float().contiguous(),
        None
        if initial_state is None
        else initial_state.to(dtype).reshape(len(rows), *initial_state.shape[-2:]).contiguous(),
        activation == "silu",
        device,
    )
    return y.reshape(x.shape)


@torch.library.custom_op("pyg_stmamba::fused_conv_forward", mutates_args=())
def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    initial_state: Tensor | None,
    silu: bool,
    device: str,
) -> Tensor:
    y = _empty_like(x)
    load_kernel("causal_conv1d", device).forward(x, weight, bias, initial_state, silu, y)
    return y


@_forward.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    initial_state: Tensor | None,
    silu: bool,
    device: str,
) -> Tensor:
    return _empty_like(x)


@torch.library.custom_op("pyg_stmamba::fused_conv_backward", mutates_args=())
def _backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    initial_state: Tensor | None,
    silu: bool,
    device: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return load_kernel("causal_conv1d", device).backward(
        grad_y.contiguous(), x, weight, bias, initial_state, silu
    )


@_backward.register_fake
def _(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    initial_state: Tensor | None,
    silu: bool,
    device: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    state = x.new_empty(0, 0, 0) if initial_state is None else initial_state
    return tuple(_empty_like(tensor) for tensor in (x, weight, bias, state))  # type: ignore[return-value]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.silu, ctx.device = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    *grads, grad_initial = _backward(grad_y, *ctx.saved_tensors, ctx.silu, ctx.device)
    return *grads, None if ctx.saved_tensors[3] is None else grad_initial, None, None


_forward.register_autograd(_differentiate, setup_context=_setup_context)


def _empty_like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
