r"""Softmax attention in a memory that is linear in the number of queries, also with dropout."""

from __future__ import annotations

import importlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention_mask import AttentionMask
from .backend import Implementation, choose, no_reasons, reasons_against_compiled
from .blockwise_attention import blockwise_attention
from .torch_attention import torch_attention


def xformers_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: AttentionMask,
    dropout: float = 0.0,
    block_size: int = 128,
    *,
    implementation: str | None = None,
) -> Tensor:
    r"""Computes :func:`~pyg_stmamba.ops.explicit_attention.explicit_attention` by
    :obj:`xformers.ops.memory_efficient_attention` where xformers is installed and takes the
    tensors, and by :func:`~pyg_stmamba.ops.blockwise_attention.blockwise_attention` elsewhere.

    Memory is linear in the number of queries beyond what a mask given takes; time is not.

    Args:
        query (torch.Tensor): The queries.
        key (torch.Tensor): The keys.
        value (torch.Tensor): The values.
        mask (AttentionMask): What is hidden.
        dropout (float, optional): Dropout probability of the weights. (default: :obj:`0.0`)
        block_size (int, optional): Number of queries of a block, where blocks are made.
            (default: :obj:`128`)
        implementation (str, optional): The implementation to run; the best one for these tensors
            if not given. (default: :obj:`None`)

    Shapes:
        - **input:** queries :math:`(B, H, L, d)`, keys and values :math:`(B, H, S, d)`
        - **output:** :math:`(B, H, L, d)`

    Raises:
        ValueError: If the implementation is unknown or cannot run on these tensors.
    """
    arguments = (query, key, value, mask, dropout, block_size)
    return choose("xformers_attention", IMPLEMENTATIONS, implementation, *arguments).run(*arguments)


def _run_xformers(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: AttentionMask,
    dropout: float = 0.0,
    *others: Any,
) -> Tensor:
    ops = importlib.import_module("xformers.ops")
    bias, empty = None, None
    if mask.causal:
        # Its LowerTriangularMask is aligned top left.
        bias = importlib.import_module(
            "xformers.ops.fmha.attn_bias"
        ).LowerTriangularFromBottomRightMask()
    else:
        bias, empty = mask.bias(query.dtype, query.device)
        if bias is not None:
            # Each of its rows must begin at a multiple of sixteen bytes.
            aligned = F.pad(bias, (0, -mask.keys % 8))
            bias = aligned.expand(*query.shape[:3], -1)[..., : mask.keys]
    # It wants heads after steps.
    out = ops.memory_efficient_attention(
        *(x.transpose(1, 2) for x in (query, key, value)), attn_bias=bias, p=dropout
    ).transpose(1, 2)
    return out if empty is None else out.masked_fill(empty, 0.0)


def _reasons_against_xformers(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, *others: Any
) -> list[str]:
    reasons = reasons_against_compiled(
        (query, key, value), "xformers.ops", "memory_efficient_attention"
    )
    given = [part for part in (mask.pairs, mask.padding) if part is not None]
    if mask.causal and given:
        reasons.append("a causal mask would have to be written out beside the one given")
    if mask.causal and mask.length > mask.keys:
        reasons.append("it does not say what a query without keys gives")
    if any(part.requires_grad for part in given):
        reasons.append("it has no gradient for a mask that is the same for several heads")
    if query.size(-1) % 8 != 0:
        reasons.append(f"it needs heads of a multiple of 8 channels, these have {query.size(-1)}")
    return reasons


def _reasons_against_blockwise(*given: Any) -> list[str]:
    if torch.compiler.is_compiling():
        return ["torch.compile and torch.export cannot see into it"]
    return []


IMPLEMENTATIONS = (
    Implementation("xformers", _run_xformers, _reasons_against_xformers),
    Implementation("blockwise", blockwise_attention, _reasons_against_blockwise),
    Implementation("torch", torch_attention, no_reasons),
)


def example_inputs(device: str) -> tuple[Tensor, Tensor, Tensor, AttentionMask]:
    r"""Small inputs on which the implementations are asked whether they run on :obj:`device`."""
    query = torch.ones(1, 1, 2, 8, device=device)
    return query, query, query, AttentionMask(2, 2)
