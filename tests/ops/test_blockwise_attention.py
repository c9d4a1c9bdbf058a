import math

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from pyg_stmamba.benchmark import peak_memory
from pyg_stmamba.ops import blockwise_attention as module
from pyg_stmamba.ops.attention_mask import AttentionMask, attention_mask
from pyg_stmamba.ops.blockwise_attention import blockwise_attention
from pyg_stmamba.ops.explicit_attention import explicit_attention
from tests.laws import close
from tests.ops.attention_cases import MASKS, SIZES, B, D, H, masks, tokens


@pytest.fixture(params=[2**18, 40, 1], ids=["all at once", "some samples", "a head at a time"])
def at_once(request, monkeypatch):
    monkeypatch.setattr(module, "WEIGHTS_AT_ONCE", request.param)


@pytest.mark.parametrize(("length", "keys"), SIZES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_against_the_reference(name, causal, length, keys, at_once):
    mask = attention_mask((B, H, length, keys), **masks(name, length, keys), is_causal=causal)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        heads = tokens(length, keys, dtype)
        outs = [
            explicit_attention(*heads, mask)[0],
            blockwise_attention(*heads, mask, block_size=3),
        ]
        close(*outs, tolerance)
        for right, ours in zip(*(torch.autograd.grad(y.sin().sum(), heads) for y in outs)):
            close(ours, right, tolerance)


def test_gradcheck(at_once):
    """With a fixed generator, dropout and everything that is hidden or added."""
    shapes = (2, 2, 3, 2), (2, 2, 4, 2), (2, 2, 4, 1), (1, 2, 3, 4), (2, 1, 1, 4)
    given = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def attend(query, key, value, *parts):
        torch.manual_seed(3)
        mask = AttentionMask(3, 4, *parts, causal=True)
        return blockwise_attention(query, key, value, mask, 0.4, block_size=2)

    torch.autograd.gradcheck(attend, given)
    hidden = torch.rand(2, 1, 3, 4) > 0.5
    hidden[1, :, 2] = True
    torch.autograd.gradcheck(lambda *x: attend(*x, hidden, None), given[:3])


def test_dropout():
    query, key, value = (x.float().repeat(2000, 1, 1, 1) for x in tokens(6, 8))
    mask = AttentionMask(6, 8)
    right, before = explicit_attention(query, key, value, mask, need_weights=True)
    ones = torch.eye(8).expand(*value.shape[:2], 8, 8)  # so that weights come out
    kept = blockwise_attention(query, key, ones, mask, 0.3, block_size=4)
    share = (kept != 0).double().mean()
    assert abs(share - 0.7) < 3 * (0.3 * 0.7 / kept.numel()) ** 0.5
    close(kept[kept != 0], (before / 0.7)[kept != 0], 1e-4)
    y = 2.0 * (kept != 0) - 1 - 0.4
    for shift in ((1, 0), (1, 1), (4, 2), (4, 3)):  # other samples, heads, blocks, keys
        assert (y * y.roll(*shift)).mean().abs() < 4 * 0.84 / y.numel() ** 0.5
    out = blockwise_attention(query, key, value, mask, 0.3, 4).unflatten(0, (2000, B))
    error = out.std(0) / 2000**0.5
    assert ((out.mean(0) - right[:B]).abs() < 3 * error).double().mean() > 0.98


def test_all_dropped():
    heads = tokens(4, 4)
    out = blockwise_attention(*heads, AttentionMask(4, 4), 1.0)
    assert (out == 0).all()
    assert all((grad == 0).all() for grad in torch.autograd.grad(out.sum(), heads))


def test_backward_leaves_the_generator_of_torch_alone():
    heads = tokens(4, 4)
    out = blockwise_attention(*heads, AttentionMask(4, 4), 0.5)
    before = torch.get_rng_state()
    first = torch.autograd.grad(out.sum(), heads, retain_graph=True)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    for ours, right in zip(torch.autograd.grad(out.sum(), heads), first):
        assert torch.equal(ours, right)
    drawn = [blockwise_attention(*heads, AttentionMask(4, 4), 0.5) for _ in range(2)]
    assert not torch.equal(*drawn)


def test_checkpointed_drops_the_same():
    heads = tokens(6, 6)

    def attend(*given):
        return blockwise_attention(*given, AttentionMask(6, 6, causal=True), 0.5, block_size=4)

    found = []
    for run in (attend, lambda *given: checkpoint(attend, *given, use_reentrant=False)):
        torch.manual_seed(3)
        y = run(*heads)
        found.append((y, *torch.autograd.grad(y.sin().sum(), heads)))
    for plain, again in zip(*found):
        assert torch.equal(plain, again)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_and_autocast(dtype):
    heads = [x.detach().to(dtype).requires_grad_() for x in tokens(300, 300)]
    mask = AttentionMask(300, 300, causal=True)
    exact = [x.detach().double().requires_grad_() for x in heads]
    with torch.autocast("cpu", dtype):
        out = blockwise_attention(*heads, mask, block_size=16)
        # Autocast has chosen before; the products of single precision stay what they are.
        single = blockwise_attention(*(x.detach().float() for x in heads), mask, block_size=16)
    right = explicit_attention(*exact, mask)[0]
    assert out.dtype == dtype
    assert single.dtype == torch.float32
    close(out.double(), right, 2e-2)
    close(single.double(), right, 1e-5)
    grads = [torch.autograd.grad(y.sum(), x) for y, x in ((out, heads), (right, exact))]
    for ours, expected in zip(*grads):
        assert ours.dtype == dtype
        assert (ours - expected).norm() < 2e-2 * expected.norm()


def test_keys_that_causality_hides_cost_nothing():
    heads = [x.detach() for x in tokens(64, 64)]
    flops = []
    for causal in (False, True):
        with FlopCounterMode(display=False) as counter:
            blockwise_attention(*heads, AttentionMask(64, 64, causal=causal), block_size=8)
        flops.append(counter.get_total_flops())
    assert flops[0] == 4 * B * H * D * 64 * 64
    assert flops[1] == 4 * B * H * D * 64 * (64 + 8) / 2


def test_no_rows_and_no_second_derivative():
    query = torch.zeros(0, 2, 3, 4, requires_grad=True)
    out = blockwise_attention(query, query, query, AttentionMask(3, 3), 0.1)
    assert out.shape == (0, 2, 3, 4)
    out.sum().backward()
    heads = tokens(3, 3)
    out = blockwise_attention(*heads, AttentionMask(3, 3))
    (grad,) = torch.autograd.grad(out.sin().sum(), heads[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_inputs_stay_as_they_are():
    heads = tokens(5, 5)
    given = {"attn_mask": torch.zeros(5, 5).masked_fill(torch.rand(5, 5) > 0.5, -math.inf)}
    before = [x.detach().clone() for x in (*heads, *given.values())]
    mask = attention_mask((B, H, 5, 5), **given, is_causal=True)
    blockwise_attention(*heads, mask, 0.3, 2).sum().backward()
    for x, old in zip((*heads, *given.values()), before):
        assert torch.equal(x.detach(), old)


@pytest.mark.parametrize(("dropout", "hidden"), [(0.0, False), (0.1, True)])
def test_memory_is_linear(dropout, hidden):
    """With a padding mask, as an attention mask is quadratic by itself."""
    slopes = []
    for attend in (explicit_attention, blockwise_attention):
        peaks = []
        for length in (256, 2048):
            heads = [torch.randn(1, 2, length, 16, requires_grad=True) for _ in range(3)]
            padding = (torch.rand(1, length) > 0.5)[:, None, None] if hidden else None
            mask = AttentionMask(length, length, None, padding, causal=hidden)

            def step(attend=attend, heads=heads, mask=mask) -> None:
                y = attend(*heads, mask, dropout)
                y = y[0] if isinstance(y, tuple) else y
                torch.autograd.grad(y.sum(), heads)

            peaks.append(peak_memory(step, torch.device("cpu")))
        slopes.append(math.log(peaks[1] / peaks[0], 8))
    assert slopes[0] >= 1.8
    assert slopes[1] <= 1.15
