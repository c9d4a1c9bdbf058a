r"""Graph attention in vectorised torch: blocks of edges gathered, weighted and added in the cache.

Between the passes nothing is kept but the inputs; the backward pass computes the attention weights
again. (From a kept log-sum-exp they would no longer sum to 1 exactly, which costs the gradients a
digit in float32.) Nothing of size edges x channels is ever whole.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .neighborhood import Neighborhood, neighborhood

_BLOCK_ELEMENTS = 2**18


def edge_attention(
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
    r"""The sums of :func:`~pyg_stmamba.ops.graph_attention`, a block of edges at a time."""
    edges = neighborhood(edge_index, target_logit.size(0))
    out, attention = _forward(
        value, source_logit, target_logit, edge_logit, keep, *edges,
        negative_slope, scale, return_attention,
    )  # fmt: skip
    return out, attention if return_attention else None


@torch.library.custom_op(
    "pyg_stmamba::attention_forward",
    mutates_args=(),
    schema="(Tensor value, Tensor source_logit, Tensor target_logit, Tensor? edge_logit, "
    "Tensor? keep, Tensor rowptr, Tensor source, Tensor target, Tensor permutation, "
    "float negative_slope, float scale, bool return_attention) -> (Tensor, Tensor)",
)
def _forward(
    value: Tensor,
    source_logit: Tensor,
    target_logit: Tensor,
    edge_logit: Tensor | None,
    keep: Tensor | None,
    rowptr: Tensor,
    source: Tensor,
    target: Tensor,
    permutation: Tensor,
    negative_slope: float,
    scale: float,
    return_attention: bool,
) -> tuple[Tensor, Tensor]:
    edges = Neighborhood(rowptr, source, target, permutation)
    _, attention = _softmax(
        source_logit, target_logit, edge_logit, edges, negative_slope, _wide(value)
    )
    if keep is not None:
        attention.mul_(keep[permutation]).mul_(scale)

    out = value.new_zeros(target_logit.shape + value.shape[-1:], dtype=attention.dtype)
    for block in _blocks(edges, value):
        message = value.index_select(0, source[block]).to(attention.dtype)
        message.mul_(attention[block].unsqueeze(-1))
        out.index_add_(0, target[block], message)

    returned = value.new_empty(attention.shape if return_attention else (0,))
    if return_attention:
        returned[permutation] = attention.to(value.dtype)
    return out.to(value.dtype), returned


@_forward.register_fake
def _(
    value: Tensor,
    source_logit: Tensor,
    target_logit: Tensor,
    edge_logit: Tensor | None,
    keep: Tensor | None,
    rowptr: Tensor,
    source: Tensor,
    target: Tensor,
    permutation: Tensor,
    negative_slope: float,
    scale: float,
    return_attention: bool,
) -> tuple[Tensor, Tensor]:
    attention = source.shape + target_logit.shape[1:] if return_attention else (0,)
    return value.new_empty(target_logit.shape + value.shape[-1:]), value.new_empty(attention)


@torch.library.custom_op(
    "pyg_stmamba::attention_backward",
    mutates_args=(),
    schema="(Tensor? grad_out, Tensor? grad_attention, Tensor value, Tensor source_logit, "
    "Tensor target_logit, Tensor? edge_logit, Tensor? keep, Tensor rowptr, Tensor source, "
    "Tensor target, Tensor permutation, float negative_slope, float scale) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
)
def _backward(
    grad_out: Tensor | None,
    grad_attention: Tensor | None,
    value: Tensor,
    source_logit: Tensor,
    target_logit: Tensor,
    edge_logit: Tensor | None,
    keep: Tensor | None,
    rowptr: Tensor,
    source: Tensor,
    target: Tensor,
    permutation: Tensor,
    negative_slope: float,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    edges = Neighborhood(rowptr, source, target, permutation)
    raw, weight = _softmax(
        source_logit, target_logit, edge_logit, edges, negative_slope, _wide(value)
    )
    factor = None if keep is None else keep[permutation].to(weight.dtype).mul_(scale)
    attention = weight if factor is None else weight * factor

    grad_value = torch.zeros(value.shape, dtype=weight.dtype, device=value.device)
    grad = torch.zeros_like(weight)
    if grad_attention is not None:
        grad += grad_attention[permutation]
    for block in _blocks(edges, value):
        if grad_out is None:
            break
        received = grad_out.index_select(0, target[block]).to(weight.dtype)
        sent = value.index_select(0, source[block])
        grad[block] += (received * sent).sum(-1)
        received.mul_(attention[block].unsqueeze(-1))
        grad_value.index_add_(0, source[block], received)

    if factor is not None:
        grad.mul_(factor)
    grad.sub_(_reduce(grad * weight, rowptr, "sum")[target]).mul_(weight)
    grad = torch.where(raw > 0, grad, grad * negative_slope)

    grad_source = torch.zeros(source_logit.shape, dtype=grad.dtype, device=grad.device)
    grad_source.index_add_(0, source, grad)
    grad_target = _reduce(grad, rowptr, "sum")
    grad_edge = value.new_empty(0)
    if edge_logit is not None:
        summed = grad.sum(1, keepdim=True) if edge_logit.size(1) == 1 else grad
        grad_edge = torch.empty(edge_logit.shape, dtype=edge_logit.dtype, device=value.device)
        grad_edge[permutation] = summed.to(edge_logit.dtype)
    return (
        grad_value.to(value.dtype),
        grad_source.to(source_logit.dtype),
        grad_target.to(target_logit.dtype),
        grad_edge,
    )


@_backward.register_fake
def _(
    grad_out: Tensor | None,
    grad_attention: Tensor | None,
    value: Tensor,
    source_logit: Tensor,
    target_logit: Tensor,
    edge_logit: Tensor | None,
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        value.new_empty(value.shape),
        source_logit.new_empty(source_logit.shape),
        target_logit.new_empty(target_logit.shape),
        value.new_empty(0) if edge_logit is None else edge_logit.new_empty(edge_logit.shape),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.negative_slope, ctx.scale, _ = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: Any, grad_out: Tensor | None, grad_attention: Tensor | None
) -> tuple[Tensor | None, ...]:
    if grad_attention is not None and grad_attention.numel() == 0:
        grad_attention = None
    grads = _backward(grad_out, grad_attention, *ctx.saved_tensors, ctx.negative_slope, ctx.scale)
    grad_edge = None if ctx.saved_tensors[3] is None else grads[3]
    return *grads[:3], grad_edge, *[None] * 8


_forward.register_autograd(_differentiate, setup_context=_setup_context)


def _wide(value: Tensor) -> torch.dtype:
    return torch.promote_types(value.dtype, torch.float32)


def _softmax(
    source_logit: Tensor,
    target_logit: Tensor,
    edge_logit: Tensor | None,
    edges: Neighborhood,
    negative_slope: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    r"""The logits before the LeakyReLU and the softmax over the edges of every target."""
    raw = source_logit.to(dtype).index_select(0, edges.source)
    raw += target_logit.to(dtype).index_select(0, edges.target)
    if edge_logit is not None:
        raw += edge_logit.index_select(0, edges.permutation)
    weight = F.leaky_relu(raw, negative_slope)
    highest = _reduce(weight, edges.rowptr, "max")
    weight -= highest.masked_fill_(highest == -torch.inf, 0)[edges.target]
    # exp2 is several times faster than exp on CPUs where the latter is left to MKL.
    weight.mul_(1 / math.log(2)).exp2_()
    total = _reduce(weight, edges.rowptr, "sum").clamp_(min=torch.finfo(dtype).tiny)
    return raw, weight.div_(total[edges.target])


def _reduce(x: Tensor, rowptr: Tensor, reduce: str) -> Tensor:
    r"""Reduces the edges of every target; without edges the sum is 0 and the maximum -inf."""
    initial = -torch.inf if reduce == "max" else 0.0
    flat = x.reshape(x.size(0), x.shape[1:].numel())
    out = torch.segment_reduce(flat, reduce, offsets=rowptr, axis=0, unsafe=True, initial=initial)
    return out.view(out.size(0), *x.shape[1:])


def _blocks(edges: Neighborhood, value: Tensor) -> Iterator[slice]:
    size = max(1, _BLOCK_ELEMENTS // max(1, value.shape[1:].numel()))
    for first in range(0, edges.source.numel(), size):
        yield slice(first, first + size)
