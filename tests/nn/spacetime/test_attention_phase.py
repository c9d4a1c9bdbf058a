import pytest
import torch
import torch.nn.functional as F

from pyg_stmamba.nn.spacetime import AttentionPhase, GlobalAttention
from tests.laws import close, copies_are_equal, same
from tests.nn.spacetime.oracles import full_attention, spread

B, N, L, D = 2, 3, 4, 8


def phase(**options):
    return spread(AttentionPhase(GlobalAttention(full_attention(D, 2), N), D, **options))


def test_one_residual_around_what_is_normalized():
    op = phase()
    x, memory = torch.randn(B, N * L, D), torch.randn(B, 5, D)
    inner = op.attention.attention
    z = F.layer_norm(x, (D,), op.norm.norm.weight, op.norm.norm.bias)
    close(op(x)[0], x + inner(z, z, z)[0], 1e-6)
    mask = torch.rand(B, 5) > 0.5
    y, weights = op(x, memory, mask, output_attention=True)
    expected, expected_weights = inner(z, memory, memory, mask, True)
    close(y, x + expected, 1e-6)
    close(weights, expected_weights, 1e-6)


def test_dropout_of_what_is_added():
    op = phase(dropout=0.5)
    x = torch.randn(B, N * L, D)
    change = op.eval()(x)[0] - x
    ratio = ((op.train()(x)[0] - x) / change).round(decimals=2)
    assert set(ratio.unique().tolist()) == {0.0, 2.0}


def test_module_laws():
    op = phase()
    x = torch.randn(B, N * L, D)
    copies_are_equal(op, lambda o: o(x)[0])
    kept, bare = x.clone(), phase(normalization="none")
    bare(x, padding_mask=torch.rand(B, N * L) > 0.5)
    same(x, kept)


def test_unknown_normalization():
    with pytest.raises(ValueError, match="'adaptive'"):
        phase(normalization="adaptive")
