"""A layer of ours as torch's."""

import torch
from torch import nn

from pyg_stmamba.nn.blocks.attention_layer import AttentionLayer


def randomized(module: nn.Module) -> nn.Module:
    """So that no bias is zero and no norm the identity."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module


def projections(attention: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of an attention, named as in `nn.MultiheadAttention`."""
    if hasattr(attention, "heads") and isinstance(attention.heads, nn.Module):
        heads = attention.heads
        parts = (heads.query_projection, heads.key_projection, heads.value_projection)
        weight = torch.cat([part.weight for part in parts])
        bias = torch.cat([part.bias for part in parts])
        out = heads.out_projection
    else:
        weight, bias, out = attention.in_proj.weight, attention.in_proj.bias, attention.out_proj
    return {
        "in_proj_weight": weight,
        "in_proj_bias": bias,
        "out_proj.weight": out.weight,
        "out_proj.bias": out.bias,
    }


def torch_layer(
    layer: AttentionLayer, heads: int, norm_first: bool = False
) -> nn.TransformerEncoderLayer:
    hidden, dim = layer.feed_forward.linear1.weight.shape
    other = nn.TransformerEncoderLayer(
        dim,
        heads,
        hidden,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=norm_first,
        dtype=layer.norm1.weight.dtype,
    )
    state = {f"self_attn.{name}": value for name, value in projections(layer.attention).items()}
    for ours, theirs in (
        ("norm1", "norm1"),
        ("norm2", "norm2"),
        ("feed_forward.linear1", "linear1"),
        ("feed_forward.linear2", "linear2"),
    ):
        for kind in ("weight", "bias"):
            state[f"{theirs}.{kind}"] = layer.get_parameter(f"{ours}.{kind}")
    other.load_state_dict(state)
    return other
