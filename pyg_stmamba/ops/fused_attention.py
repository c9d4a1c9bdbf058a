r"""Graph attention by a kernel that passes once over the edges of every node."""

from typing import Any

import torch
from torch import Tensor

from .kernel import load_kernel, reasons_against_cpu_kernel, reasons_against_gpu_kernel
from .neighborhood import neighborhood, outgoing_edges


def fused_attention_on_cpu(value: Tensor, *others: Any) -> tuple[Tensor, Tensor | None]:
    r"""The sums of :func:`~pyg_stmamba.ops.graph_attention` on a CPU, in float32 between the
    memory and the memory."""
    narrow = value if value.dtype == torch.bfloat16 else value.float()
    # The kernel is compiled for each dtype of the values; the logits are few.
    wide: list[Any] = [
        x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for x in others
    ]
    out, attention = _fused_attention("cpu", narrow, *wide)
    return out.to(value.dtype), None if attention is None else attention.to(value.dtype)


def reasons_against_fused_attention_on_cpu(value: Tensor, *others: Any) -> list[str]:
    r"""Why :func:`fused_attention_on_cpu` cannot run on these tensors."""
    return reasons_against_cpu_kernel("graph_attention", value)


def fused_attention_on_gpu(value: Tensor, *others: Any) -> tuple[Tensor, Tensor | None]:
    r"""The sums of :func:`~pyg_stmamba.ops.graph_attention` on a GPU, in float32 between the
    memory and the memory."""
    return _fused_attention("gpu", value, *others)


def reasons_against_fused_attention_on_gpu(value: Tensor, *others: Any) -> list[str]:
    r"""Why :func:`fused_attention_on_gpu` cannot run on these tensors."""
    return reasons_against_gpu_kernel("graph_attention", value)


def _fused_attention(
    device: str,
    value: Tensor,
    source_logit: Tensor,
    target_logit: Tensor,
    edge_index: Tensor,
    edge_logit: Tensor | None = None,
    keep: Tensor | None = None,
    negative_slope: float = 0.2,
    scale: float = 1.0,
    return_attention: bool = False,
) -> tuple[Tensor, Tensor | None]:
    rowptr, source, _, permutation = neighborhood(edge_index, target_logit.size(0))
    # The kernel on a GPU alone walks over them, and only back.
    needed = device == "gpu" and torch.is_grad_enabled()
    outgoing = outgoing_edges(edge_index, value.size(0)) if needed else (None, None, None)

    def columns(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.flatten(1).contiguous()

    out, attention, _ = _forward(
        value.flatten(1, 2).contiguous(),
        columns(source_logit),
        columns(target_logit),
        columns(edge_logit),
        columns(keep),
        rowptr,
        source,
        permutation,
        *outgoing,
        value.size(2),
        negative_slope,
        scale,
        return_attention,
        device,
    )
    out = out.reshape(*target_logit.shape, value.size(-1))
    return out, attention.reshape(-1, *target_logit.shape[1:]) if return_attention else None


@torch.library.custom_op("pyg_stmamba::fused_attention_forward", mutates_args=())
def _forward(
    value: Tensor,
    source_logit: Tensor,
    target_logit: Tensor,
    edge_logit: Tensor | None,
    keep: Tensor | None,
    rowptr: Tensor,
    source: Tensor,
    permutation: Tensor,
    outgoing_rowptr: Tensor | None,
    outgoing_target: Tensor | None,
    outgoing_permutation: Tensor | None,
    heads: int,
    negative_slope: float,
    scale: float,
    return_attention: bool,
    device: str,
) -> tuple[Tensor, Tensor, Tensor]:
    out, attention, log_sum = _outputs(value, target_logit, source, return_attention)
    load_kernel("graph_attention", device).forward(
        value, source_logit, target_logit, edge_logit, keep, rowptr, source, permutation,
        heads, negative_slope, scale, out, attention, log_sum,
    )  # fmt: skip
    return out, attention, log_sum


@_forward.register_fake
def _(
    value: Tensor,
    source_logit: Tensor,
    target_logit: Tensor,
    edge_logit: Tensor | None,
    keep: Tensor | None,
    rowptr: Tensor,
    source: Tensor,
    permutation: Tensor,
    outgoing_rowptr: Tensor | None,
    outgoing_target: Tensor | None,
    outgoing_permutation: Tensor | None,
    heads: int,
    negative_slope: float,
    scale: float,
    return_attention: bool,
    device: str,
) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(value, target_logit, source, return_attention)


@torch.library.custom_op("pyg_stmamba::fused_attention_backward", mutates_args=())
def _backward(
    grad_out: Tensor,
    grad_attention: Tensor | None,
    value: Tensor,
    source_logit: Tensor,
    target_logit: Tensor,
    edge_logit: Tensor | None,
    keep: Tensor | None,
    rowptr: Tensor,
    source: Tensor,
    permutation: Tensor,
    outgoing_rowptr: Tensor | None,
    outgoing_target: Tensor | None,
    outgoing_permutation: Tensor | None,
    log_sum: Tensor,
    heads: int,
    negative_slope: float,
    scale: float,
    device: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return load_kernel("graph_attention", device).backward(
        grad_out.contiguous(), None if grad_attention is None else grad_attention.contiguous(),
        value, source_logit, target_logit, edge_logit, keep, rowptr, source, permutation,
        (outgoing_rowptr, outgoing_target, outgoing_permutation), log_sum,
        heads, negative_slope, scale,
    )  # fmt: skip


@_backward.register_fake
def _(
    grad_out: Tensor,
    grad_attention: Tensor | None,
    value: Tensor,
    source_logit: Tensor,
    target_logit: Tensor,
    edge_logit: Tensor | None,
    keep: Tensor | None,
    rowptr: Tensor,
    source: Tensor,
    permutation: Tensor,
    outgoing_rowptr: Tensor | None,
    outgoing_target: Tensor | None,
    outgoing_permutation: Tensor | None,
    log_sum: Tensor,
    heads: int,
    negative_slope: float,
    scale: float,
    device: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    edge = value.new_empty(0, 0) if edge_logit is None else edge_logit
    like = (value, source_logit, target_logit, edge)
    return tuple(torch.empty_like(x) for x in like)  # type: ignore[return-value]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, heads, negative_slope, scale, _, device = inputs
    ctx.options = (heads, negative_slope, scale, device)
    ctx.save_for_backward(*tensors, output[2])
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: Any, grad_out: Tensor | None, grad_attention: Tensor | None, grad_log_sum: Tensor | None
) -> tuple[Tensor | None, ...]:
    value, _, target_logit, edge_logit, *_ = ctx.saved_tensors
    if grad_out is None:
        grad_out = value.new_zeros(*target_logit.shape, value.size(-1))
    *grads, grad_edge = _backward(grad_out, grad_attention, *ctx.saved_tensors, *ctx.options)
    return *grads, None if edge_logit is None else grad_edge, *[None] * 12


_forward.register_autograd(_differentiate, setup_context=_setup_context)


def _outputs(
    value: Tensor, target_logit: Tensor, source: Tensor, return_attention: bool
) -> tuple[Tensor, Tensor, Tensor]:
    out = value.new_empty(*target_logit.shape, value.size(-1))
    shape = (source.size(0), target_logit.size(1)) if return_attention else (0, 0)
    log_sum = torch.empty_like(target_logit, dtype=torch.float32)
    return out, value.new_empty(shape), log_sum
