import pytest
import torch

from pyg_stmamba.ops import torch_attention as module
from pyg_stmamba.ops.attention_mask import AttentionMask, attention_mask
from pyg_stmamba.ops.explicit_attention import explicit_attention
from pyg_stmamba.ops.torch_attention import torch_attention
from tests.laws import close
from tests.ops.attention_cases import MASKS, SIZES, B, H, masks, tokens


@pytest.mark.parametrize(("length", "keys"), SIZES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_against_the_reference(name, causal, length, keys):
    mask = attention_mask((B, H, length, keys), **masks(name, length, keys), is_causal=causal)
    heads = tokens(length, keys)
    outs = [explicit_attention(*heads, mask)[0], torch_attention(*heads, mask)]
    close(*outs, 1e-12)
    for right, ours in zip(*(torch.autograd.grad(y.sin().sum(), heads) for y in outs)):
        close(ours, right, 1e-12)


@pytest.mark.parametrize("name", ["none", "pairs", "a sample of padding"])
def test_more_rows_than_a_grid(name, monkeypatch):
    monkeypatch.setattr(module, "MAX_GRID", 5)  # 5 // 2 heads: two samples at a time
    mask = attention_mask((B, H, 4, 5), **masks(name, 4, 5), is_causal=True)
    heads = tokens(4, 5)
    close(torch_attention(*heads, mask), explicit_attention(*heads, mask)[0], 1e-12)


def test_no_rows():
    query = torch.zeros(0, 2, 3, 4)
    assert torch_attention(query, query, query, AttentionMask(3, 3)).shape == (0, 2, 3, 4)


def test_dropout():
    query, key, value = (x.float().repeat(3000, 1, 1, 1) for x in tokens(3, 5))
    out = torch_attention(query, key, value, AttentionMask(3, 5), 0.4).unflatten(0, (3000, B))
    right = explicit_attention(query, key, value, AttentionMask(3, 5))[0][:B]
    assert ((out.mean(0) - right).abs() < 4 * out.std(0) / 3000**0.5).all()
