import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torch_geometric.data import Batch, Data

from pyg_stmamba.nn.blocks.joint import JointAttention, JointSpaceTimeTransformer
from tests.laws import close, same
from tests.nn.encoder_layer_oracle import projections, randomized, torch_layer

B, T, N, D, HEADS = 2, 4, 3, 8, 2
STEP = torch.arange(T).repeat_interleave(N)
FUTURE = STEP.unsqueeze(1) < STEP  # True = not allowed


@pytest.mark.parametrize("causal", [False, True])
def test_attention_against_torch(causal):
    op = randomized(JointAttention(D, HEADS))
    other = nn.MultiheadAttention(D, HEADS, batch_first=True)
    other.load_state_dict(projections(op))
    x, hidden = torch.randn(B, T * N, D), torch.rand(B, T * N) > 0.7
    hidden[:, 0] = False
    time, future = (STEP, FUTURE) if causal else (None, None)
    for mask in (None, hidden):
        expected, weights = other(x, x, x, mask, attn_mask=future)
        close(op(x, mask, time), expected, 1e-6)
        close(op.attention_map(x, mask, time), weights, 1e-6)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_against_torch_on_flattened_tokens(norm_first, causal):
    op = randomized(JointSpaceTimeTransformer(D, HEADS, 2, norm_first=norm_first, causal=causal))
    x = torch.randn(B, T, N, D, requires_grad=True)
    x2 = x.detach().clone().requires_grad_()
    h = x2.reshape(B, T * N, D)
    for layer in op.layers:
        h = torch_layer(layer, HEADS, norm_first)(h, src_mask=FUTURE if causal else None)
    y, expected = op(x), h.reshape(B, T, N, D)
    close(y, expected, 2e-6)
    weight = torch.randn_like(y)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    close(x.grad, x2.grad, 1e-5)


def test_mask_against_torch():
    op = randomized(JointSpaceTimeTransformer(D, HEADS))
    x, mask = torch.randn(B, T, N, D), torch.rand(B, T, N) > 0.4
    expected = torch_layer(op.layers[0], HEADS)(
        x.reshape(B, T * N, D), src_key_padding_mask=~mask.reshape(B, T * N)
    ).reshape(B, T, N, D)
    y = op(x, mask=mask)
    close(y[mask], expected[mask], 1e-6)
    assert (y[~mask] == 0).all()


@pytest.mark.parametrize("causal", [False, True])
def test_what_a_token_sees(causal):
    """All tokens of its own video, those of later steps left out where it is causal."""
    op = JointSpaceTimeTransformer(D, HEADS, 2, causal=causal)
    x = torch.randn(B, T, N, D, requires_grad=True)
    op(x)[1, 2, 0].square().sum().backward()
    seen = (x.grad != 0).any(-1)
    expected = torch.zeros(B, T, N, dtype=torch.bool)
    expected[1, : 3 if causal else T] = True
    assert torch.equal(seen, expected)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
def test_attention_maps(causal, norm_first):
    op = randomized(JointSpaceTimeTransformer(D, HEADS, 2, causal=causal, norm_first=norm_first))
    x = torch.randn(B, T, N, D)
    y, maps = op(x, return_attention=True)
    same(y, op(x))
    assert len(maps) == 2
    h = x.reshape(B, T * N, D)
    for layer, attention in zip(op.layers, maps):
        close(attention.sum(-1), torch.ones(B, T * N), 1e-6)
        other = torch_layer(layer, HEADS, norm_first)
        u = other.norm1(h) if norm_first else h
        future = FUTURE if causal else None
        close(attention, other.self_attn(u, u, u, attn_mask=future)[1], 1e-6)
        h = other(h, src_mask=future)


def test_positions_enter_once():
    op = randomized(JointSpaceTimeTransformer(D, HEADS, 2, max_len=6))
    bare = JointSpaceTimeTransformer(D, HEADS, 2)
    bare.layers.load_state_dict(op.layers.state_dict())
    x = torch.randn(B, T, N, D)
    place = op.position.table.embedding.weight[:T].unsqueeze(1)
    close(op(x), bare(x + place), 1e-6)
    order = torch.tensor([2, 0, 3, 1])
    close(bare(x[:, order]), bare(x)[:, order], 1e-6)
    assert (op(x[:, order]) - op(x)[:, order]).abs().max() > 1e-3


def test_maps_of_graphs_give_padding_no_weight():
    op = JointSpaceTimeTransformer(D, HEADS)
    graphs = [Data(x=torch.randn(n, T, D), edge_index=torch.zeros(2, 0).long()) for n in (3, 1)]
    _, (together,) = op(Batch.from_data_list(graphs), return_attention=True)
    _, (alone,) = op(graphs[1], return_attention=True)
    there = torch.arange(T) * 3
    close(together[1][there][:, there], alone[0], 1e-6)
    close(together[1][there].sum(-1), torch.ones(T), 1e-6)


@pytest.mark.parametrize(("steps", "nodes"), [(2, 3), (4, 4), (8, 6), (16, 8), (3, 40)])
def test_cost(steps, nodes):
    """The tokens' own part, and one attention map of TN x TN."""
    op, x = JointSpaceTimeTransformer(D, HEADS), torch.randn(2, steps, nodes, D)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        op(x)
    tokens = steps * nodes
    assert counter.get_total_flops() == 2 * (24 * D * D * tokens + 4 * D * tokens**2)


def test_dropout_in_training_only():
    op, x = JointSpaceTimeTransformer(D, HEADS, mlp_ratio=1.5, dropout=0.5), torch.randn(B, T, N, D)
    assert not torch.equal(op(x), op(x))
    same(op.eval()(x), op(x))
    assert op.layers[0].attention.heads.attention.dropout == 0.5
    assert op.layers[0].dropout.p == op.layers[0].feed_forward.dropout.p == 0.5
    assert op.layers[0].feed_forward.linear1.out_features == 12


def test_bad_input():
    op = JointSpaceTimeTransformer(D, HEADS, max_len=3)
    with pytest.raises(ValueError, match="knows 3 steps, got a series of 4"):
        op(torch.randn(B, T, N, D))
    with pytest.raises(ValueError, match="C = 8 channels"):
        op(torch.randn(B, T, N, 3))
    with pytest.raises(ValueError, match=r"dim \(8\).*num_heads \(3\)"):
        JointSpaceTimeTransformer(D, 3)
    expected = "JointSpaceTimeTransformer(8, num_heads=2, num_layers=1, causal=False)"
    assert str(op) == expected
