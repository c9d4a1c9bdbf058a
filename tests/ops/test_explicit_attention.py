import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from pyg_stmamba.ops.attention_mask import AttentionMask, attention_mask
from pyg_stmamba.ops.explicit_attention import explicit_attention
from tests.laws import close
from tests.ops.attention_cases import MASKS, SIZES, B, H, by_loop, hidden_or_added, masks, tokens


@pytest.mark.parametrize(("length", "keys"), SIZES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_against_a_loop(name, causal, length, keys):
    shape, given = (B, H, length, keys), masks(name, length, keys)
    heads = tokens(length, keys)
    out, weights = explicit_attention(
        *heads, attention_mask(shape, **given, is_causal=causal), need_weights=True
    )
    added = hidden_or_added(shape, **given, is_causal=causal)
    right, right_weights = by_loop(*heads, added)
    close(out, torch.from_numpy(right), 1e-12)
    close(weights, torch.from_numpy(right_weights), 1e-12)
    empty = torch.from_numpy(added == -float("inf")).all(-1)
    assert (out[empty] == 0).all()
    assert (weights[empty] == 0).all()

    # Gradients by torch's own math, nothing hidden where nothing is visible.
    bias = torch.from_numpy(added).masked_fill(empty.unsqueeze(-1), 0.0)
    theirs = F.scaled_dot_product_attention(*heads, bias).masked_fill(empty.unsqueeze(-1), 0.0)
    found = (torch.autograd.grad(y.sin().sum(), heads) for y in (out, theirs))
    for ours, expected in zip(*found):
        close(ours, expected, 1e-12)


def test_gradient_of_what_is_added():
    added = torch.randn(1, H, 5, 6, dtype=torch.float64, requires_grad=True)
    padding = torch.randn(B, 1, 1, 6, dtype=torch.float64, requires_grad=True)
    heads = tokens(5, 6)

    def attend(*parts):
        return explicit_attention(*heads, AttentionMask(5, 6, *parts, causal=True))[0]

    torch.autograd.gradcheck(attend, (added, padding))


def test_dropout():
    query, key, value = (x.float() for x in tokens(6, 8))
    query, key, value = (x.repeat(2000, 1, 1, 1) for x in (query, key, value))
    mask = AttentionMask(6, 8)
    right, before = explicit_attention(query, key, value, mask, need_weights=True)
    ones = torch.eye(8).expand(*value.shape[:2], 8, 8)  # so that weights come out
    kept, weights = explicit_attention(query, key, ones, mask, 0.3, need_weights=True)
    close(weights, before, 1e-6)
    share = (kept != 0).double().mean()
    assert abs(share - 0.7) < 3 * (0.3 * 0.7 / kept.numel()) ** 0.5
    close(kept[kept != 0], (before / 0.7)[kept != 0], 1e-4)
    out = explicit_attention(query, key, value, mask, 0.3)[0].unflatten(0, (2000, B))
    error = out.std(0) / 2000**0.5
    assert ((out.mean(0) - right[:B]).abs() < 3 * error).double().mean() > 0.98


def test_flops_are_those_of_two_products():
    heads = tokens(5, 9)
    with FlopCounterMode(display=False) as counter:
        explicit_attention(*heads, AttentionMask(5, 9))
    assert counter.get_total_flops() == 4 * B * H * 5 * 9 * 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(dtype):
    heads = [x.to(dtype) for x in tokens(7, 7)]
    out = explicit_attention(*heads, AttentionMask(7, 7, causal=True), 0.0)[0]
    assert out.dtype == dtype
    right = explicit_attention(*(x.double() for x in heads), AttentionMask(7, 7, causal=True))[0]
    close(out.double(), right, 2e-2)
