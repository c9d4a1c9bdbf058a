r"""The selective scan by a kernel that passes over the data once."""

from typing import Any

import torch
from torch import Tensor

from .kernel import load_kernel, reasons_against_cpu_kernel, reasons_against_gpu_kernel

# Steps between two states that the forward pass keeps for the backward pass.
CHUNK = 16


def fused_scan_on_cpu(u: Tensor, *others: Any) -> tuple[Tensor, Tensor | None]:
    r"""The recurrence of :func:`~pyg_stmamba.ops.selective_scan` on a CPU, in float32 between the
    memory and the memory."""
    y, last_state = _fused_scan("cpu", u, *others)
    return y.to(u.dtype), last_state


def reasons_against_fused_scan_on_cpu(u: Tensor, *others: Any) -> list[str]:
    r"""Why :func:`fused_scan_on_cpu` cannot run on these tensors."""
    return reasons_against_cpu_kernel("selective_scan", u)


def fused_scan_on_gpu(u: Tensor, *others: Any) -> tuple[Tensor, Tensor | None]:
    r"""The recurrence of :func:`~pyg_stmamba.ops.selective_scan` on a GPU, in float32 between the
    memory and the memory."""
    return _fused_scan("gpu", u, *others)


def reasons_against_fused_scan_on_gpu(u: Tensor, *others: Any) -> list[str]:
    r"""Why :func:`fused_scan_on_gpu` cannot run on these tensors."""
    return reasons_against_gpu_kernel("selective_scan", u)


def _fused_scan(
    device: str,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    return_last_state: bool = True,
) -> tuple[Tensor, Tensor | None]:
    lead, (channels, states) = u.shape[:-2], A.shape
    narrow = device == "gpu" or u.dtype == torch.bfloat16

    def rows(x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        # The kernel on a CPU is compiled for each dtype, so all of them get the same.
        x = x.reshape(-1, *x.shape[len(lead) :]).to(u.dtype if narrow else torch.float32)
        # It walks over rows and steps at any distance from each other, such as in half a tensor.
        return x if device == "cpu" and x.stride(-1) == 1 else x.contiguous()

    def of_channels(x: Tensor | None) -> Tensor:
        return A.new_zeros(channels, dtype=torch.float32) if x is None else x.float().contiguous()

    y, last_state, _ = _forward(
        rows(u),
        rows(delta),
        A.float().t().contiguous(),
        rows(B),
        rows(C),
        of_channels(D),
        rows(z),
        of_channels(delta_bias),
        None
        if initial_state is None
        else initial_state.float().reshape(-1, channels, states).contiguous(),
        None if mask is None else mask.reshape(-1, mask.size(-1)).contiguous(),
        delta_softplus,
        return_last_state,
        device,
    )
    last_state = last_state.reshape(*lead, channels, states) if return_last_state else None
    return y.reshape(u.shape), last_state


@torch.library.custom_op("pyg_stmamba::fused_scan_forward", mutates_args=())
def _forward(
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
    return_last_state: bool,
    device: str,
) -> tuple[Tensor, Tensor, Tensor]:
    y, last_state, chunks = _outputs(u, A, return_last_state)
    load_kernel("selective_scan", device).forward(
        u, delta, A, B, C, D, z, delta_bias, initial_state, mask, delta_softplus,
        CHUNK, y, last_state, chunks,
    )  # fmt: skip
    return y, last_state, chunks


@_forward.register_fake
def _(
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
    return_last_state: bool,
    device: str,
) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(u, A, return_last_state)


@torch.library.custom_op("pyg_stmamba::fused_scan_backward", mutates_args=())
def _backward(
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
    chunks: Tensor,
    delta_softplus: bool,
    device: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    *grads, grad_initial = load_kernel("selective_scan", device).backward(
        grad_y.contiguous(), None if grad_last_state is None else grad_last_state.contiguous(),
        u, delta, A, B, C, D, z, delta_bias, initial_state, mask, delta_softplus,
        CHUNK, chunks,
    )  # fmt: skip
    return *grads, u.new_empty(0, dtype=torch.float32) if initial_state is None else grad_initial


@_backward.register_fake
def _(
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
    chunks: Tensor,
    delta_softplus: bool,
    device: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    gate = u[:0] if z is None else z
    initial = u.new_empty(0, dtype=torch.float32) if initial_state is None else initial_state
    like = (u, delta, A, B, C, D, gate, delta_bias, initial)
    return tuple(_empty_like(x) for x in like)  # type: ignore[return-value]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.delta_softplus, _, ctx.device = inputs
    ctx.save_for_backward(*tensors, output[2])
    # Zeros in place of the gradient of an unused last state would be as large as many steps.
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: Any, grad_y: Tensor | None, grad_last_state: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, ...]:
    if grad_y is None:
        grad_y = torch.zeros_like(ctx.saved_tensors[0])
    grads = _backward(grad_y, grad_last_state, *ctx.saved_tensors, ctx.delta_softplus, ctx.device)
    z, initial_state = ctx.saved_tensors[6], ctx.saved_tensors[8]
    grad_z = None if z is None else grads[6]
    grad_initial = None if initial_state is None else grads[8]
    return *grads[:6], grad_z, grads[7], grad_initial, None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_setup_context)


def _outputs(u: Tensor, A: Tensor, return_last_state: bool) -> tuple[Tensor, Tensor, Tensor]:
    (rows, steps, channels), states = u.shape, A.size(0)
    last_state = (rows, channels, states) if return_last_state else (0, channels, states)
    # In one dimension, because the compiler would specialise on one that may have size 1.
    chunks = rows * ((steps - 1) // CHUNK) * states * channels
    return (
        _empty_like(u),
        u.new_empty(last_state, dtype=torch.float32),
        u.new_empty(chunks, dtype=torch.float32),
    )


def _empty_like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
