r"""Softmax attention in the fastest way for the tensors at hand."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from .attention_mask import AttentionMask
from .backend import Implementation, choose, no_reasons, reasons_against_compiled
from .blockwise_attention import blockwise_attention
from .explicit_attention import explicit_attention
from .torch_attention import torch_attention

# Up to so many keys a CPU takes plain products, which are faster there than the fused attention,
FEW = 64
# and with dropout up to so many, which are faster than computing the weights twice.
FEW_WITH_DROPOUT = 256


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: AttentionMask,
    dropout: float = 0.0,
    block_size: int = 128,
    *,
    implementation: str | None = None,
) -> Tensor:
    r"""Computes :func:`~pyg_stmamba.ops.explicit_attention.explicit_attention` by the kernels of
    `"FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning"
    <https://arxiv.org/abs/2307.08691>`_ where flash-attn is installed and takes the tensors, and
    elsewhere by what is fastest.

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
    return choose("flash_attention", IMPLEMENTATIONS, implementation, *arguments).run(*arguments)


def _run_flash_attn(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: AttentionMask,
    dropout: float = 0.0,
    *others: Any,
) -> Tensor:
    flash_attn_func = importlib.import_module("flash_attn").flash_attn_func
    # It wants heads after steps, and since 2.1 aligns causality bottom right as we do.
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    return flash_attn_func(query, key, value, dropout_p=dropout, causal=mask.causal).transpose(1, 2)


def _reasons_against_flash_attn(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, *others: Any
) -> list[str]:
    reasons = reasons_against_compiled((query, key, value), "flash_attn", "flash_attn_func")
    if query.dtype not in (torch.float16, torch.bfloat16):
        reasons.append(f"it takes float16 and bfloat16, these are {query.dtype}")
    if not mask.is_bare:
        reasons.append("it takes no mask but the causal one")
    if query.size(-1) > 256:
        reasons.append(f"it takes heads of up to 256 channels, these have {query.size(-1)}")
    if query.is_cuda and torch.cuda.is_available():
        capability = torch.cuda.get_device_capability(query.device)
        if capability < (8, 0):
            reasons.append(f"it needs a GPU of compute capability 8.0, this one has {capability}")
    return reasons


def _run_explicit(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: AttentionMask,
    dropout: float = 0.0,
    *others: Any,
) -> Tensor:
    return explicit_attention(query, key, value, mask, dropout)[0]


def _reasons_against_explicit(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: AttentionMask,
    dropout: float = 0.0,
    *others: Any,
) -> list[str]:
    few, longest = FEW_WITH_DROPOUT if dropout > 0 else FEW, max(mask.length, mask.keys)
    if query.device.type == "cpu" and longest <= few:
        return []
    return [f"it is for a CPU and up to {few} steps, here are {longest} on {query.device}"]


def _reasons_against_torch(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: AttentionMask,
    dropout: float = 0.0,
    *others: Any,
) -> list[str]:
    if query.device.type == "cpu" and dropout > 0 and not torch.compiler.is_compiling():
        return ["on a CPU its memory is quadratic with dropout"]
    return []


IMPLEMENTATIONS = (
    Implementation("flash_attn", _run_flash_attn, _reasons_against_flash_attn),
    Implementation("explicit", _run_explicit, _reasons_against_explicit),
    Implementation("torch", torch_attention, _reasons_against_torch),
    Implementation("blockwise", blockwise_attention, no_reasons),
)


def example_inputs(device: str) -> tuple[Tensor, Tensor, Tensor, AttentionMask]:
    r"""Small inputs on which the implementations are asked whether they run on :obj:`device`."""
    query = torch.ones(1, 1, 2, 8, device=device)
    return query, query, query, AttentionMask(2, 2)
