import math

import pytest
import torch

from pyg_stmamba.ops.attention_mask import ALL, AttentionMask, attention_mask
from tests.ops.attention_cases import MASKS, SIZES, B, H, hidden_or_added, masks


@pytest.mark.parametrize(("length", "keys"), SIZES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_whole_and_blocks(name, causal, length, keys):
    shape, given = (B, H, length, keys), masks(name, length, keys)
    right = torch.from_numpy(hidden_or_added(shape, **given, is_causal=causal))
    mask = attention_mask(shape, **given, is_causal=causal)
    cpu = torch.device("cpu")
    for queries in (ALL, slice(0, 2), slice(2, length)):
        for samples, heads in ((ALL, ALL), (slice(1, 3), ALL), (slice(2, 3), slice(1, 2))):
            expected = right[samples, heads, queries]
            visible = mask.visible(queries.indices(length)[1])
            assert (expected[..., visible:] == -math.inf).all()
            bias, empty = mask.bias(torch.float64, cpu, queries, samples, heads)
            nothing = (expected == -math.inf).all(-1, keepdim=True)
            expected = expected.masked_fill(nothing, 0.0)[..., :visible]
            if bias is None:
                assert empty is None
                assert (expected == 0).all()
                continue
            assert torch.equal(bias.expand_as(expected), expected)
            assert torch.equal(empty.expand_as(nothing), nothing)


def test_causality_shows_no_more_keys_than_there_are():
    mask = AttentionMask(4, 6, causal=True)
    assert [mask.visible(stop) for stop in (1, 2, 4)] == [3, 4, 6]
    assert [AttentionMask(6, 2, causal=True).visible(stop) for stop in (1, 4, 5, 6)] == [1, 1, 1, 2]
    assert AttentionMask(6, 2).visible(1) == 2


def test_parts_are_not_expanded():
    mask = attention_mask((5, 4, 8, 9), torch.rand(8, 9) > 0.5, torch.rand(5, 9) > 0.5)
    assert mask.pairs.shape == (1, 1, 8, 9)
    assert mask.padding.shape == (5, 1, 1, 9)
    bias, _ = attention_mask((5, 4, 8, 9), None, torch.rand(5, 9) > 0.5).bias(
        torch.float32, torch.device("cpu")
    )
    assert bias.shape == (5, 1, 1, 9)


def test_masks_given_stay_as_they_are():
    added = torch.zeros(3, 4).masked_fill(torch.rand(3, 4) > 0.5, -math.inf)
    added[1] = -math.inf
    before = added.clone()
    attention_mask((1, 1, 3, 4), added, is_causal=True).bias(torch.float32, torch.device("cpu"))
    assert torch.equal(added, before)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"attn_mask": torch.ones(3, 3)}, r"\[L, S\] = \[3, 4\].*B = 2.*H = 10.*got \[3, 3\]"),
        ({"attn_mask": torch.ones(3, 3, 4)}, r"got \[3, 3, 4\]"),
        ({"attn_mask": torch.ones(2, 3, 3, 4)}, r"got \[2, 3, 3, 4\]"),
        ({"attn_mask": torch.ones(3, 4).int()}, r"attn_mask must be boolean.*torch\.int32"),
        ({"key_padding_mask": torch.ones(2, 3)}, r"\[B, S\] = \[2, 4\], got \[2, 3\]"),
        ({"key_padding_mask": torch.ones(2, 4).byte()}, r"key_padding_mask.*torch\.uint8"),
    ],
)
def test_bad_masks(given, message):
    with pytest.raises(ValueError, match=message):
        attention_mask((2, 5, 3, 4), **given)
