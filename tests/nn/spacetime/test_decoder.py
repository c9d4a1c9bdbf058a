import pytest
import torch
import torch.nn.functional as F

from pyg_stmamba.nn.spacetime import Decoder, DecoderLayer, Normalization
from tests.laws import close, copies_are_equal, same
from tests.nn.spacetime.oracles import (
    PairAttention,
    full_attention,
    groups,
    normalized,
    pairs,
    performer_attention,
    places,
    spread,
)

B, N, M, L, S, D, HEADS = 2, 3, 5, 7, 4, 8, 2
USE = ("local_self", "global_self", "local_cross", "global_cross")
TARGET = [4, 0, 0]

attentions = pytest.mark.parametrize("attention", [full_attention, performer_attention])


def layer(attention=full_attention, use=USE, target_index=TARGET, **options):
    parts = {name: attention(D, HEADS) for name in use}
    return DecoderLayer(D, N, M, **parts, target_index=target_index, d_ff=12, **options)


WINDOWS = [(2, False), (2, True)]  # of each layer: how many, and whether shifted


def decoder(attention=full_attention, norm=True, windows=2, **options):
    layers = [layer(attention, windows=windows), layer(attention, windows=windows, shifted=True)]
    return spread(Decoder(layers, Normalization(D) if norm else None, **options)).eval()


def composed(op, x, memory, windows, shifted, target, mask=None, memory_mask=None, causal=False):
    """One layer in torch's functions, attention by masks of pairs."""
    at, context = places(N, L), places(M, S)
    if mask is not None:
        x = torch.where(mask.unsqueeze(-1), 0.0, x)
    if memory_mask is not None:
        memory = torch.where(memory_mask.unsqueeze(-1), 0.0, memory)
    group = groups(L, windows, shifted)
    for name, keys, meets in (
        ("local_self", None, lambda i, t, j, s: i == j and (s <= t or not causal)),
        ("global_self", None, lambda i, t, j, s: group[t] == group[s] and (s <= t or not causal)),
        ("local_cross", memory, lambda i, t, j, s: target[i] == j),
        ("global_cross", memory, lambda i, t, j, s: True),
    ):
        phase = getattr(op, name)
        if phase is None:
            continue
        z = normalized(phase.norm, x)
        attend = PairAttention(phase.attention.attention, HEADS)
        if keys is None:
            x = x + attend(z, z, pairs(at, at, meets), mask)
        else:
            x = x + attend(z, keys, pairs(at, context, meets), memory_mask)
    z = normalized(op.norm, x)
    ff = op.feed_forward
    h = F.gelu(F.linear(z, ff.linear1.weight, ff.linear1.bias))
    return x + F.linear(h, ff.linear2.weight, ff.linear2.bias)


def inputs():
    value, space = torch.randn(2, B, N * L, D)
    return value, space, torch.randn(B, M * S, D)


@pytest.mark.parametrize("use", [(), *((name,) for name in USE), USE[:2], USE[2:], USE])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_layer_against_torch(use, causal, masked):
    op = spread(layer(use=use, windows=2, shifted=True)).eval()
    x, _, memory = inputs()
    masks = (None, None)
    if masked:
        masks = (torch.rand(B, N * L) > 0.6, torch.rand(B, M * S) > 0.6)
    real = ~masks[0] if masked else slice(None)
    expected = composed(op, x, memory, 2, True, TARGET, *masks, causal)
    close(op(x, memory, *masks, causal=causal)[0][real], expected[real], 1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_decoder_against_torch(causal, norm, masked):
    op = decoder(norm=norm)
    value, space, memory = inputs()
    masks = (None, None)
    if masked:
        masks = (torch.rand(B, N * L) > 0.6, torch.rand(B, M * S) > 0.6)
    y, weights = op(value, space, memory, *masks, causal=causal)
    assert weights is None
    x = value + space
    for inner, windows in zip(op.layers, WINDOWS, strict=True):
        x = composed(inner, x, memory, *windows, TARGET, *masks, causal)
    x = normalized(op.norm, x) if norm else x
    real = ~masks[0] if masked else slice(None)
    close(y[real], x[real], 1e-5)


def test_variables_and_context_of_the_same_index():
    op = spread(layer(target_index=None)).eval()
    x, _, memory = inputs()
    close(op(x, memory)[0], composed(op, x, memory, 1, False, [0, 1, 2]), 1e-5)


@attentions
@pytest.mark.parametrize("windows", [1, 2])
def test_no_later_token_of_any_variable_matters(attention, windows):
    """Exactly nothing, in gradients and in values."""
    op = decoder(attention, windows=windows)
    value, space, memory = inputs()
    for t in range(L):
        leaf = value.clone().requires_grad_()
        y = op(leaf, space, memory, causal=True)[0].unflatten(1, (N, L))
        y[:, :, t].square().sum().backward()
        grad = leaf.grad.unflatten(1, (N, L))
        assert (grad[:, :, t + 1 :] == 0).all()
        assert (grad[:, :, t] != 0).any(-1).all()

        later = value.unflatten(1, (N, L)).clone()
        later[:, :, t + 1 :] = 100.0 * torch.randn_like(later[:, :, t + 1 :])
        other = op(later.flatten(1, 2), space, memory, causal=True)[0].unflatten(1, (N, L))
        same(other[:, :, : t + 1], y.detach()[:, :, : t + 1])


@attentions
def test_all_earlier_tokens_of_all_variables_matter(attention):
    op = decoder(attention, windows=1)
    value, space, memory = inputs()
    for variable in range(N):
        leaf = value.clone().requires_grad_()
        y = op(leaf, space, memory, causal=True)[0].unflatten(1, (N, L))
        y[:, variable, -1].square().sum().backward()
        assert (leaf.grad != 0).any(-1).all()


@attentions
@torch.no_grad()
def test_padding_has_no_influence(attention):
    op = decoder(attention)
    value, space, memory = inputs()
    mask, memory_mask = torch.rand(B, N * L) > 0.5, torch.rand(B, M * S) > 0.5
    memory_mask[0, : 2 * S] = True  # whole context variables
    for causal in (False, True):
        y = op(value, space, memory, mask, memory_mask, causal)[0]
        for junk in (3.0, torch.nan, torch.inf):
            other = op(
                value.masked_fill(mask.unsqueeze(-1), junk),
                space,
                memory.masked_fill(memory_mask.unsqueeze(-1), junk),
                mask,
                memory_mask,
                causal,
            )[0]
            same(other[~mask], y[~mask])
        for masks in ((None, memory_mask), (mask, None)):
            assert not torch.equal(op(value, space, memory, *masks, causal)[0][~mask], y[~mask])


@attentions
def test_all_of_the_memory_may_be_padding(attention):
    op = decoder(attention)
    value, space, memory = (x.requires_grad_() for x in inputs())
    padding = torch.ones(B, M * S, dtype=torch.bool)
    op(value, space, memory, memory_padding_mask=padding)[0].square().sum().backward()
    assert (memory.grad == 0).all()
    assert value.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in op.parameters())


@attentions
@torch.no_grad()
def test_samples_are_independent(attention):
    op = decoder(attention)
    value, space, memory = inputs()
    y = op(value, space, memory)[0]
    for place in (0, 2):
        changed = [value.clone(), space, memory.clone()]
        changed[place][0] = 3.0 - 2.0 * changed[place][0]
        other = op(*changed)[0]
        same(other[1], y[1])
        assert not torch.equal(other[0], y[0])


@torch.no_grad()
def test_the_memory_may_have_any_length():
    op = decoder()
    value, space, _ = inputs()
    for length in (1, 2, 9):
        assert op(value, space, torch.randn(B, M * length, D))[0].shape == value.shape


def test_options_reach_the_parts():
    op = layer(normalization="rms", activation="relu", dropout_ff=0.1, dropout_attn=0.3)
    phases = [getattr(op, name) for name in USE]
    assert {part.norm.method for part in (*phases, op)} == {"rms"}
    assert {part.dropout.p for part in phases} == {0.3}
    assert op.feed_forward.dropout.p == 0.1
    assert type(op.feed_forward.activation).__name__ == "ReLU"
    assert op.feed_forward.linear1.out_features == 12


def test_weights():
    op = decoder()
    value, space, memory = inputs()
    weights = op(value, space, memory, output_attention=True)[1]
    for windows, of_layer in zip((2, 3), weights, strict=True):
        assert [list(weight.shape) for weight in of_layer] == [
            [N * B, HEADS, L, L],
            [B * windows, HEADS, N * 4, N * 4],
            [N * B, HEADS, L, S],
            [B, HEADS, N * L, M * S],
        ]
    assert layer(use=())(value, memory, output_attention=True)[1] == []


def test_dropout_of_each_embedding():
    op = Decoder([], dropout=0.5)
    one = torch.ones(B, N * 50, D)
    assert set(op(one, 10 * one, one)[0].unique().tolist()) == {0.0, 2.0, 20.0, 22.0}
    close(op.eval()(one, 10 * one, one)[0], 11 * one, 1e-6)


@attentions
def test_module_laws(attention):
    op = decoder(attention)
    given = inputs()
    copies_are_equal(op, lambda o: o(*given)[0])
    before = [x.clone() for x in given]
    op(*given, torch.rand(B, N * L) > 0.5, torch.rand(B, M * S) > 0.5, causal=True)
    for x, kept in zip(given, before):
        same(x, kept)
    y = op(*given)[0]
    op.reset_parameters()
    assert not torch.equal(op(*given)[0], y)
    assert (op.layers[0].local_cross.norm.norm.weight == 1).all()


def test_errors():
    x, _, memory = inputs()
    attention = full_attention(D, HEADS)
    with pytest.raises(ValueError, match=r"of 6 variables only 5.*target_index"):
        DecoderLayer(D, 6, M, local_cross=attention)
    DecoderLayer(D, 6, M, global_cross=attention)  # pairs nothing
    with pytest.raises(ValueError, match=r"3 indices from 0 to 4"):
        layer(target_index=[0, 1, 5])
    with pytest.raises(ValueError, match=r"D = 8\] of N = 3 variables.*\[2, 20, 8\]"):
        layer()(x[:, 1:], memory)
    with pytest.raises(ValueError, match=r"D = 8\] of N = 5 variables.*\[2, 19, 8\]"):
        layer()(x, memory[:, 1:])
    with pytest.raises(ValueError, match=r"True = padding.*\[2, 20\].*got \[2, 21\]"):
        layer()(x, memory, memory_padding_mask=torch.zeros(B, 21, dtype=torch.bool))
