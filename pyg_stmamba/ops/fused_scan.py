r"""The selective scan by a kernel that passes over the data once."""

from typing import Any

import torch
from torch import Tensor

from .kernel import load_kernel, reasons_against_cpu_kernel, reasons_against_gpu_kernel

# Steps between two states that the forward pass keeps for the backward pass.
CHUNK = 16


def fused_scan_on_cpu(u: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    r"""The recurrence of :func:`~pyg_stmamba.ops.selective_scan` on a CPU in float32."""
    wide: list[Any] = [
        x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for x in others
    ]
    y, last_state = _fused_scan("cpu", u.float(), *wide)
    return y.to(u.dtype), last_state


def reasons_against_fused_scan_on_cpu(u: Tensor, *others: Any) -> list[str]:
    r"""Why :func:`fused_scan_on_cpu` cannot run on these tensors."""
    return reasons_against_cpu_kernel("selective_scan", u)


def fused_scan_on_gpu(u: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
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
) -> tuple[Tensor, Tensor]:
    lead, (channels, states) = u.shape[:-2], A.shape

    def rows(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.reshape(-1, *x.shape[len(lead) :]).contiguous()

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
        None if initial_state is None else rows(initial_state.float()),
        None if mask is None else mask.reshape(-1, mask.size(-1)).contiguous(),
        delta_softplus,
        device,
    )
    return y.reshape(u.shape), last_state.reshape(*lead, channels, states)


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
    device: str,
) -> tuple[Tensor, Tensor, Tensor]:
    (rows, steps, channels), states = u.shape, A.size(0)
    y = torch.empty_like(u)
    last_state = u.new_empty(rows, channels, states, dtype=torch.float32)
    chunks = u.new_empty(rows, (steps - 1) // CHUNK, states, channels, dtype=torch.float32)
    load_kernel("selective_scan", device).forward(
        u, delta, A, B, C, D, z, delta_bias, initial_state, mask, delta_softplus,
        CHUNK, y, last_state, chunks,
    )  # fmt: skip
    return y, last_state, chunks.flatten()


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
    device: str,
) -> tuple[Tensor, Tensor, Tensor]:
    (rows, steps, channels), states = u.shape, A.size(0)
    last_state = u.new_empty(rows, channels, states, dtype=torch.float32)
    # In one dimension, because the compiler would specialise on one that may have size 1.
    size = rows * ((steps - 1) // CHUNK) * states * channels
    return torch.empty_like(u), last_state, u.new_empty(size, dtype=torch.float32)


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
        CHUNK, chunks.view(u.size(0), (u.size(1) - 1) // CHUNK, *A.shape),
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
    return tuple(torch.empty_like(x) for x in like)  # type: ignore[return-value]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.delta_softplus, ctx.device = inputs
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
    return *grads[:6], grad_z, grads[7], grad_initial, None, None, None


_forward.register_autograd(_differentiate, setup_context=_setup_context)
