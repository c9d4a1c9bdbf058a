import copy

import pytest
import torch
from torch import nn

from pyg_stmamba.nn import (
    AttentionClass,
    FullAttention,
    PerformerAttention,
    create_full_attention,
    create_performer_attention,
)
from tests.laws import close

MODEL, HEADS = 12, 3


def multihead(op: AttentionClass) -> nn.MultiheadAttention:
    other = nn.MultiheadAttention(MODEL, HEADS, batch_first=True)
    projections = (op.query_projection, op.key_projection, op.value_projection)
    other.load_state_dict(
        {
            "in_proj_weight": torch.cat([x.weight for x in projections]),
            "in_proj_bias": torch.cat([x.bias for x in projections]),
            "out_proj.weight": op.out_projection.weight,
            "out_proj.bias": op.out_projection.bias,
        }
    )
    return other


@pytest.mark.parametrize("masked", [None, "keys", "pairs"])
@pytest.mark.parametrize("causal", [True, False])
def test_against_torch(causal, masked):
    op = create_full_attention(MODEL, 4, 4, HEADS, causal=causal)
    other = multihead(op)
    query, key, value = (torch.randn(2, 7, MODEL, requires_grad=True) for _ in range(3))
    future = torch.ones(7, 7, dtype=torch.bool).triu(1) if causal else None
    mask, given = None, {"attn_mask": future}
    if masked == "keys":
        mask = torch.rand(2, 7) > 0.6
        mask[:, 0] = False  # torch gives NaN where a query sees nothing
        given["key_padding_mask"] = mask
    elif masked == "pairs":
        mask = torch.rand(2, 7, 7) > 0.6
        mask[..., 0] = False
        both = mask if future is None else mask | future
        given["attn_mask"] = both.repeat_interleave(HEADS, 0)
    right, right_weights = other(query, key, value, average_attn_weights=False, **given)
    y, weights = op(query, key, value, mask, output_attention=True)
    close(y, right, 1e-6)
    close(weights, right_weights, 1e-6)
    for a, b in zip(*(torch.autograd.grad(x.sin().sum(), (query, key, value)) for x in (y, right))):
        close(a, b, 1e-6)


def test_times_against_torch():
    op = create_full_attention(MODEL, 4, 4, HEADS, causal=True)
    x, time = torch.randn(2, 7, MODEL), torch.tensor([3, 0, 1, 1, 5, 0, 3])
    later = time > time.unsqueeze(-1)
    right, _ = multihead(op)(x, x, x, attn_mask=later)
    close(op(x, x, x, time_index=time)[0], right, 1e-6)


def test_sizes_of_heads_are_free():
    op = create_performer_attention(MODEL, 5, 2, HEADS)
    query, key = torch.randn(2, 4, MODEL), torch.randn(2, 9, MODEL)
    y, weights = op(query, key, key, torch.zeros(2, 9, dtype=torch.bool), output_attention=True)
    assert y.shape == (2, 4, MODEL)
    assert weights.shape == (2, HEADS, 4, 9)
    assert op.value_projection.out_features == 6
    assert op.attention.dim_heads == 5


def test_performer_with_many_features_comes_close_to_full_attention():
    full = create_full_attention(MODEL, 4, 4, HEADS, causal=True)
    near = AttentionClass(MODEL, 4, 4, HEADS, 0.0, PerformerAttention(4, 8192, causal=True))
    missing = near.load_state_dict(full.state_dict(), strict=False).missing_keys
    assert all(name.startswith("attention.") for name in missing)
    x, mask = torch.randn(2, 30, MODEL), torch.rand(2, 30) > 0.7
    for time in (None, torch.arange(30) // 4):
        (y, weights), (right, right_weights) = (
            op(x, x, x, mask, output_attention=True, time_index=time) for op in (near, full)
        )
        assert (y - right).norm() < 0.05 * right.norm()
        assert (weights - right_weights).norm() < 0.1 * right_weights.norm()


def test_dropout_of_what_was_projected():
    for create in (create_full_attention, create_performer_attention):
        op = create(MODEL, 4, 4, HEADS, dropout_qkv=0.5)
        x = torch.randn(2, 5, MODEL)
        assert not torch.equal(op(x, x, x)[0], op(x, x, x)[0])
        op.eval()
        assert torch.equal(op(x, x, x)[0], op(x, x, x)[0])
        assert op.dropout.p == 0.5


def test_all_dropped_leaves_the_bias():
    op = create_full_attention(MODEL, 4, 4, HEADS, dropout_qkv=1.0)
    x = torch.randn(2, 5, MODEL)
    y, weights = op(x, x, x, output_attention=True)
    close(y, op.out_projection.bias.expand(2, 5, MODEL), 1e-6)
    close(weights, torch.full((2, HEADS, 5, 5), 0.2), 1e-6)


def test_an_attention_or_what_builds_one():
    op = AttentionClass(MODEL, 4, 4, HEADS, 0.0, FullAttention)
    assert isinstance(op.attention, FullAttention)
    attention = FullAttention(causal=True)
    assert AttentionClass(MODEL, 4, 4, HEADS, 0.0, attention).attention is attention


def test_options_reach_the_attention():
    op = create_performer_attention(
        MODEL,
        5,
        4,
        HEADS,
        performer_attention_kernel="relu",
        redraw_interval=7,
        causal=True,
        nb_features=9,
        qk_norm=True,
    ).attention
    assert (op.kernel, op.redraw_interval, op.causal) == ("relu", 7, True)
    assert (op.dim_heads, op.nb_features, op.qk_norm) == (5, 9, True)
    op = create_full_attention(MODEL, 4, 4, HEADS, dropout=0.25, causal=True).attention
    assert (op.dropout, op.causal) == (0.25, True)
    with pytest.raises(ValueError, match="kernel='gauss' is unknown"):
        create_performer_attention(MODEL, 4, 4, HEADS, performer_attention_kernel="gauss")


def test_reset_parameters():
    op = create_performer_attention(MODEL, 4, 4, HEADS)
    before = copy.deepcopy(op)
    op.reset_parameters()
    for (name, new), old in zip(op.named_parameters(), before.parameters(), strict=True):
        assert not torch.equal(new, old), name
    assert not torch.equal(op.attention.projection, before.attention.projection)
    create_full_attention(MODEL, 4, 4, HEADS).reset_parameters()


def test_repr():
    expected = "AttentionClass(12, n_heads=3, attention=FullAttention(causal=False, dropout=0.0))"
    assert str(create_full_attention(MODEL, 4, 4, HEADS)) == expected
