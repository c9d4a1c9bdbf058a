import copy

import pytest
import torch
import torch.nn.functional as F

from pyg_stmamba.nn.spacetime import ConvBlock, Encoder, EncoderLayer, Normalization
from tests.laws import close, copies_are_equal, same
from tests.nn.spacetime.oracles import (
    PairAttention,
    conv_block,
    full_attention,
    groups,
    normalized,
    pairs,
    performer_attention,
    places,
    shortened,
    spread,
)

B, N, L, D, HEADS = 2, 3, 7, 8, 2

attentions = pytest.mark.parametrize("attention", [full_attention, performer_attention])


def layer(attention=full_attention, use=("global", "local"), **options):
    parts = {f"{name}_attention": attention(D, HEADS) for name in use}
    return EncoderLayer(D, N, **parts, d_ff=12, **options)


WINDOWS = [(2, False), (2, True), (1, True)]  # of each layer: how many, and whether shifted


def encoder(attention=full_attention, convs=2, norm=True, **options):
    layers = [layer(attention, windows=number, shifted=shifted) for number, shifted in WINDOWS]
    convolutions = [ConvBlock(N, D) for _ in range(convs)]
    norm_layer = Normalization(D) if norm else None
    return spread(Encoder(layers, convolutions, norm_layer, **options)).eval()


def composed(op, x, windows, shifted, mask=None):
    """One layer in torch's functions, attention by masks of pairs."""
    length = x.size(1) // N
    at = places(N, length)
    if mask is not None:
        x = torch.where(mask.unsqueeze(-1), 0.0, x)
    if op.local_attention is not None:
        z = normalized(op.local_attention.norm, x)
        allowed = pairs(at, at, lambda i, t, j, s: i == j)
        inner = op.local_attention.attention.attention
        x = x + PairAttention(inner, HEADS)(z, z, allowed, mask)
    if op.global_attention is not None:
        z = normalized(op.global_attention.norm, x)
        group = groups(length, windows, shifted)
        allowed = pairs(at, at, lambda i, t, j, s: group[t] == group[s])
        inner = op.global_attention.attention.attention
        x = x + PairAttention(inner, HEADS)(z, z, allowed, mask)
    z = normalized(op.norm, x)
    ff = op.feed_forward
    h = F.gelu(F.linear(z, ff.linear1.weight, ff.linear1.bias))
    return x + F.linear(h, ff.linear2.weight, ff.linear2.bias)


@pytest.mark.parametrize("use", [(), ("global",), ("local",), ("local", "global")])
@pytest.mark.parametrize("masked", [False, True])
def test_layer_against_torch(use, masked):
    op = spread(layer(use=use, windows=2, shifted=True)).eval()
    x = torch.randn(B, N * L, D)
    mask = torch.rand(B, N * L) > 0.6 if masked else None
    real = slice(None) if mask is None else ~mask
    close(op(x, mask)[0][real], composed(op, x, 2, True, mask)[real], 1e-5)


@pytest.mark.parametrize("convs", [0, 1, 3])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_encoder_against_torch(convs, norm, masked):
    op = encoder(convs=convs, norm=norm)
    value, space = torch.randn(2, B, N * L, D)
    mask = torch.rand(B, N * L) > 0.7 if masked else None
    y, padding, weights = op(value, space, mask)
    assert weights is None

    x = value + space
    for i, inner in enumerate(op.layers):
        x = composed(inner, x, *WINDOWS[i], mask)
        if i < convs:
            x = conv_block(op.conv_layers[i], x, N, mask)
            mask = None if mask is None else shortened(mask, N)
    x = normalized(op.norm, x) if norm else x
    if mask is None:
        assert padding is None
        close(y, x, 1e-5)
    else:
        same(padding, mask)
        close(y[~mask], x[~mask], 1e-5)


@pytest.mark.parametrize("normalization", ["batchnorm", "scale", "rms", "none"])
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_options_reach_the_parts(normalization, activation):
    op = layer(normalization=normalization, activation=activation, dropout_ff=0.1, dropout_attn=0.3)
    phases = (op.local_attention, op.global_attention)
    assert {part.norm.method for part in (*phases, op)} == {normalization}
    assert [part.dropout.p for part in phases] == [0.3, 0.3]
    assert op.feed_forward.dropout.p == 0.1
    assert type(op.feed_forward.activation).__name__.lower() == activation
    assert op.feed_forward.linear1.out_features == 12
    assert op(torch.randn(B, N * L, D))[0].isfinite().all()


@attentions
@torch.no_grad()
def test_padding_has_no_influence(attention):
    op = encoder(attention, convs=1)
    value, space = torch.randn(2, B, N * L, D)
    mask = torch.rand(B, N * L) > 0.5
    mask[0, :L] = True  # a whole variable
    y, padding, _ = op(value, space, mask)
    for junk in (3.0, torch.nan, torch.inf):
        other = op(value.masked_fill(mask.unsqueeze(-1), junk), space, mask)[0]
        same(other[~padding], y[~padding])
    other = op(value, space)[0]
    assert not torch.equal(other[~padding], y[~padding])

    one = layer(attention, windows=2, shifted=True).eval()
    junk = value.masked_fill(mask.unsqueeze(-1), torch.nan)
    same(one(junk, mask)[0], one(value, mask)[0])


@attentions
def test_gradients_pass_by_padding(attention):
    op = encoder(attention, convs=1)
    value = torch.randn(B, N * L, D, requires_grad=True)
    mask = torch.rand(B, N * L) > 0.5
    mask[0] = True
    y, padding, _ = op(value, torch.zeros(()), mask)
    y[~padding].square().sum().backward()
    assert (value.grad[mask] == 0).all()
    assert (value.grad[~mask] != 0).any(-1).all()
    assert all(parameter.grad.isfinite().all() for parameter in op.parameters())


@attentions
@torch.no_grad()
def test_samples_are_independent(attention):
    op = encoder(attention)
    value, space = torch.randn(2, B, N * L, D)
    other = value.clone()
    other[0] = 3.0 - 2.0 * other[0]
    same(op(other, space)[0][1], op(value, space)[0][1])
    assert not torch.equal(op(other, space)[0][0], op(value, space)[0][0])
    close(op(value[1:], space[1:])[0], op(value, space)[0][1:], 1e-5)


@torch.no_grad()
def test_who_sees_whom():
    """Local attention keeps variables apart, windows keep times apart."""
    x = torch.randn(1, N * L, D)
    at = places(N, L)
    group = groups(L, 2, True)
    for use, meets in (
        ((), lambda i, t, j, s: (i, t) == (j, s)),
        (("local",), lambda i, t, j, s: i == j),
        (("global",), lambda i, t, j, s: group[t] == group[s]),
    ):
        op = layer(use=use, windows=2, shifted=True).eval()
        y = op(x)[0]
        moved = []
        for token in range(N * L):
            other = x.clone()
            other[0, token] = torch.randn(D)
            moved.append((op(other)[0] != y)[0].any(-1))
        same(torch.stack(moved, 1), pairs(at, at, meets))


def test_weights():
    op = encoder(convs=1)
    value, space = torch.randn(2, B, N * L, D)
    weights = op(value, space, output_attention=True)[2]
    shapes = [[list(weight.shape) for weight in of_layer] for of_layer in weights]
    short = (L + 1) // 2
    assert shapes == [
        [[N * B, HEADS, L, L], [B * 2, HEADS, N * 4, N * 4]],
        [[N * B, HEADS, short, short], [B * 3, HEADS, N * 2, N * 2]],
        [[N * B, HEADS, short, short], [B, HEADS, N * short, N * short]],
    ]
    assert layer(use=())(value, output_attention=True)[1] == []


def test_dropout_of_each_embedding():
    op = Encoder([], dropout=0.5)
    one = torch.ones(B, N * 50, D)
    assert set(op(one, 10 * one)[0].unique().tolist()) == {0.0, 2.0, 20.0, 22.0}
    close(op.eval()(one, 10 * one)[0], 11 * one, 1e-6)


@attentions
def test_module_laws(attention):
    op = encoder(attention)
    value, space = torch.randn(2, B, N * L, D)
    copies_are_equal(op, lambda o: o(value, space)[0])
    before = [value.clone(), space.clone()]
    op(value, space, torch.rand(B, N * L) > 0.5)
    same(value, before[0])
    same(space, before[1])
    y = op(value, space)[0]
    op.reset_parameters()
    assert not torch.equal(op(value, space)[0], y)
    assert (op.layers[0].local_attention.norm.norm.weight == 1).all()


@attentions
@torch.no_grad()
def test_precisions(attention):
    op = encoder(attention)
    value, space = torch.randn(2, B, N * L, D)
    mask = torch.rand(B, N * L) > 0.5
    y, padding, _ = op(value, space, mask)
    with torch.autocast("cpu", torch.bfloat16):
        close(op(value, space, mask)[0][~padding].float(), y[~padding], 0.1)
    wide = copy.deepcopy(op).double()(value.double(), space.double(), mask)[0]
    assert wide.dtype == torch.float64
    close(wide[~padding].float(), y[~padding], 1e-5)


def test_time_may_be_short():
    op = encoder(convs=3)
    for length in (1, 2, 3):
        value, space = torch.randn(2, B, N * length, D)
        assert op(value, space)[0].shape == (B, N, D)


def test_errors():
    with pytest.raises(ValueError, match="2 convolutions and 1 layers"):
        Encoder([layer()], [ConvBlock(N, D), ConvBlock(N, D)])
    with pytest.raises(ValueError, match=r"D = 8\] of N = 3 variables.*\[2, 20, 8\]"):
        layer()(torch.randn(B, 20, D))
    with pytest.raises(ValueError, match=r"D = 8\].*\[2, 21, 9\]"):
        layer()(torch.randn(B, 21, 9))
    with pytest.raises(ValueError, match=r"True = padding.*\[2, 21\].*got \[2, 7\]"):
        layer()(torch.randn(B, 21, D), torch.zeros(B, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match="'adaptive'"):
        layer(normalization="adaptive")
