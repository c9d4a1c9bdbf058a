"""The same computations token by token, or in the functions of torch."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from pyg_stmamba.nn.full_attention import FullAttention
from pyg_stmamba.nn.multi_head_attention import AttentionClass
from pyg_stmamba.nn.performer_attention import PerformerAttention


class PairAttention(nn.Module):
    """Multi-head softmax attention of torch under a mask of pairs, with the weights of another."""

    def __init__(self, attention, heads):
        super().__init__()
        parts = [getattr(attention, f"{name}_projection") for name in ("query", "key", "value")]
        self.of = nn.MultiheadAttention(parts[0].in_features, heads, batch_first=True)
        self.of.load_state_dict(
            {
                "in_proj_weight": torch.cat([part.weight for part in parts]),
                "in_proj_bias": torch.cat([part.bias for part in parts]),
                "out_proj.weight": attention.out_projection.weight,
                "out_proj.bias": attention.out_projection.bias,
            }
        )
        self.eval()

    def forward(self, query, key, allowed, padding_mask=None):
        forbidden = ~allowed.expand(len(query), -1, -1)
        if padding_mask is not None:
            forbidden = forbidden | padding_mask[:, None]
        forbidden = forbidden.repeat_interleave(self.of.num_heads, 0)
        return self.of(query, key, key, attn_mask=forbidden, need_weights=False)[0]


def groups(length, windows, shifted):
    """Which steps meet: Swin's roll by half a window, its windows, and its mask, step by step."""
    width = math.ceil(length / windows)
    shift = width // 2 if shifted and windows > 1 else 0
    group = {}
    for rolled in range(width * windows):
        step = (rolled + shift) % (width * windows)
        was_wrapped = rolled + shift >= width * windows
        group[step] = (rolled // width, was_wrapped)
    return [group[step] for step in range(length)]


def places(variables, length):
    return [(variable, step) for variable in range(variables) for step in range(length)]


def pairs(queries, keys, meets):
    """Which query sees which key, by a rule on (variable, step) of both."""
    return torch.tensor([[meets(*query, *key) for key in keys] for query in queries])


def conv_block(conv, x, variables, mask=None):
    """Each variable by itself, in torch's functions."""
    if mask is not None:
        x = torch.where(mask.unsqueeze(-1), 0.0, x)
    outputs = []
    for series in x.unflatten(1, (variables, -1)).unbind(1):
        padded = torch.cat([series[:, -1:], series, series[:, :1]], 1).transpose(1, 2)
        h = F.conv1d(padded, conv.conv.weight, conv.conv.bias)
        norm = conv.norm
        h = F.batch_norm(h, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        outputs.append(F.max_pool1d(F.gelu(h), 3, 2, 1).transpose(1, 2))
    return torch.cat(outputs, 1)


def shortened(mask, variables):
    """The padding mask of a ConvBlock's output, token by token."""
    rows = []
    for row in mask.tolist():
        length = len(row) // variables
        short = []
        for variable in range(variables):
            series = row[variable * length : (variable + 1) * length]
            for center in range(0, length, 2):
                pooled = [t for t in (center - 1, center, center + 1) if 0 <= t < length]
                seen = {(t + d) % length for t in pooled for d in (-1, 0, 1)}
                short.append(all(series[t] for t in seen))
        rows.append(short)
    return torch.tensor(rows)


def spread(module):
    """Parameters and running statistics at random, so that no scale is 1 and no offset is 0."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() <= 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.3)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
    return module


def full_attention(d_model, heads):
    attention = FullAttention()
    return AttentionClass(d_model, d_model // heads, d_model // heads, heads, 0.0, attention)


def performer_attention(d_model, heads):
    attention = PerformerAttention(d_model // heads, nb_features=16)
    return AttentionClass(d_model, d_model // heads, d_model // heads, heads, 0.0, attention)


def normalized(normalization, x):
    norm = normalization.norm
    return F.layer_norm(x, (x.size(-1),), norm.weight, norm.bias)
