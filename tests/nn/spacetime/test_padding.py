import pytest
import torch
import torch.nn.functional as F

from pyg_stmamba.nn.spacetime import CrossMaskingSeq, SelfMaskingSeq
from pyg_stmamba.nn.spacetime.padding import hide_padding
from tests.laws import close, same

B, L, S, D = 2, 5, 4, 3


def test_pairs():
    queries, keys = torch.rand(B, L) > 0.5, torch.rand(B, S) > 0.5
    forbidden = CrossMaskingSeq()(queries, keys)
    assert forbidden.shape == (B, L, S)
    for b in range(B):
        for i in range(L):
            for j in range(S):
                assert forbidden[b, i, j] == (queries[b, i] or keys[b, j])
    same(SelfMaskingSeq()(queries), CrossMaskingSeq()(queries, queries))


def test_masked_pairs_do_not_meet():
    padding = torch.tensor([[False, False, True, True, True], [False] * 5])
    x = torch.randn(B, L, D)
    y = F.scaled_dot_product_attention(x, x, x, attn_mask=~SelfMaskingSeq()(padding))
    close(y[0, :2], F.scaled_dot_product_attention(x[0, :2], x[0, :2], x[0, :2]), 1e-6)
    close(y[1], F.scaled_dot_product_attention(x[1], x[1], x[1]), 1e-6)


def test_hidden_padding():
    x = torch.randn(B, L, D)
    mask = torch.rand(B, L) > 0.5
    junk = torch.where(mask.unsqueeze(-1), torch.nan, x)
    hidden = hide_padding(junk, mask)
    same(hidden[~mask], x[~mask])
    assert (hidden[mask] == 0).all()
    assert junk[mask].isnan().all()
    assert hide_padding(x, None) is x


def test_errors_show_shape_and_dtype():
    x = torch.randn(B, L, D)
    for mask in (torch.zeros(B, L), torch.zeros(B, L + 1, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r"True = padding.*\[2, 5\].*got \[2, .\] and dtype"):
            hide_padding(x, mask)
