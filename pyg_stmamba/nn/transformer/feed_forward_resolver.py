from __future__ import annotations

from torch import nn

from pyg_stmamba.nn.transformer.feed_forward import FeedForwardBlock

FEED_FORWARD = ("swiglu", "gelu", "relu", "silu", "moe")


def feed_forward_resolver(
    query: str | nn.Module | None,
    channels: int,
    dim_feedforward: int,
    dropout: float = 0.0,
    num_experts: int = 8,
    top_k: int = 2,
) -> nn.Module | None:
    r"""Builds the feed-forward network of a name; an instance and :obj:`None` pass through.

    Args:
        query (str or torch.nn.Module, optional): :obj:`"swiglu"`, :obj:`"gelu"`,
            :obj:`"relu"`, :obj:`"silu"`, :obj:`"moe"` for a mixture of gated experts, or an
            instance.
        channels (int): Size of each token, in and out.
        dim_feedforward (int): Size within.
        dropout (float, optional): Dropout probability within. (default: :obj:`0.0`)
        num_experts (int, optional): Number of experts. (default: :obj:`8`)
        top_k (int, optional): Number of experts of a token. (default: :obj:`2`)

    Raises:
        ValueError: If the name is unknown; the choices are listed.
    """
    if query is None or isinstance(query, nn.Module):
        return query
    if query not in FEED_FORWARD:
        raise ValueError(
            f"unknown feed-forward network {query!r}; choose one of {sorted(FEED_FORWARD)}, None, "
            f"or pass an instance"
        )
    gated = query in ("swiglu", "moe")
    return FeedForwardBlock(
        channels,
        dim_feedforward,
        dropout,
        activation="gelu" if gated else query,
        use_swiglu=gated,
        use_moe=query == "moe",
        num_experts=num_experts,
        top_k=top_k,
    )
