r"""Graph attention by a Numba kernel that passes once over the edges of every target."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .cpu_kernel import array, reasons_against_cpu_kernel
from .neighborhood import neighborhood


def fused_attention(
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
    r"""The sums of :func:`~pyg_stmamba.ops.graph_attention` on a CPU in float32."""
    rowptr, source, _, permutation = neighborhood(edge_index, target_logit.size(0))
    heads = value.size(2)

    def columns(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.flatten(1).float().contiguous()

    out, attention = _forward(
        value.flatten(1, 2).float().contiguous(),
        columns(source_logit),
        columns(target_logit),
        columns(edge_logit),
        None if keep is None else keep.flatten(1).contiguous(),
        rowptr,
        source,
        permutation,
        heads,
        negative_slope,
        scale,
        return_attention,
    )
    out = out.to(value.dtype).reshape(*target_logit.shape, value.size(-1))
    if not return_attention:
        return out, None
    return out, attention.to(value.dtype).reshape(-1, *target_logit.shape[1:])


def reasons_against_fused_attention(value: Tensor, *others: Any) -> list[str]:
    r"""Why :func:`fused_attention` cannot run on these tensors."""
    return reasons_against_cpu_kernel(value, "graph_attention_cpu")


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
    heads: int,
    negative_slope: float,
    scale: float,
    return_attention: bool,
) -> tuple[Tensor, Tensor]:
    from .kernels.graph_attention_cpu import forward_columns
    from .kernels.thread_pool import over_ranges

    out = value.new_empty(*target_logit.shape, value.size(-1))
    attention = _attention(target_logit, source, return_attention)
    inputs = _inputs(value, source_logit, target_logit, edge_logit, keep)
    inputs += [array(x) for x in (rowptr, source, permutation)]
    options = _options(
        target_logit, edge_logit, keep, heads, negative_slope, scale, return_attention
    )
    outputs = [out.numpy(), attention.numpy()]
    over_ranges(
        target_logit.size(1),
        lambda _, start, stop: forward_columns(start, stop, *inputs, options, *outputs),
    )
    return out, attention


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
    heads: int,
    negative_slope: float,
    scale: float,
    return_attention: bool,
) -> tuple[Tensor, Tensor]:
    out = value.new_empty(*target_logit.shape, value.size(-1))
    return out, _attention(target_logit, source, return_attention)


@torch.library.custom_op("pyg_stmamba::fused_attention_backward", mutates_args=())
def _backward(
    grad_out: Tensor,
    grad_attention: Tensor,
    value: Tensor,
    source_logit: Tensor,
    target_logit: Tensor,
    edge_logit: Tensor | None,
    keep: Tensor | None,
    rowptr: Tensor,
    source: Tensor,
    permutation: Tensor,
    heads: int,
    negative_slope: float,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from .kernels.graph_attention_cpu import backward_columns
    from .kernels.thread_pool import over_ranges

    grads = [torch.empty_like(x) for x in (value, source_logit, target_logit)]
    options = _options(
        target_logit, edge_logit, keep, heads, negative_slope, scale, grad_attention.numel() > 0
    )
    # The threads share the columns; one logit for all the slices of an edge they sum apart.
    parts = 1 if options.per_slice else torch.get_num_threads()
    grad_edge = torch.zeros(
        (parts, *(edge_logit.shape if edge_logit is not None else (0, 0))), dtype=torch.float32
    )
    given = [grad_out.contiguous().numpy(), grad_attention.contiguous().numpy()]
    inputs = _inputs(value, source_logit, target_logit, edge_logit, keep)
    inputs += [array(x) for x in (rowptr, source, permutation)]
    outputs, edge_sums = [x.numpy() for x in grads], grad_edge.numpy()
    over_ranges(
        target_logit.size(1),
        lambda part, start, stop: backward_columns(
            start, stop, *given, *inputs, options, *outputs, edge_sums[min(part, parts - 1)]
        ),
    )
    return grads[0], grads[1], grads[2], grad_edge.sum(0)


@_backward.register_fake
def _(
    grad_out: Tensor,
    grad_attention: Tensor,
    value: Tensor,
    source_logit: Tensor,
    target_logit: Tensor,
    edge_logit: Tensor | None,
    keep: Tensor | None,
    rowptr: Tensor,
    source: Tensor,
    permutation: Tensor,
    heads: int,
    negative_slope: float,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    edge = value.new_empty(0, 0) if edge_logit is None else torch.empty_like(edge_logit)
    like = (value, source_logit, target_logit)
    return *(torch.empty_like(x) for x in like), edge  # type: ignore[return-value]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, heads, negative_slope, scale, ctx.return_attention = inputs
    ctx.numbers = (heads, negative_slope, scale)
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad_out: Tensor, grad_attention: Tensor) -> tuple[Tensor | None, ...]:
    if not ctx.return_attention:
        grad_attention = grad_out.new_empty(0, 0)
    *grads, grad_edge = _backward(grad_out, grad_attention, *ctx.saved_tensors, *ctx.numbers)
    return *grads, None if ctx.saved_tensors[3] is None else grad_edge, *[None] * 8


_forward.register_autograd(_differentiate, setup_context=_setup_context)


def _attention(target_logit: Tensor, source: Tensor, is_wanted: bool) -> Tensor:
    shape = (source.size(0), target_logit.size(1)) if is_wanted else (0, 0)
    return target_logit.new_empty(shape)


def _inputs(
    value: Tensor,
    source_logit: Tensor,
    target_logit: Tensor,
    edge_logit: Tensor | None,
    keep: Tensor | None,
) -> list[Any]:
    kept = torch.empty(0, 0, dtype=torch.bool) if keep is None else keep
    logits = (source_logit, target_logit)
    return [array(value), *(array(x) for x in logits), array(edge_logit, rank=2), array(kept)]


def _options(
    target_logit: Tensor,
    edge_logit: Tensor | None,
    keep: Tensor | None,
    heads: int,
    negative_slope: float,
    scale: float,
    attention: bool,
) -> Any:
    from .kernels.graph_attention_cpu import Options

    return Options(
        heads,
        edge_logit is not None,
        edge_logit is not None and edge_logit.size(1) == target_logit.size(1),
        keep is not None,
        attention,
        np.float32(negative_slope),
        np.float32(scale),
    )
