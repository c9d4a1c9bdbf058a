import pytest
import torch
from torch import nn

from pyg_stmamba.nn.blocks.attention_layer import AttentionLayer
from pyg_stmamba.nn.temporal.attention import TemporalAttention
from tests.laws import close, copies_are_equal, inputs_stay_untouched
from tests.nn.encoder_layer_oracle import randomized, torch_layer

B, T, D, HEADS = 3, 5, 8, 2


def layer(**options) -> AttentionLayer:
    attention = TemporalAttention(D, HEADS, causal=False, position=None)
    return randomized(AttentionLayer(attention, D, **options))


@pytest.mark.parametrize("norm_first", [False, True])
def test_against_torch(norm_first):
    op = layer(norm_first=norm_first, mlp_ratio=1.5)
    other = torch_layer(op, HEADS, norm_first)
    assert op.feed_forward.linear1.out_features == 12
    x = torch.randn(B, T, D, requires_grad=True)
    x2 = x.detach().clone().requires_grad_()
    y, expected = op(x), other(x2)
    close(y, expected, 1e-6)
    weight = torch.randn_like(y)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    close(x.grad, x2.grad, 1e-5)
    linear = op.feed_forward.linear1
    close(linear.weight.grad, other.linear1.weight.grad, 1e-5)


def test_what_else_is_given_reaches_the_attention():
    op = layer()
    x, mask = torch.randn(B, T, D), torch.rand(B, T) > 0.4
    mask[:, 0] = True
    expected = torch_layer(op, HEADS)(x, src_key_padding_mask=~mask)
    close(op(x, mask)[mask], expected[mask], 1e-6)


class Ones(nn.Module):
    def forward(self, x):
        return torch.ones_like(x)


def test_dropout_of_what_the_attention_adds():
    """One becomes zero or two."""
    op = AttentionLayer(Ones(), D, dropout=0.5, norm_first=True)
    with torch.no_grad():
        op.feed_forward.linear2.weight.zero_()
        op.feed_forward.linear2.bias.zero_()
    x = torch.zeros(B, 100, D)
    assert set(op(x).unique().tolist()) == {0.0, 2.0}
    assert set(op.eval()(x).unique().tolist()) == {1.0}


def test_dropout_of_the_feed_forward():
    op = AttentionLayer(Ones(), D, dropout=0.25)
    assert op.feed_forward.dropout.p == 0.25


def test_module_laws():
    op, x = layer(), torch.randn(B, T, D)
    copies_are_equal(op, lambda o: o(x))
    inputs_stay_untouched(op, x)
    before = op.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    op.reset_parameters()
    assert not any(torch.equal(value, before[name]) for name, value in op.state_dict().items())
