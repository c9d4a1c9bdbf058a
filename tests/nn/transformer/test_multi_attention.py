import copy
import math
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pyg_stmamba.benchmark import peak_memory
from pyg_stmamba.nn.transformer.frequency_attention import FrequencyAttention
from pyg_stmamba.nn.transformer.multi_attention import MultiAttention
from pyg_stmamba.ops import blockwise_attention, flash_attention
from tests.laws import close
from tests.nn.transformer.attention_pair import DOUBLE, TYPES, D, tokens, with_torch
from tests.ops.attention_cases import MASKS, B, H, hidden_or_added, masks


@pytest.fixture(params=[True, False], ids=["few", "many"])
def few(request, monkeypatch):
    """Whether lengths count as few; then flash writes the weights out on a CPU."""
    monkeypatch.setattr(flash_attention, "FEW", 64 if request.param else 0)
    monkeypatch.setattr(flash_attention, "FEW_WITH_DROPOUT", 256 if request.param else 0)
    monkeypatch.setattr(blockwise_attention, "WEIGHTS_AT_ONCE", 2**18 if request.param else 20)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("attention_type", TYPES)
def test_against_torch(attention_type, causal, name, few):
    """Where a query has no key, torch's module without weights gives the bias too."""
    for dtype, tolerance in ((DOUBLE, 1e-10), (torch.float32, 1e-5)):
        ours, theirs = with_torch(attention_type, dtype)
        x, memory, value = tokens(5, 7, 7, dtype=dtype)
        for given in ((x, x, x), (x, memory, memory), (x, memory, value), (memory, x, x)):
            length, keys = given[0].size(1), given[1].size(1)
            options = {**masks(name, length, keys), "is_causal": causal}
            added = torch.from_numpy(hidden_or_added((B, H, length, keys), **options)).to(dtype)
            out, nothing, state = ours(*given, **options)
            assert nothing is None
            assert state is None
            right, _ = theirs(*given, attn_mask=added.flatten(0, 1), need_weights=False)
            close(out, right, min(tolerance, 1e-6))
            leaves, found = [*{id(t): t for t in given}.values()], []
            for module, y in ((ours, out), (theirs, right)):
                wanted = [*leaves, *module.parameters()]
                found.append(torch.autograd.grad(y.sin().sum(), wanted))
            for mine, expected in zip(*found):
                close(mine, expected, tolerance)

            also, weights, _ = ours(*given, **options, need_weights=True)
            close(also, out, min(tolerance, 1e-6))
            _, expected = theirs(*given, attn_mask=added.flatten(0, 1))
            empty = (added == -math.inf).all(-1).any(1)  # which depends on no head
            assert torch.equal(out[empty], ours.out_proj.bias.expand_as(out[empty]))
            assert (weights[empty] == 0).all()
            close(weights[~empty], expected[~empty], min(tolerance, 1e-6))
            grads = torch.autograd.grad(weights.sin().sum(), [ours.in_proj_weight, given[0]])
            assert all(grad.isfinite().all() for grad in grads)


def test_without_biases():
    ours, theirs = with_torch(bias=False)
    (x,) = tokens(5)
    close(ours(x)[0], theirs(x, x, x, need_weights=False)[0], 1e-10)


def test_state_dicts_interchange():
    for bias in (True, False):
        ours = MultiAttention(D, H, bias=bias)
        theirs = nn.MultiheadAttention(D, H, bias=bias)
        shapes = {name: x.shape for name, x in theirs.state_dict().items()}
        assert {name: x.shape for name, x in ours.state_dict().items()} == shapes
        theirs.load_state_dict(ours.state_dict())


def test_initialization():
    op = MultiAttention(256, 4)
    for weight in (*op.in_proj_weight.chunk(3), op.out_proj.weight):
        bound = (6 / 512) ** 0.5
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert (op.in_proj_bias == 0).all()
    assert (op.out_proj.bias == 0).all()
    before = op.in_proj_weight.clone()
    op.reset_parameters()
    assert not torch.equal(op.in_proj_weight, before)


@pytest.mark.parametrize("attention_type", TYPES)
def test_dropout_of_weights(attention_type, few):
    """The values are those that single out a weight, the maps are identities."""
    op = MultiAttention(8, 1, 0.3, attention_type)
    with torch.no_grad():
        op.in_proj_weight.copy_(torch.eye(8).repeat(3, 1))
        op.out_proj.weight.copy_(torch.eye(8))
    query, key = (torch.randn(1, 8, 8).expand(3000, 8, 8) for _ in range(2))
    value = torch.eye(8).expand(3000, 8, 8)
    _, before, _ = op(query, key, value, need_weights=True)
    with torch.no_grad():
        kept = op(query, key, value)[0]
    share = (kept != 0).double().mean()
    assert abs(share - 0.7) < 3 * (0.3 * 0.7 / kept.numel()) ** 0.5
    close(kept[kept != 0], (before / 0.7)[kept != 0], 1e-4)
    error = kept.std(0) / 3000**0.5
    assert ((kept.mean(0) - before[0]).abs() < 3 * error).double().mean() > 0.95
    op.eval()
    close(op(query[:1], key[:1], value[:1])[0], before[:1], 1e-6)


@pytest.mark.parametrize("attention_type", TYPES)
def test_checkpointed_drops_the_same(attention_type, few):
    op, _ = with_torch(attention_type, dropout=0.5)
    (x,) = tokens(7)
    found = []
    for run in (op, lambda *given, **masked: checkpoint(op, *given, use_reentrant=False, **masked)):
        torch.manual_seed(3)
        y = run(x, is_causal=True)[0]
        found.append((y, *torch.autograd.grad(y.sin().sum(), (x, *op.parameters()))))
    for plain, again in zip(*found):
        assert torch.equal(plain, again)
    assert not torch.equal(op(x)[0], op(x)[0])
    op.eval()
    assert torch.equal(op(x)[0], op(x)[0])


@pytest.mark.parametrize("attention_type", TYPES)
def test_gradcheck_with_dropout(attention_type, few):
    op = MultiAttention(4, 2, 0.4, attention_type, block_size=2).double()
    x = torch.randn(1, 3, 4, dtype=DOUBLE, requires_grad=True)

    def attend(x, *weights):
        torch.manual_seed(3)
        return torch.func.functional_call(op, dict(zip(names, weights)), (x,), {"is_causal": True})[
            0
        ]

    names, weights = zip(*op.named_parameters())
    torch.autograd.gradcheck(attend, (x, *weights))


def test_memory_of_xformer_is_linear():
    slopes = []
    for attention_type in ("standard", "xformer"):
        op, peaks = MultiAttention(32, 2, 0.1, attention_type), []
        for length in (256, 2048):
            x = torch.randn(1, length, 32, requires_grad=True)
            padding = torch.rand(1, length) > 0.7

            def step(op=op, x=x, padding=padding) -> None:
                y, _, _ = op(x, key_padding_mask=padding, is_causal=True)
                torch.autograd.grad(y.sum(), x)

            peaks.append(peak_memory(step, torch.device("cpu")))
        slopes.append(math.log(peaks[1] / peaks[0], 8))
    assert slopes[0] >= 1.8
    assert slopes[1] <= 1.15


def test_frequency():
    op = MultiAttention(D, H, 0.0, "frequency", freq_modes=5)
    other = FrequencyAttention(D, H, modes=5)
    other.load_state_dict(op.frequency.state_dict())
    x, memory = tokens(9, 7, dtype=torch.float32)
    padding = torch.zeros(B, 7, dtype=torch.bool)
    padding[0, 5:] = True
    out, weights, state = op(x, memory, memory, key_padding_mask=padding)
    assert weights is None
    assert state is None
    close(out, other(x, memory, memory, padding), 1e-6)
    close(op(x)[0], other(x), 1e-6)
    for asked, named in (
        ({"is_causal": True}, "is_causal=True"),
        ({"attn_mask": torch.zeros(9, 9)}, "attn_mask"),
        ({"layer_state": {}}, "layer_state"),
        ({"need_weights": True}, "need_weights=True"),
    ):
        with pytest.raises(ValueError, match=f"cannot serve.*{named}.*'standard'"):
            op(x, **asked)
    before = op.frequency.out_proj.weight.clone()
    op.reset_parameters()
    assert not torch.equal(op.frequency.out_proj.weight, before)


@pytest.mark.parametrize("attention_type", TYPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(attention_type, dtype, few):
    op, _ = with_torch(attention_type, torch.float32)
    (x,) = tokens(7, dtype=torch.float32)
    added = torch.randn(7, 7)
    right, _, _ = op(x, attn_mask=added, is_causal=True)
    with torch.autocast("cpu", dtype):
        out, _, _ = op(x, attn_mask=added, is_causal=True)
    assert out.dtype == dtype
    close(out.float(), right, 1e-1)
    assert (out.float() - right).norm() < 2e-2 * right.norm()
    grads = [torch.autograd.grad(y.float().sin().sum(), (x, *op.parameters()))
             for y in (out, right)]  # fmt: skip
    for mine, expected in zip(*grads):
        assert (mine - expected).norm() <= 5e-2 * expected.norm() + 1e-2


@pytest.mark.parametrize("attention_type", TYPES)
def test_any_strides_and_nothing_in_place(attention_type):
    op, _ = with_torch(attention_type)
    x = torch.randn(5, B, D, dtype=DOUBLE).transpose(0, 1)
    memory = torch.randn(B, 1, D, dtype=DOUBLE).expand(B, 6, D)
    before = [x.clone(), memory.clone()]
    out, _, _ = op(x, memory)
    close(out, op(x.contiguous(), memory.contiguous())[0], 1e-12)
    assert torch.equal(x, before[0])
    assert torch.equal(memory, before[1])


@pytest.mark.parametrize("attention_type", [*TYPES, "frequency"])
def test_copies(attention_type):
    op = MultiAttention(D, H, 0.1, attention_type, bias=False).eval()
    x = torch.randn(B, 9, D)
    other = MultiAttention(D, H, 0.1, attention_type, bias=False).eval()
    other.load_state_dict(op.state_dict())
    for twin in (copy.deepcopy(op), pickle.loads(pickle.dumps(op)), other):
        assert torch.equal(twin(x)[0], op(x)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_heads": 5}, r"d_model \(12\).*n_heads \(5\)"),
        ({"n_heads": 0}, r"d_model \(12\).*n_heads \(0\)"),
        ({"attention_type": "fast"}, r"'fast'.*'standard', 'xformer', 'flash', 'frequency'"),
        ({"dropout": 1.5}, r"between 0 and 1, got 1\.5"),
        ({"block_size": 0}, "block_size must be 1 at least, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        MultiAttention(**{"d_model": 12, "n_heads": 3, **options})


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"query": zeros(4, D)}, r"query must be \[B, L, D\] with D = 12, got \[4, 12\]"),
        ({"key": zeros(2, 4, 5)}, r"key must be \[B, L, D\] with D = 12, got \[2, 4, 5\]"),
        ({"key": zeros(3, 4, D)}, r"the 2 samples of the query, got \[3, 4, 12\]"),
        ({"key": zeros(2, 4, D), "value": zeros(2, 5, D)}, r"\[2, 4, 12\], got \[2, 5, 12\]"),
        ({"value": zeros(2, 4, D)}, "a value without a key"),
        ({"attn_mask": zeros(4, 5)}, r"attn_mask must be \[L, S\] = \[4, 4\].*got \[4, 5\]"),
        ({"key_padding_mask": zeros(2, 5)}, r"\[B, S\] = \[2, 4\], got \[2, 5\]"),
        (
            {"layer_state": {"key": zeros(3, 2, D), "value": zeros(3, 2, D)}},
            r"\[B, t, D\] with B = 2 and D = 12, got \[3, 2, 12\]",
        ),
        (
            {"layer_state": {"key": zeros(2, 2, D), "value": zeros(2, 2, D)},
             "key_padding_mask": zeros(2, 4)},
            r"\[B, S\] = \[2, 6\], got \[2, 4\]",
        ),
    ],
)  # fmt: skip
def test_bad_inputs(given, message):
    with pytest.raises(ValueError, match=message):
        MultiAttention(D, H)(**{"query": zeros(2, 4, D), **given})


def test_bad_memory():
    op = MultiAttention(D, H, cross_attention=True)
    with pytest.raises(ValueError, match="needs a key, or a state that has seen it"):
        op(zeros(2, 4, D), layer_state={})
    _, _, state = op(zeros(2, 4, D), zeros(2, 6, D), layer_state={})
    with pytest.raises(ValueError, match="a memory of 6 tokens, the key has 5"):
        op(zeros(2, 4, D), zeros(2, 5, D), layer_state=state)


def test_repr():
    expected = (
        "MultiAttention(12, n_heads=3, dropout=0.1, attention_type='flash', cross_attention=False)"
    )
    assert str(MultiAttention(12, 3, attention_type="flash")) == expected
