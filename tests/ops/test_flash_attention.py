import sys
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pyg_stmamba.ops import backend
from pyg_stmamba.ops import flash_attention as module
from pyg_stmamba.ops.attention_mask import AttentionMask, attention_mask
from pyg_stmamba.ops.explicit_attention import explicit_attention
from pyg_stmamba.ops.flash_attention import IMPLEMENTATIONS, example_inputs, flash_attention
from tests.laws import close
from tests.ops.attention_cases import MASKS, SIZES, B, H, by_loop, hidden_or_added, masks, tokens


def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False):
    """The documented layout [B, L, H, d], causality bottom right."""
    assert all(x.stride(-1) == 1 for x in (q, k, v))
    scale = q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
    logits = torch.einsum("blhd,bshd->bhls", q, k) * scale
    length, keys = logits.shape[-2:]
    if causal:
        i, j = torch.arange(length)[:, None], torch.arange(keys)
        logits = logits.masked_fill(j > i + keys - length, -torch.inf)
    weights = logits.softmax(-1).nan_to_num(0.0)
    return torch.einsum("bhls,bshd->blhd", weights * (1 - dropout_p), v)


@pytest.fixture
def flash_attn(monkeypatch):
    package = SimpleNamespace(flash_attn_func=flash_attn_func)
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    backend._first_import_failure.cache_clear()
    yield package
    backend._first_import_failure.cache_clear()


@pytest.mark.parametrize(("length", "keys"), SIZES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_every_way_is_the_same_function(name, causal, length, keys):
    mask = attention_mask((B, H, length, keys), **masks(name, length, keys), is_causal=causal)
    heads = tokens(length, keys)
    right = explicit_attention(*heads, mask)[0]
    gradients = torch.autograd.grad(right.sin().sum(), heads)
    for way in ("explicit", "torch", "blockwise", None):
        out = flash_attention(*heads, mask, 0.0, 3, implementation=way)
        close(out, right, 1e-12)
        for ours, expected in zip(torch.autograd.grad(out.sin().sum(), heads), gradients):
            close(ours, expected, 1e-12)


@pytest.mark.parametrize(("length", "keys"), SIZES)
@pytest.mark.parametrize("causal", [False, True])
def test_what_flash_attn_is_given(flash_attn, causal, length, keys):
    heads = tokens(length, keys)
    out = IMPLEMENTATIONS[0].run(*heads, AttentionMask(length, keys, causal=causal))
    added = hidden_or_added((B, H, length, keys), is_causal=causal)
    close(out, torch.from_numpy(by_loop(*heads, added)[0]), 1e-12)
    dropped = IMPLEMENTATIONS[0].run(*heads, AttentionMask(length, keys, causal=causal), 0.5)
    close(dropped, out / 2, 1e-12)


def chosen(*shape, dtype=torch.float16, device="cuda", dropout=0.0, **mask):
    query = torch.empty(2, 2, *shape, dtype=dtype, device=device)
    given = (query, query, query, AttentionMask(shape[0], shape[0], **mask), dropout)
    return backend.choose("flash_attention", IMPLEMENTATIONS, None, *given).name


@pytest.mark.choice
def test_flash_attn_is_chosen_on_a_gpu(flash_attn):
    with FakeTensorMode():
        assert chosen(8, 4) == chosen(8, 4, dtype=torch.bfloat16) == "flash_attn"
        assert chosen(8, 4, causal=True, dropout=0.1) == "flash_attn"
        assert chosen(8, 4, dtype=torch.float32) == chosen(8, 4, dtype=torch.float64) == "torch"
        assert chosen(8, 264) == "torch"
        hidden = torch.empty(1, 1, 8, 8, dtype=torch.bool, device="cuda")
        padding = torch.empty(2, 1, 1, 8, dtype=torch.bool, device="cuda")
        assert chosen(8, 4, pairs=hidden, dropout=0.1) == "torch"
        assert chosen(8, 4, padding=padding) == "torch"
        assert chosen(8, 4, device="cpu") == "explicit"
    del flash_attn.flash_attn_func
    backend._first_import_failure.cache_clear()
    with FakeTensorMode():
        assert chosen(8, 4) == "torch"


@pytest.mark.choice
def test_what_is_chosen_on_a_cpu():
    one = {"dtype": torch.float32, "device": "cpu"}
    assert chosen(64, 4, **one) == chosen(256, 4, **one, dropout=0.1) == "explicit"
    assert chosen(65, 4, **one) == "torch"
    assert chosen(257, 4, **one, dropout=0.1) == "blockwise"


def test_explicit_names():
    given = (*tokens(5, 5), AttentionMask(5, 5))
    with pytest.raises(ValueError, match=r"flash_attn.*cannot run here.*CUDA.*float16"):
        flash_attention(*given, implementation="flash_attn")
    with pytest.raises(ValueError, match=r"'fast'.*'flash_attn', 'explicit', 'torch'"):
        flash_attention(*given, implementation="fast")
    inputs = example_inputs("cpu")
    assert [entry.name for entry in IMPLEMENTATIONS if not entry.reasons_against(*inputs)] == [
        "explicit",
        "torch",
        "blockwise",
    ]


def test_compiled(monkeypatch):
    monkeypatch.setattr(module, "FEW_WITH_DROPOUT", 0)

    def attend(query, dropout):
        return flash_attention(query, query, query, AttentionMask(5, 5, causal=True), dropout)

    query = torch.randn(2, 2, 5, 4)
    compiled = torch.compile(attend, backend="eager", fullgraph=True)
    close(compiled(query, 0.0), attend(query, 0.0), 1e-6)
    assert compiled(query, 0.5).shape == query.shape
