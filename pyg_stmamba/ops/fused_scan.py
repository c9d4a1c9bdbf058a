r"""The selective scan by a Numba kernel that passes over the data once."""

from typing import Any

import torch
from torch import Tensor

from .cpu_kernel import array, reasons_against_cpu_kernel


def fused_scan(
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
    r"""The recurrence of :func:`~pyg_stmamba.ops.selective_scan` on a CPU in float32."""
    lead, (channels, states) = u.shape[:-2], A.shape

    def rows(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.reshape(-1, *x.shape[len(lead) :]).float().contiguous()

    y, last_state, _ = _forward(
        rows(u),
        rows(delta),
        A.float().t().contiguous(),
        rows(B),
        rows(C),
        u.new_zeros(channels, dtype=torch.float32) if D is None else D.float().contiguous(),
        rows(z),
        u.new_zeros(channels, dtype=torch.float32)
        if delta_bias is None
        else delta_bias.float().contiguous(),
        rows(initial_state),
        None if mask is None else mask.reshape(-1, mask.size(-1)).contiguous(),
        delta_softplus,
    )
    return y.to(u.dtype).reshape(u.shape), last_state.reshape(*lead, channels, states)


def reasons_against_fused_scan(u: Tensor, *others: Any) -> list[str]:
    r"""Why :func:`fused_scan` cannot run on these tensors."""
    return reasons_against_cpu_kernel(u, "selective_scan_cpu")


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
) -> tuple[Tensor, Tensor, Tensor]:
    from .kernels.selective_scan_cpu import CHUNK, Options, forward_rows
    from .kernels.thread_pool import over_ranges

    (rows, steps, channels), states = u.shape, A.size(0)
    y, last_state = torch.empty_like(u), u.new_empty(rows, channels, states)
    chunks = u.new_empty(rows, (steps - 1) // CHUNK, states, channels)
    options = Options(delta_softplus, z is not None, initial_state is not None, mask is not None)
    arrays = [array(x) for x in (u, delta, A, B, C, D, z, delta_bias, initial_state)]
    outputs = [x.numpy() for x in (y, last_state, chunks)]
    over_ranges(
        rows,
        lambda _, start, stop: forward_rows(start, stop, *arrays, _mask(mask), options, *outputs),
    )
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
) -> tuple[Tensor, Tensor, Tensor]:
    (rows, steps, channels), states = u.shape, A.size(0)
    # In one dimension, because the compiler would specialise on one that may have size 1.
    chunks = u.new_empty(rows * ((steps - 1) // 16) * states * channels)
    return torch.empty_like(u), u.new_empty(rows, channels, states), chunks


@torch.library.custom_op("pyg_stmamba::fused_scan_backward", mutates_args=())
def _backward(
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
    chunks: Tensor,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    from .kernels.selective_scan_cpu import CHUNK, Options, backward_rows
    from .kernels.thread_pool import over_ranges

    rows, parts = u.size(0), torch.get_num_threads()
    options = Options(delta_softplus, z is not None, initial_state is not None, mask is not None)
    arrays = [array(x) for x in (u, delta, A, B, C, D, z, delta_bias, initial_state)]
    grad_u, grad_delta, grad_B, grad_C = (torch.empty_like(x) for x in (u, delta, B, C))
    grad_z = torch.empty_like(u if z is not None else u[:0])
    grad_initial = torch.empty_like(grad_last_state)
    # Each thread sums over its own rows.
    grad_A, grad_D, grad_bias = (x.new_zeros(parts, *x.shape) for x in (A, D, delta_bias))
    given = [grad_y.contiguous().numpy(), grad_last_state.contiguous().numpy()]
    starts = (rows, (u.size(1) - 1) // CHUNK, *A.shape)
    mask_array, checkpoints = _mask(mask), chunks.view(starts).numpy()
    own = [x.numpy() for x in (grad_u, grad_delta, grad_B, grad_C, grad_z, grad_initial)]
    sums = [x.numpy() for x in (grad_A, grad_D, grad_bias)]

    def work(part: int, start: int, stop: int) -> None:
        g_u, g_delta, g_B, g_C, g_z, g_initial = own
        g_A, g_D, g_bias = (x[part] for x in sums)
        backward_rows(
            start, stop, *given, *arrays, mask_array, options, checkpoints,
            g_u, g_delta, g_A, g_B, g_C, g_D, g_z, g_bias, g_initial,
        )  # fmt: skip

    over_ranges(rows, work)
    return (
        grad_u, grad_delta, grad_A.sum(0), grad_B, grad_C, grad_D.sum(0), grad_z, grad_bias.sum(0),
        grad_initial,
    )  # fmt: skip


@_backward.register_fake
def _(
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
    chunks: Tensor,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    gate = u if z is not None else u[:0]
    like = (u, delta, A, B, C, D, gate, delta_bias, grad_last_state)
    return tuple(torch.empty_like(x) for x in like)  # type: ignore[return-value]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.delta_softplus = inputs
    ctx.save_for_backward(*tensors, output[2])


def _differentiate(
    ctx: Any, grad_y: Tensor, grad_last_state: Tensor, _: Tensor
) -> tuple[Tensor | None, ...]:
    grads = _backward(grad_y, grad_last_state, *ctx.saved_tensors, ctx.delta_softplus)
    z, initial_state = ctx.saved_tensors[6], ctx.saved_tensors[8]
    grad_z = None if z is None else grads[6]
    grad_initial = None if initial_state is None else grads[8]
    return *grads[:6], grad_z, grads[7], grad_initial, None, None


_forward.register_autograd(_differentiate, setup_context=_setup_context)


def _mask(mask: Tensor | None) -> Any:
    return (torch.empty(0, 0, dtype=torch.bool) if mask is None else mask).numpy()
