import pytest
import torch
from torch import nn

from pyg_stmamba.nn.transformer import TransformerDecoderLayer
from tests.nn.transformer.conftest import HEADS, INNER, D, randomized, weights_of_torch

B, L, S = 4, 6, 5
PADDING = torch.arange(L) >= torch.tensor([[6], [4], [5], [3]])
MEMORY_PADDING = torch.arange(S) >= torch.tensor([[2], [5], [4], [3]])


def pair(norm_strategy, att_type="standard"):
    theirs = nn.TransformerDecoderLayer(
        D,
        HEADS,
        INNER,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=norm_strategy == "pre_norm",
        dtype=torch.float64,
    )
    randomized(theirs)
    ours = TransformerDecoderLayer(
        D,
        HEADS,
        INNER,
        dropout=0.0,
        att_type=att_type,
        norm_strategy=norm_strategy,
        use_swiglu=False,
    ).double()
    ours.load_state_dict(weights_of_torch(theirs))
    return ours, theirs


@pytest.mark.parametrize("norm_strategy", ["pre_norm", "post_norm"])
@pytest.mark.parametrize("att_type", ["standard", "xformer", "flash"])
@pytest.mark.parametrize("masks", ["none", "padding", "boolean", "float"])
def test_is_the_layer_of_torch(norm_strategy, att_type, masks, causal):
    ours, theirs = pair(norm_strategy, att_type)
    x = torch.randn(B, L, D, dtype=torch.float64)
    memory = torch.randn(B, S, D, dtype=torch.float64)
    tgt_mask, memory_mask, padding, memory_padding = None, None, None, None
    there = torch.ones(B, L, 1)
    if masks == "padding":
        padding, memory_padding = PADDING, MEMORY_PADDING
        there = (~PADDING).unsqueeze(-1)
    elif masks == "boolean":
        tgt_mask = torch.rand(L, L) < 0.2
        tgt_mask.fill_diagonal_(False)
        memory_mask = torch.rand(L, S) < 0.5
        memory_mask[:, 0] = False
    elif masks == "float":
        tgt_mask, memory_mask = (torch.randn(L, n, dtype=torch.float64) for n in (L, S))
    # Theirs is causal by its mask alone, ours anyway.
    their_mask = causal if tgt_mask is None else tgt_mask
    if tgt_mask is not None and tgt_mask.dtype == torch.bool:
        their_mask = tgt_mask | causal
    elif tgt_mask is not None:
        their_mask = tgt_mask.masked_fill(causal, -torch.inf)
    results = []
    for layer, mask in ((ours, tgt_mask), (theirs, their_mask)):
        leaves = [x.clone().requires_grad_(), memory.clone().requires_grad_()]
        y = layer(*leaves, mask, memory_mask, padding, memory_padding)
        y = (y[0] if isinstance(y, tuple) else y) * there
        y.square().sum().backward()
        results.append((y, *(leaf.grad for leaf in leaves)))
    torch.testing.assert_close(*results, atol=1e-9, rtol=1e-9)


def test_state_is_a_value():
    layer = TransformerDecoderLayer(D, HEADS, INNER).eval()
    x, memory = torch.randn(B, L, D), torch.randn(B, S, D)
    y, _, none = layer(x, memory)
    assert none is None
    start = {}
    first, _, state = layer(x[:, :4], memory, state=start)
    assert start == {}
    kept = {part: {name: t.clone() for name, t in state[part].items() if name in ("key", "value")}
            for part in state}  # fmt: skip
    for _ in range(2):
        rest, _, longer = layer(x[:, 4:], memory, state=state)
        torch.testing.assert_close(torch.cat([first, rest], 1), y, atol=1e-5, rtol=1e-5)
        assert longer["self_attn"]["key"].shape == (B, L, D)
        for part, tensors in kept.items():
            for name, tensor in tensors.items():
                assert torch.equal(state[part][name], tensor)


def test_padding_of_a_state_covers_the_tokens_before():
    layer = TransformerDecoderLayer(D, HEADS, INNER, use_moe=True, num_experts=4).eval()
    x, memory = torch.randn(B, L, D), torch.randn(B, S, D)
    padding = torch.arange(L) < torch.tensor([[0], [1], [2], [3]])  # on the left
    y, _, _ = layer(x, memory, tgt_key_padding_mask=padding)
    first, _, state = layer(x[:, :4], memory, tgt_key_padding_mask=padding[:, :4], state={})
    rest, _, _ = layer(x[:, 4:], memory, tgt_key_padding_mask=padding, state=state)
    torch.testing.assert_close(torch.cat([first, rest], 1)[~padding], y[~padding])


def test_condition_reaches_all_norms():
    layer = TransformerDecoderLayer(D, HEADS, INNER, use_adaptive_ln="adaptive_rms", cond_dim=3)
    layer.eval()
    x, memory, cond = torch.randn(B, L, D), torch.randn(B, S, D), torch.randn(B, 3)
    for phase in (layer.self_attn_phase, layer.cross_attn_phase, layer.feed_forward_phase):
        before = layer(x, memory, cond=cond)[0]
        randomized(phase.norm)
        assert not torch.allclose(layer(x, memory, cond=cond)[0], before)
