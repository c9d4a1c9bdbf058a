import pytest
import torch

from pyg_stmamba.nn.spacetime import LocalAttention
from tests.laws import close, copies_are_equal, same
from tests.nn.spacetime.oracles import PairAttention, full_attention, pairs, places

B, N, M, D, HEADS = 2, 3, 5, 8, 2
L, S = 6, 4


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_among_tokens_against_pairs(causal, masked):
    op = LocalAttention(full_attention(D, HEADS), N)
    x = torch.randn(B, N * L, D)
    mask = torch.rand(B, N * L) > 0.6 if masked else None
    at = places(N, L)
    allowed = pairs(at, at, lambda i, t, j, s: i == j and (s <= t or not causal))
    expected = PairAttention(op.attention, HEADS)(x, x, allowed, mask)
    close(op(x, padding_mask=mask, causal=causal)[0], expected, 1e-5)


@pytest.mark.parametrize("target_index", [None, [4, 0, 0]])
@pytest.mark.parametrize("masked", [False, True])
def test_over_a_memory_against_pairs(target_index, masked):
    op = LocalAttention(full_attention(D, HEADS), N, M, target_index)
    x, memory = torch.randn(B, N * L, D), torch.randn(B, M * S, D)
    mask = torch.rand(B, M * S) > 0.6 if masked else None
    pairing = target_index or [0, 1, 2]
    allowed = pairs(places(N, L), places(M, S), lambda i, t, j, s: j == pairing[i])
    expected = PairAttention(op.attention, HEADS)(x, memory, allowed, mask)
    close(op(x, memory, mask)[0], expected, 1e-5)


def test_weights_of_each_variable():
    op = LocalAttention(full_attention(D, HEADS), N, M)
    x, memory = torch.randn(B, N * L, D), torch.randn(B, M * S, D)
    assert op(x)[1] is None
    weights = op(x, memory, output_attention=True)[1]
    assert weights.shape == (N * B, HEADS, L, S)
    close(weights.sum(-1), torch.ones(N * B, HEADS, L), 1e-5)
    weights = op(x, causal=True, output_attention=True)[1]
    assert (weights.triu(1) == 0).all()


def test_module_laws():
    op = LocalAttention(full_attention(D, HEADS), N, M, [4, 0, 0])
    x, memory = torch.randn(B, N * L, D), torch.randn(B, M * S, D)
    copies_are_equal(op, lambda o: o(x, memory)[0])
    assert not any("target_index" in name for name in op.state_dict())
    same(op(x, memory)[0], op(x, memory)[0])


def test_errors():
    attention = full_attention(D, HEADS)
    with pytest.raises(ValueError, match=r"of 3 variables only 2 have.*target_index"):
        LocalAttention(attention, 3, 2)
    assert LocalAttention(attention, 3, 2, [0, 1, 0]).target_index.tolist() == [0, 1, 0]
    for index in ([0, 1], [0, 1, 5], [0, -1, 1]):
        with pytest.raises(ValueError, match=r"3 indices from 0 to 4.*got \["):
            LocalAttention(attention, 3, 5, index)
    with pytest.raises(ValueError, match=r"N = 5 variables.*\[2, 12, 8\]"):
        LocalAttention(attention, 3, 5)(torch.randn(B, N * L, D), torch.randn(B, 12, D))
