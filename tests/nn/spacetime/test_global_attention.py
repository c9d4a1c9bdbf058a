import pytest
import torch

from pyg_stmamba.nn.spacetime import GlobalAttention
from tests.laws import close, copies_are_equal, same
from tests.nn.spacetime.oracles import PairAttention, full_attention, groups, pairs, places

B, N, D, HEADS = 2, 3, 8, 2


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("length", "windows"), [(1, 1), (6, 1), (6, 2), (7, 2), (7, 3), (5, 4)])
def test_among_tokens_against_pairs(length, windows, shifted, causal, masked):
    op = GlobalAttention(full_attention(D, HEADS), N, windows, shifted)
    x = torch.randn(B, N * length, D)
    mask = torch.rand(B, N * length) > 0.6 if masked else None
    group, at = groups(length, windows, shifted), places(N, length)
    allowed = pairs(at, at, lambda i, t, j, s: group[t] == group[s] and (s <= t or not causal))
    expected = PairAttention(op.attention, HEADS)(x, x, allowed, mask)
    close(op(x, padding_mask=mask, causal=causal)[0], expected, 1e-5)


@pytest.mark.parametrize("windows", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_a_memory_is_seen_as_a_whole(windows, masked):
    op = GlobalAttention(full_attention(D, HEADS), N, windows, shifted=True)
    x, memory = torch.randn(B, N * 6, D), torch.randn(B, 11, D)
    mask = torch.rand(B, 11) > 0.6 if masked else None
    expected = PairAttention(op.attention, HEADS)(
        x, memory, torch.ones(N * 6, 11, dtype=torch.bool), mask
    )
    close(op(x, memory, mask)[0], expected, 1e-5)


def test_weights_of_each_window():
    op = GlobalAttention(full_attention(D, HEADS), N, 2, shifted=True)
    x, memory = torch.randn(B, N * 7, D), torch.randn(B, 11, D)
    assert op(x)[1] is None
    weights = op(x, output_attention=True)[1]
    assert weights.shape == (B * 3, HEADS, N * 4, N * 4)
    mask = op.windowing(x).padding_mask
    assert (weights.masked_select(mask[:, None, None]) == 0).all()
    assert op(x, memory, output_attention=True)[1].shape == (B, HEADS, N * 7, 11)


def test_module_laws():
    op = GlobalAttention(full_attention(D, HEADS), N, 2, shifted=True)
    x = torch.randn(B, N * 7, D)
    copies_are_equal(op, lambda o: o(x)[0])
    same(op(x)[0], op(x)[0])


def test_errors_show_the_shape():
    with pytest.raises(ValueError, match="N = 3"):
        GlobalAttention(full_attention(D, HEADS), N, 2)(torch.randn(B, 11, D))
