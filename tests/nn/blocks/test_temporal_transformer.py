import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pyg_stmamba.nn.blocks.temporal_transformer import TemporalTransformer
from tests.laws import close, random_mask, same, the_future_moves_nothing
from tests.nn.encoder_layer_oracle import projections, randomized, torch_layer

B, T, N, D, HEADS = 3, 5, 4, 8, 2


class Seed(nn.Module):
    """The class as the text that asked for it writes it."""

    def __init__(self, dim, num_heads):
        super().__init__()
        self.attn = nn.MultiheadAttention(dim, num_heads)
        self.ffn = nn.Sequential(nn.Linear(dim, dim * 4), nn.GELU(), nn.Linear(dim * 4, dim))
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x):
        attn_out, _ = self.attn(x, x, x)
        x = x + attn_out
        x = self.norm1(x)
        x = x + self.ffn(x)
        return self.norm2(x)


def test_against_the_text():
    op = randomized(TemporalTransformer(D, HEADS))
    (layer,) = op.layers
    seed = Seed(D, HEADS)
    seed.attn.load_state_dict(projections(layer.attention))
    seed.norm1.load_state_dict(layer.norm1.state_dict())
    seed.norm2.load_state_dict(layer.norm2.state_dict())
    seed.ffn[0].load_state_dict(layer.feed_forward.linear1.state_dict())
    seed.ffn[2].load_state_dict(layer.feed_forward.linear2.state_dict())
    x = torch.randn(T, B, D)
    close(op(x), seed(x), 1e-6)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_against_torch(norm_first, causal):
    op = randomized(TemporalTransformer(D, HEADS, 2, causal=causal, norm_first=norm_first))
    layers = [torch_layer(layer, HEADS, norm_first) for layer in op.layers]
    x = torch.randn(T, B, D, requires_grad=True)
    x2 = x.detach().clone().requires_grad_()
    future = torch.ones(T, T, dtype=torch.bool).triu(1) if causal else None
    h = x2.transpose(0, 1)
    for layer in layers:
        h = layer(h, src_mask=future)
    y, expected = op(x), h.transpose(0, 1)
    close(y, expected, 2e-6)
    weight = torch.randn_like(y)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    close(x.grad, x2.grad, 1e-5)


def test_mask_against_torch():
    op = randomized(TemporalTransformer(D, HEADS))
    x = torch.randn(T, B, D)
    mask = torch.rand(T, B) > 0.3
    mask[0] = True
    expected = torch_layer(op.layers[0], HEADS)(
        x.transpose(0, 1), src_key_padding_mask=~mask.transpose(0, 1)
    )
    y = op(x, mask=mask)
    close(y[mask], expected.transpose(0, 1)[mask], 1e-6)
    assert (y[~mask] == 0).all()


def test_layouts():
    op = randomized(TemporalTransformer(D, HEADS, max_len=T))
    x = torch.randn(B, T, N, D)
    y = op(x)
    for n in range(N):
        close(op(x[:, :, n].transpose(0, 1)).transpose(0, 1), y[:, :, n], 1e-6)
        close(op(x[:, :, n], nodes_first=True), y[:, :, n], 1e-6)
        op.batch_first = True
        close(op(x[:, :, n]), y[:, :, n], 1e-6)
        op.batch_first = False


def test_batch_first():
    op = randomized(TemporalTransformer(D, HEADS, batch_first=True))
    x = torch.randn(B, T, D)
    close(op(x), torch_layer(op.layers[0], HEADS)(x), 1e-6)


def test_order_is_seen_with_positions_only():
    x, order = torch.randn(T, B, D), torch.tensor([3, 0, 4, 1, 2])
    op = TemporalTransformer(D, HEADS, 2)
    close(op(x[order]), op(x)[order], 1e-6)
    op = TemporalTransformer(D, HEADS, 2, max_len=T)
    assert (op(x[order]) - op(x)[order]).abs().max() > 1e-3


def test_positions_enter_once():
    """Two layers see the series plus the positions, as they see a series that has them already."""
    op = randomized(TemporalTransformer(D, HEADS, 2, max_len=7))
    bare = TemporalTransformer(D, HEADS, 2)
    bare.layers.load_state_dict(op.layers.state_dict())
    x = torch.randn(T, B, D)
    place = op.position.table.embedding.weight[:T].unsqueeze(1)
    close(op(x), bare(x + place), 1e-6)
    assert place.abs().max() > 0.1


def test_only_steps_of_the_same_series_are_seen():
    op = TemporalTransformer(D, HEADS, 2)
    x = torch.randn(B, T, N, D, requires_grad=True)
    op(x)[1, 2, 3].square().sum().backward()
    seen = (x.grad != 0).any(-1)
    assert seen[1, :, 3].all()
    assert seen.sum() == T


def test_causality():
    op = TemporalTransformer(D, HEADS, 2, max_len=T, causal=True, batch_first=True)
    x = torch.randn(B, T, D)
    the_future_moves_nothing(lambda x, mask: op(x, mask=mask), x)
    the_future_moves_nothing(lambda x, mask: op(x, mask=mask), x, random_mask(x))


@pytest.mark.parametrize(("steps", "nodes"), [(2, 3), (4, 4), (8, 16), (16, 8), (72, 3)])
def test_cost(steps, nodes):
    """The tokens' own part, and the attention maps, one of T x T for each node."""
    op, x = TemporalTransformer(D, HEADS), torch.randn(2, steps, nodes, D)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        op(x)
    tokens = 2 * steps * nodes
    assert counter.get_total_flops() == 24 * D * D * tokens + 4 * D * tokens * steps


def test_dropout_in_training_only():
    op, x = TemporalTransformer(D, HEADS, mlp_ratio=1.5, dropout=0.5), torch.randn(T, B, D)
    assert not torch.equal(op(x), op(x))
    same(op.eval()(x), op(x))
    assert op.layers[0].attention.dropout == 0.5
    assert op.layers[0].dropout.p == op.layers[0].feed_forward.dropout.p == 0.5
    assert op.layers[0].feed_forward.linear1.out_features == 12


def test_bad_input():
    op = TemporalTransformer(D, HEADS, max_len=4)
    with pytest.raises(ValueError, match=r"knows 4 steps, got a series of 5"):
        op(torch.randn(T, B, D))
    with pytest.raises(ValueError, match="C = 8 channels"):
        op(torch.randn(T, B, 3))
    with pytest.raises(ValueError, match=r"\(8\) must be divisible by heads \(3\)"):
        TemporalTransformer(D, 3)
    expected = "TemporalTransformer(8, num_heads=2, num_layers=1, causal=False)"
    assert str(op) == expected
