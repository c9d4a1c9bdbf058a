import pytest
import torch
from torch import nn

from pyg_stmamba.nn.transformer import TransformerEncoderLayer
from tests.nn.transformer.conftest import HEADS, INNER, D, randomized, weights_of_torch

B, L = 4, 6
PADDING = torch.arange(L) >= torch.tensor([[6], [4], [5], [3]])


def pair(norm_strategy, activation="gelu", **options):
    theirs = nn.TransformerEncoderLayer(
        D,
        HEADS,
        INNER,
        dropout=0.0,
        activation=activation,
        batch_first=True,
        norm_first=norm_strategy == "pre_norm",
        dtype=torch.float64,
    )
    randomized(theirs)
    ours = TransformerEncoderLayer(
        D,
        HEADS,
        INNER,
        dropout=0.0,
        activation=activation,
        norm_strategy=norm_strategy,
        use_swiglu=False,
        **options,
    ).double()
    ours.load_state_dict(weights_of_torch(theirs))
    return ours, theirs


def masks(causal):
    bias = torch.randn(L, L, dtype=torch.float64)
    return {
        "none": (None, None),
        "boolean": (causal, None),
        "float": (bias, None),
        "one for each row and head": (torch.randn(B * HEADS, L, L, dtype=torch.float64), None),
        "padding": (None, PADDING),
        "boolean, padding": (causal, PADDING),
        "float, padding": (bias, torch.zeros(B, L).double().masked_fill(PADDING, -torch.inf)),
    }


@pytest.mark.parametrize("norm_strategy", ["pre_norm", "post_norm"])
@pytest.mark.parametrize("att_type", ["standard", "xformer", "flash"])
def test_is_the_layer_of_torch(norm_strategy, att_type, causal):
    ours, theirs = pair(norm_strategy, att_type=att_type)
    for name, (mask, padding) in masks(causal).items():
        x = torch.randn(B, L, D, dtype=torch.float64)
        there = torch.ones(B, L, 1) if padding is None else (~PADDING).unsqueeze(-1)
        results = []
        for layer in (ours, theirs):
            leaf = x.clone().requires_grad_()
            layer.zero_grad()
            y = layer(leaf, mask, padding)
            y = (y[0] if isinstance(y, tuple) else y) * there  # what padding gives is no matter
            y.square().sum().backward()
            results.append((y, leaf.grad))
        grads = {name: parameter.grad for name, parameter in ours.named_parameters()}
        expected = weights_of_torch_grads(theirs)
        torch.testing.assert_close(*results, atol=1e-9, rtol=1e-9, msg=name)
        torch.testing.assert_close(grads, expected, atol=1e-9, rtol=1e-9, msg=name)


def weights_of_torch_grads(theirs):
    grads = nn.TransformerEncoderLayer(D, HEADS, INNER, dtype=torch.float64)
    for target, source in zip(grads.parameters(), theirs.parameters()):
        target.data = source.grad
    return weights_of_torch(grads)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_activation(activation):
    ours, theirs = pair("post_norm", activation)
    x = torch.randn(B, L, D, dtype=torch.float64)
    torch.testing.assert_close(ours(x)[0], theirs(x), atol=1e-10, rtol=0)


def test_auxiliary_loss_is_that_of_the_experts():
    x = torch.randn(B, L, D)
    dense = TransformerEncoderLayer(D, HEADS, INNER)
    assert dense(x)[1] == 0
    layer = TransformerEncoderLayer(D, HEADS, INNER, dropout=0.0, use_moe=True, num_experts=4)
    _, aux_loss = layer(x)
    h = layer.self_attn_phase.leave(x, layer.self_attn(layer.self_attn_phase.enter(x))[0])
    _, expected = layer.feed_forward(layer.feed_forward_phase.enter(h))
    assert aux_loss > 0
    torch.testing.assert_close(aux_loss, expected)


@pytest.mark.parametrize("floating", [False, True])
def test_padding_is_not_counted_by_the_experts(floating):
    layer = TransformerEncoderLayer(D, HEADS, INNER, dropout=0.0, use_moe=True, num_experts=4)
    x = torch.randn(1, L, D)
    padding = torch.arange(L)[None] >= 4
    mask = torch.zeros(1, L).masked_fill(padding, -torch.inf) if floating else padding
    y, aux_loss = layer(x, None, mask)
    short, of_short = layer(x[:, :4])
    torch.testing.assert_close(y[:, :4], short, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(aux_loss, of_short)


def test_condition_reaches_both_norms():
    layer = TransformerEncoderLayer(D, HEADS, INNER, use_adaptive_ln="adaptive", cond_dim=3).eval()
    x, cond = torch.randn(B, L, D), torch.randn(B, 3)
    for phase in (layer.self_attn_phase, layer.feed_forward_phase):
        before, _ = layer(x, cond=cond)
        randomized(phase.norm)
        assert not torch.allclose(layer(x, cond=cond)[0], before)
    each = torch.cat([layer(x[i : i + 1], cond=cond[i : i + 1])[0] for i in range(B)])
    torch.testing.assert_close(layer(x, cond=cond)[0], each)
