import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pyg_stmamba.ops import backend
from pyg_stmamba.ops.attention_mask import AttentionMask, attention_mask
from pyg_stmamba.ops.explicit_attention import explicit_attention
from pyg_stmamba.ops.xformers_attention import (
    IMPLEMENTATIONS,
    example_inputs,
    xformers_attention,
)
from tests.laws import close
from tests.ops.attention_cases import MASKS, SIZES, B, H, by_loop, hidden_or_added, masks, tokens


class LowerTriangularFromBottomRightMask:
    pass


def memory_efficient_attention(query, key, value, attn_bias=None, p=0.0, scale=None):
    """The documented layout [B, M, H, K]; a bias is [B, H, M, N], its rows aligned."""
    batch, length, heads, _ = query.shape
    keys = key.shape[1]
    logits = torch.einsum("blhd,bshd->bhls", query, key) * query.shape[-1] ** -0.5
    if isinstance(attn_bias, LowerTriangularFromBottomRightMask):
        i, j = torch.arange(length)[:, None], torch.arange(keys)
        logits = logits.masked_fill(j > i + keys - length, -torch.inf)
    elif attn_bias is not None:
        assert attn_bias.shape == (batch, heads, length, keys)
        assert attn_bias.dtype == query.dtype
        assert attn_bias.stride(-1) == 1
        assert all(stride % 8 == 0 for stride in attn_bias.stride()[:-1])
        logits = logits + attn_bias
    return torch.einsum("bhls,bshd->blhd", logits.softmax(-1) * (1 - p), value)


@pytest.fixture
def xformers(monkeypatch):
    ops = SimpleNamespace(memory_efficient_attention=memory_efficient_attention)
    names = {
        "xformers": ModuleType("xformers"),
        "xformers.ops": ops,
        "xformers.ops.fmha.attn_bias": SimpleNamespace(
            LowerTriangularFromBottomRightMask=LowerTriangularFromBottomRightMask
        ),
    }
    for name, package in names.items():
        monkeypatch.setitem(sys.modules, name, package)
    backend._first_import_failure.cache_clear()
    yield ops
    backend._first_import_failure.cache_clear()


@pytest.mark.parametrize(("length", "keys"), SIZES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_every_way_is_the_same_function(name, causal, length, keys):
    mask = attention_mask((B, H, length, keys), **masks(name, length, keys), is_causal=causal)
    heads = tokens(length, keys)
    right = explicit_attention(*heads, mask)[0]
    gradients = torch.autograd.grad(right.sin().sum(), heads)
    for way in ("blockwise", "torch", None):
        out = xformers_attention(*heads, mask, 0.0, 3, implementation=way)
        close(out, right, 1e-12)
        for ours, expected in zip(torch.autograd.grad(out.sin().sum(), heads), gradients):
            close(ours, expected, 1e-12)


@pytest.mark.parametrize(("length", "keys"), SIZES)
@pytest.mark.parametrize("name", ["causal", *MASKS])
def test_what_xformers_is_given(xformers, name, length, keys):
    if name == "causal" and length > keys:
        pytest.skip("it is not given that")
    given = {"is_causal": True} if name == "causal" else masks(name, length, keys)
    heads = tokens(length, keys)
    mask = attention_mask((B, H, length, keys), **given)
    out = IMPLEMENTATIONS[0].run(*heads, mask)
    added = hidden_or_added((B, H, length, keys), **given)
    close(out, torch.from_numpy(by_loop(*heads, added)[0]), 1e-12)
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(out.sin().sum(), heads))
    close(IMPLEMENTATIONS[0].run(*heads, mask, 0.5), out / 2, 1e-12)


def chosen(length=8, keys=8, channels=8, dtype=torch.float32, device="cuda", **mask):
    query, key = (
        torch.empty(2, 2, n, channels, dtype=dtype, device=device) for n in (length, keys)
    )
    given = (query, key, key, AttentionMask(length, keys, **mask), 0.1)
    return backend.choose("xformers_attention", IMPLEMENTATIONS, None, *given).name


@pytest.mark.choice
def test_xformers_is_chosen_on_a_gpu(xformers):
    with FakeTensorMode():
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            assert chosen(dtype=dtype) == chosen(causal=True, dtype=dtype) == "xformers"
        hidden = torch.empty(1, 1, 8, 8, dtype=torch.bool, device="cuda")
        padding = torch.empty(2, 1, 1, 8, dtype=torch.bool, device="cuda")
        assert chosen(pairs=hidden) == chosen(padding=padding) == "xformers"
        assert chosen(pairs=hidden, causal=True) == "blockwise"
        assert chosen(padding=padding, causal=True) == "blockwise"
        assert (
            chosen(pairs=torch.empty(1, 1, 8, 8, device="cuda", requires_grad=True)) == "blockwise"
        )
        assert chosen(length=9, causal=True) == chosen(channels=12) == "blockwise"
        assert chosen(dtype=torch.float64) == chosen(device="cpu") == "blockwise"
    del xformers.memory_efficient_attention
    backend._first_import_failure.cache_clear()
    with FakeTensorMode():
        assert chosen() == "blockwise"


def test_explicit_names():
    given = (*tokens(5, 5), AttentionMask(5, 5))
    with pytest.raises(ValueError, match=r"xformers.*cannot run here.*CUDA.*multiple of 8.*have 4"):
        xformers_attention(*given, implementation="xformers")
    inputs = example_inputs("cpu")
    assert [entry.name for entry in IMPLEMENTATIONS if not entry.reasons_against(*inputs)] == [
        "blockwise",
        "torch",
    ]


def test_compiled():
    def attend(query, dropout):
        return xformers_attention(query, query, query, AttentionMask(5, 5, causal=True), dropout)

    query = torch.randn(2, 2, 5, 4)
    compiled = torch.compile(attend, backend="eager", fullgraph=True)
    close(compiled(query, 0.0), attend(query, 0.0), 1e-6)
    assert compiled(query, 0.5).shape == query.shape
