r"""Attention over the edges of a graph with additive logits."""

import importlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import (
    Implementation,
    check_devices,
    check_floating_point,
    choose,
    missing,
    no_reasons,
)
from .dropout_mask import dropout_mask
from .edge_attention import edge_attention
from .fused_attention import (
    fused_attention_on_cpu,
    fused_attention_on_gpu,
    reasons_against_fused_attention_on_cpu,
    reasons_against_fused_attention_on_gpu,
)
from .neighborhood import check_edge_index


def graph_attention(
    value: Tensor,
    source_logit: Tensor,
    target_logit: Tensor,
    edge_index: Tensor,
    edge_logit: Tensor | None = None,
    *,
    negative_slope: float = 0.2,
    dropout: float = 0.0,
    return_attention: bool = False,
    implementation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""The aggregation from the `"Graph Attention Networks" <https://arxiv.org/abs/1710.10903>`_
    paper, for any number of slices (instants, windows) over one graph.

    .. math::
        \alpha_{ij} &= \frac{\exp(\mathrm{LeakyReLU}(s_j + t_i + e_{ij}))}
        {\sum_{k \in \mathcal{N}(i)} \exp(\mathrm{LeakyReLU}(s_k + t_i + e_{ik}))}

        \mathbf{y}_i &= \sum_{j \in \mathcal{N}(i)} \alpha_{ij} \mathbf{v}_j

    A node without incoming edges (or whose edges all have the logit :math:`-\infty`) gets 0.

    Args:
        value (torch.Tensor): The values :math:`\mathbf{v}` of the sources, by head.
        source_logit (torch.Tensor): The logits :math:`s` of the sources.
        target_logit (torch.Tensor): The logits :math:`t` of the targets.
        edge_index (torch.Tensor): The edges, source to target.
        edge_logit (torch.Tensor, optional): The logits :math:`e` of the edges, the same for all
            slices or one per slice (its middle dimensions may be absent or of size 1, its heads
            of size 1). (default: :obj:`None`)
        negative_slope (float, optional): The negative slope of the LeakyReLU.
            (default: :obj:`0.2`)
        dropout (float, optional): The probability with which an attention weight is dropped.
            (default: :obj:`0.0`)
        return_attention (bool, optional): If set to :obj:`True`, also returns the attention
            weights :math:`\alpha`, after dropout. (default: :obj:`False`)
        implementation (str, optional): The implementation to run; the best one for these tensors
            if not given. (default: :obj:`None`)

    Shapes:
        - **input:** :obj:`value` :math:`(S, *, H, C)`, :obj:`source_logit` :math:`(S, *, H)`,
          :obj:`target_logit` :math:`(N, *, H)`, :obj:`edge_index` :math:`(2, |\mathcal{E}|)`,
          :obj:`edge_logit` :math:`(|\mathcal{E}|, *, H)`
        - **output:** :math:`(N, *, H, C)`, or
          :math:`((N, *, H, C), (|\mathcal{E}|, *, H))` if :obj:`return_attention` is set

    Raises:
        ValueError: If shapes do not fit each other, :obj:`edge_index` is not of dtype int64 or
            points outside the nodes, or the implementation is unknown or cannot run on these
            tensors.
    """
    _check(value, source_logit, target_logit, edge_index, edge_logit, dropout)
    middle, heads = value.shape[1:-2], value.size(-2)
    num_edges, slices = edge_index.size(1), middle.numel()
    if edge_logit is not None:
        static = edge_logit.dim() == 2 or edge_logit.shape[1:-1].numel() == 1
        if not static:
            edge_logit = edge_logit.expand(num_edges, *middle, heads)
        edge_logit = edge_logit.expand(*edge_logit.shape[:-1], heads)
        edge_logit = edge_logit.reshape(num_edges, 1 if static else slices, heads)
    keep, scale = None, 1.0
    if dropout > 0:
        keep, scale = dropout_mask(torch.Size((num_edges, slices, heads)), dropout, value.device)
    arguments = (
        value.reshape(value.size(0), slices, heads, value.size(-1)),
        source_logit.reshape(source_logit.size(0), slices, heads),
        target_logit.reshape(target_logit.size(0), slices, heads),
        edge_index,
        edge_logit,
        keep,
        negative_slope,
        scale,
        return_attention,
    )
    chosen = choose("graph_attention", IMPLEMENTATIONS, implementation, *arguments)
    out, attention = chosen.run(*arguments)
    out = out.reshape(target_logit.shape + value.shape[-1:])
    if not return_attention:
        return out
    return out, attention.reshape(num_edges, *middle, heads)


def graph_attention_reference(
    value: Tensor,
    source_logit: Tensor,
    target_logit: Tensor,
    edge_index: Tensor,
    edge_logit: Tensor | None = None,
    keep: Tensor | None = None,
    negative_slope: float = 0.2,
    scale: float = 1.0,
    return_attention: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""The sums of :func:`graph_attention`, with every message written out.

    The middle dimensions are one; :obj:`keep` (which attention weights survive dropout) and
    :obj:`scale` (by what they grow) are drawn by the caller, so that all implementations agree.
    """
    wide = torch.promote_types(value.dtype, torch.float32)
    source, target = edge_index
    logit = source_logit.to(wide)[source] + target_logit.to(wide)[target]
    if edge_logit is not None:
        logit = logit + edge_logit.to(wide)
    logit = F.leaky_relu(logit, negative_slope)

    index = target.view(-1, 1, 1).expand_as(logit)
    highest = torch.full_like(target_logit, -torch.inf, dtype=wide)
    highest = highest.scatter_reduce(0, index, logit.detach(), "amax")
    # Where all logits are -inf (or there is no edge) the weights are 0.
    weight = torch.exp(logit - highest.masked_fill(highest == -torch.inf, 0)[target])
    total = torch.zeros_like(highest).index_add(0, target, weight)
    attention = weight / total.masked_fill(total == 0, 1)[target]
    if keep is not None:
        attention = attention * keep * scale

    message = attention.unsqueeze(-1) * value.to(wide)[source]
    out = message.new_zeros(target_logit.shape + value.shape[-1:]).index_add(0, target, message)
    return out.to(value.dtype), attention.to(value.dtype)


def _run_torch_scatter(
    value: Tensor,
    source_logit: Tensor,
    target_logit: Tensor,
    edge_index: Tensor,
    edge_logit: Tensor | None = None,
    keep: Tensor | None = None,
    negative_slope: float = 0.2,
    scale: float = 1.0,
    return_attention: bool = False,
) -> tuple[Tensor, Tensor]:
    scatter = importlib.import_module("torch_scatter").scatter
    wide = torch.promote_types(value.dtype, torch.float32)
    num_targets = target_logit.size(0)
    source, target = edge_index
    logit = source_logit.to(wide)[source] + target_logit.to(wide)[target]
    if edge_logit is not None:
        logit = logit + edge_logit.to(wide)
    logit = F.leaky_relu(logit, negative_slope)

    highest = scatter(logit.detach(), target, dim=0, dim_size=num_targets, reduce="max")
    weight = torch.exp(logit - highest.masked_fill(highest == -torch.inf, 0)[target])
    total = scatter(weight, target, dim=0, dim_size=num_targets, reduce="sum")
    attention = weight / total.masked_fill(total == 0, 1)[target]
    if keep is not None:
        attention = attention * keep * scale

    message = attention.unsqueeze(-1) * value.to(wide)[source]
    out = scatter(message, target, dim=0, dim_size=num_targets, reduce="sum")
    return out.to(value.dtype), attention.to(value.dtype)


def _reasons_against_torch_scatter(value: Tensor, *others: Any) -> list[str]:
    if torch.compiler.is_compiling():
        return ["torch.compile and torch.export cannot see into it"]
    return missing("torch_scatter", "scatter")


IMPLEMENTATIONS = (
    Implementation("numba", fused_attention_on_cpu, reasons_against_fused_attention_on_cpu),
    Implementation("torch", edge_attention, no_reasons),
    # By name alone, as long as it has not been measured on a GPU.
    Implementation("triton", fused_attention_on_gpu, reasons_against_fused_attention_on_gpu),
    Implementation("torch_scatter", _run_torch_scatter, _reasons_against_torch_scatter),
    Implementation("reference", graph_attention_reference, no_reasons),
)


def example_inputs(device: str) -> tuple[Tensor, ...]:
    r"""Small inputs on which the implementations are asked whether they run on :obj:`device`."""
    value = torch.ones(2, 1, 1, 3, device=device)
    edge_index = torch.tensor([[0, 1], [1, 0]], device=device)
    return value, value[..., 0], value[..., 0], edge_index


def _check(
    value: Tensor,
    source_logit: Tensor,
    target_logit: Tensor,
    edge_index: Tensor,
    edge_logit: Tensor | None,
    dropout: float,
) -> None:
    logits = {"source_logit": source_logit, "target_logit": target_logit, "edge_logit": edge_logit}
    check_floating_point(value=value, **logits)
    check_devices(value=value, **logits, edge_index=edge_index)
    if value.dim() < 3:
        raise ValueError(f"value must be [S, ..., H, C], got {list(value.shape)}")
    for name, logit in (("source_logit", source_logit), ("target_logit", target_logit)):
        if logit.shape[1:] != value.shape[1:-1]:
            raise ValueError(
                f"{name} must be [nodes, *{list(value.shape[1:-1])}] beside value "
                f"{list(value.shape)}, got {list(logit.shape)}"
            )
    if source_logit.size(0) != value.size(0):
        raise ValueError(
            f"source_logit must have the {value.size(0)} nodes of value, got {source_logit.size(0)}"
        )
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout must be a probability between 0 and 1, got {dropout}")
    check_edge_index(edge_index, value.size(0), target_logit.size(0))
    if edge_logit is not None:
        _check_edge_logit(edge_logit, edge_index.size(1), value)


def _check_edge_logit(edge_logit: Tensor, num_edges: int, value: Tensor) -> None:
    full = (num_edges, *value.shape[1:-1])
    given = tuple(edge_logit.shape)
    if len(given) == 2:
        given = (given[0], *[1] * (len(full) - 2), given[1])
    fits = (
        len(given) == len(full)
        and given[0] == num_edges
        and all(size in (1, wanted) for size, wanted in zip(given[1:], full[1:]))
    )
    if not fits:
        raise ValueError(
            f"edge_logit must be {[num_edges, value.size(-2)]} or broadcast to {list(full)}, "
            f"got {list(edge_logit.shape)}"
        )
