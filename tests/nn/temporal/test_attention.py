import numpy as np
import pytest
import torch
from torch import nn

from pyg_stmamba.nn import TemporalAttention
from pyg_stmamba.nn.softmax_attention import softmax_attention
from pyg_stmamba.nn.temporal import attention as module
from tests.laws import close

C, HEADS = 12, 3


def multihead(op: TemporalAttention) -> nn.MultiheadAttention:
    other = nn.MultiheadAttention(op.channels, op.heads, batch_first=True)
    other.load_state_dict(
        {
            "in_proj_weight": op.in_proj.weight,
            "in_proj_bias": op.in_proj.bias,
            "out_proj.weight": op.out_proj.weight,
            "out_proj.bias": op.out_proj.bias,
        }
    )
    return other


def randomized(**options) -> TemporalAttention:
    op = TemporalAttention(C, HEADS, **options)
    with torch.no_grad():
        for parameter in op.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return op


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("position", ["learned", "sinusoidal", None])
def test_against_torch(causal, position):
    op = randomized(causal=causal, position=position, max_length=10)
    other = multihead(op)
    x = torch.randn(4, 7, C, requires_grad=True)
    x2 = x.detach().clone().requires_grad_()

    place = torch.zeros(7, C)
    if position == "learned":
        place = op.position.weight[:7]
    elif position == "sinusoidal":
        t, i = np.arange(7)[:, None], np.arange(C // 2)[None]
        place[:, 0::2] = torch.from_numpy(np.sin(t / 10000 ** (2 * i / C)))
        place[:, 1::2] = torch.from_numpy(np.cos(t / 10000 ** (2 * i / C)))
    z = x2 + place
    future = torch.ones(7, 7, dtype=torch.bool).triu(1) if causal else None
    y, expected = op(x), other(z, z, z, attn_mask=future, need_weights=False)[0]
    close(y, expected, 1e-6)

    weight = torch.randn_like(y)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    close(x.grad, x2.grad, 1e-6)
    close(op.in_proj.weight.grad, other.in_proj_weight.grad, 1e-5)
    close(op.out_proj.weight.grad, other.out_proj.weight.grad, 1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_mask_against_torch(causal):
    op = randomized(causal=causal, position=None)
    x = torch.randn(4, 7, C)
    mask = torch.rand(4, 7) > 0.3
    mask[:, 0] = True  # torch gives NaN where a query sees nothing
    future = torch.ones(7, 7, dtype=torch.bool).triu(1) if causal else None
    expected = multihead(op)(x, x, x, ~mask, attn_mask=future, need_weights=False)[0]
    close(op(x, mask), expected * mask.unsqueeze(-1), 1e-6)


def test_positions_tell_steps_apart():
    x = torch.randn(2, 1, C).expand(2, 5, C)
    for position, apart in (("learned", True), ("sinusoidal", True), (None, False)):
        y = TemporalAttention(C, HEADS, position=position)(x)
        assert ((y[:, 0] - y[:, 4]).abs().max() > 1e-5) == apart


def test_odd_channels_have_sinusoidal_positions():
    y = TemporalAttention(7, 1, position="sinusoidal")(torch.randn(2, 5, 7))
    assert y.shape == (2, 5, 7)


def test_too_long_a_series():
    op = TemporalAttention(C, HEADS, max_length=4)
    x = torch.randn(2, 5, C)
    with pytest.raises(ValueError, match=r"4 learned positions.*5 steps.*max_length"):
        op(x)
    _, state = op.prefill(x[:, :4])
    with pytest.raises(ValueError, match="5 steps"):
        op.step(x[:, 4], state)
    assert TemporalAttention(C, HEADS, position=None, max_length=4)(x).shape == x.shape


def test_dropout_in_training_only():
    op = TemporalAttention(C, HEADS, dropout=0.5)
    x = torch.randn(2, 5, C)
    assert not torch.equal(op(x), op(x))
    op.eval()
    assert torch.equal(op(x), op(x))


def test_initialization():
    op = TemporalAttention(64, 4)
    assert (op.in_proj.bias == 0).all()
    assert (op.out_proj.bias == 0).all()
    assert op.in_proj.weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.05)
    assert op.position.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_bad_options():
    with pytest.raises(ValueError, match=r"channels \(12\).*heads \(5\)"):
        TemporalAttention(12, 5)
    with pytest.raises(ValueError, match=r"'rotary'.*'learned', 'sinusoidal' or None"):
        TemporalAttention(12, 4, position="rotary")


def test_repr():
    expected = "TemporalAttention(12, heads=3, causal=True, position='learned')"
    assert str(TemporalAttention(12, 3)) == expected


@pytest.mark.parametrize("causal", [True, False])
def test_no_softmax_is_over_nothing(causal, monkeypatch):
    """Not every torch since 2.6 answers it by zeros and finite gradients."""
    seen = []

    def watch(query, key, value, allowed=None, **options):
        seen.append(allowed)
        return softmax_attention(query, key, value, allowed, **options)

    monkeypatch.setattr(module, "softmax_attention", watch)
    x, mask = torch.randn(3, 5, C), torch.rand(3, 5) > 0.5
    mask[0] = False
    op = randomized(causal=causal)
    op(x, mask)
    if causal:
        _, state = op.prefill(x[:, :2], None, mask[:, :2])
        op.prefill(x[:, 2:], state, mask[:, 2:])
    assert len(seen) == (3 if causal else 1)
    assert all(allowed.any(-1).all() for allowed in seen)
