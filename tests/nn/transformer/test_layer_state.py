import copy
import io
import math

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pyg_stmamba.nn.transformer.layer_state import extend_layer_state, reorder_layer_state
from pyg_stmamba.nn.transformer.multi_attention import MultiAttention
from pyg_stmamba.ops import flash_attention
from tests.laws import close
from tests.nn.transformer.attention_pair import DOUBLE, TYPES, D, with_torch
from tests.nn.transformer.attention_pair import tokens as inputs
from tests.ops.attention_cases import B, H


def tokens(count: int, mark: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    key = torch.randn(2, count, 3)
    return key, key + 100 + mark


def whole(parts) -> tuple[torch.Tensor, ...]:
    return tuple(torch.cat(x, dim=1) for x in zip(*parts))


def same(state, parts) -> bool:
    key, value = whole(parts)
    return torch.equal(state["key"], key) and torch.equal(state["value"], value)


@pytest.mark.parametrize("grad", [False, True])
def test_it_grows(grad):
    parts, state = [], {}
    with torch.set_grad_enabled(grad):
        for count in (3, 1, 1, 20, 1):
            parts.append(tokens(count))
            old, before = state, {name: state[name] for name in state}
            state = extend_layer_state(state, *parts[-1])
            assert same(state, parts)
            assert old == before  # the very same objects
            assert old is not state
    assert ("buffer" in state) is not grad


@torch.no_grad()
def test_a_step_does_not_copy_the_past():
    state = extend_layer_state({}, *tokens(3))
    later = extend_layer_state(state, *tokens(1))
    assert later["key"].data_ptr() == state["key"].data_ptr()
    assert later["value"].data_ptr() == state["value"].data_ptr()


@torch.no_grad()
@pytest.mark.parametrize("copied", [dict, copy.copy, copy.deepcopy])
def test_two_continuations_of_one_state(copied):
    start = tokens(3)
    state = extend_layer_state({}, *start)
    second_start = copied(state)
    ways = [[start], [start]]
    states = [state, second_start]
    for i in range(4):
        for way, parts in enumerate(ways):
            parts.append(tokens(1, mark=10 * way + i))
            states[way] = extend_layer_state(states[way], *parts[-1])
    assert same(state, [start])
    for held, parts in zip(states, ways):
        assert same(held, parts)


def test_gradients_flow_through_a_state():
    key, value = (x.requires_grad_() for x in tokens(3))
    state = extend_layer_state({}, key, value)
    state = extend_layer_state(state, *tokens(1))
    (state["key"].sin().sum() + state["value"].sin().sum()).backward()
    assert torch.equal(key.grad, key.detach().cos())
    with torch.no_grad():
        later = extend_layer_state(state, *tokens(1))
    assert torch.equal(later["key"][:, :4], state["key"])


def test_a_graph_is_safe_from_later_steps():
    with torch.no_grad():
        state = extend_layer_state({}, *tokens(3))
    state = {**state, "key": state["key"], "value": state["value"]}
    new = tuple(x.requires_grad_() for x in tokens(1))
    seen = extend_layer_state(state, *new)
    loss = (seen["key"] * seen["value"]).sum()
    with torch.no_grad():
        extend_layer_state(state, *tokens(1))
        extend_layer_state(seen, *tokens(1))
    loss.backward()
    assert torch.equal(new[0].grad, new[1].detach())


@torch.no_grad()
def test_changed_tensors_are_believed():
    parts = [tokens(3)]
    state = extend_layer_state({}, *parts[0])
    state["key"] = state["key"].flip(0)  # the buffer still has the old rows
    later = extend_layer_state(state, *tokens(1))
    assert torch.equal(later["key"][:, :3], parts[0][0].flip(0))
    assert torch.equal(later["value"][:, :3], parts[0][1])
    another = extend_layer_state({}, *tokens(4))
    mixed = extend_layer_state({**later, "key": another["key"]}, *tokens(1))
    assert torch.equal(mixed["key"][:, :4], another["key"])
    shorter = {**later, "key": later["key"][:, :2], "value": later["value"][:, :2]}
    assert extend_layer_state(shorter, *tokens(1))["key"].shape == (2, 3, 3)
    assert torch.equal(later["key"][:, :3], parts[0][0].flip(0))


@torch.no_grad()
def test_files():
    parts = [tokens(3)]
    state = extend_layer_state({}, *parts[0])
    file = io.BytesIO()
    torch.save({name: state[name] for name in ("key", "value")}, file)
    file.seek(0)
    state = torch.load(file)
    parts.append(tokens(1))
    assert same(extend_layer_state(state, *parts[1]), parts)


@torch.no_grad()
def test_reorder():
    parts = [tokens(3), tokens(1)]
    state = extend_layer_state(extend_layer_state({"name": "mine"}, *parts[0]), *parts[1])
    index = torch.tensor([1, 1, 0])
    chosen = reorder_layer_state(state, index)
    key, value = whole(parts)
    assert same(state, parts)
    assert torch.equal(chosen["key"], key[index])
    assert torch.equal(chosen["value"], value[index])
    assert chosen["name"] == "mine"
    later = [torch.randn(3, 1, 3) for _ in range(2)]
    longer = extend_layer_state(chosen, *later)
    assert torch.equal(longer["key"], torch.cat([key[index], later[0]], 1))
    assert reorder_layer_state({}, index) == {}


def steps(op: MultiAttention, x: Tensor, chunks: list[int], padding: Tensor | None) -> list[Tensor]:
    outs, state, t = [], {}, 0
    for count in chunks:
        part, t = x[:, t : t + count], t + count
        out, _, state = op(
            part,
            key_padding_mask=None if padding is None else padding[:, :t],
            is_causal=True,
            layer_state=state,
        )
        assert state["key"].shape == state["value"].shape == (*part.shape[:1], t, D)
        outs.append(out)
    return outs


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("few", [0, 64])
@pytest.mark.parametrize("attention_type", TYPES)
def test_steps_are_the_full_causal_pass(attention_type, padded, grad, few, monkeypatch):
    monkeypatch.setattr(flash_attention, "FEW", few)
    for dtype, tolerance in ((DOUBLE, 1e-10), (torch.float32, 1e-5)):
        op, _ = with_torch(attention_type, dtype)
        op.eval()
        (x,) = inputs(19, dtype=dtype)
        padding = torch.rand(B, 19) > 0.6 if padded else None
        with torch.set_grad_enabled(grad):
            full, _, _ = op(x, key_padding_mask=padding, is_causal=True)
            for chunks in ([1] * 19, [4, 1, 9, 1, 1, 3]):
                out = torch.cat(steps(op, x, chunks, padding), dim=1)
                close(out, full, tolerance)
                if grad:
                    found = (torch.autograd.grad(y.sin().sum(), x, retain_graph=True)
                             for y in (out, full))  # fmt: skip
                    close(*found, tolerance)


@pytest.mark.parametrize("attention_type", TYPES)
@torch.no_grad()
def test_state_is_a_value(attention_type):
    op, _ = with_torch(attention_type)
    x, left, right = inputs(3, 4, 4)
    given = {}
    _, _, state = op(x, is_causal=True, layer_state=given)
    assert given == {}
    kept = copy.deepcopy(state)
    expected = [op(torch.cat([x, y], 1), is_causal=True)[0][:, 3:] for y in (left, right)]
    states, outs = [state, state], [[], []]
    for t in range(4):
        for way, y in enumerate((left, right)):
            out, _, states[way] = op(y[:, t : t + 1], is_causal=True, layer_state=states[way])
            outs[way].append(out)
    for out, full in zip(outs, expected):
        close(torch.cat(out, 1), full, 1e-10)
    for name in ("key", "value"):
        assert torch.equal(state[name], kept[name])
    file = io.BytesIO()
    torch.save({name: kept[name] for name in ("key", "value")}, file)
    file.seek(0)
    for start in (kept, torch.load(file)):
        out, _, _ = op(left, is_causal=True, layer_state=start)
        close(out, expected[0], 1e-10)


@pytest.mark.parametrize("attention_type", TYPES)
@pytest.mark.parametrize("grad", [False, True])
def test_memory_is_mapped_once(attention_type, grad):
    op, theirs = with_torch(attention_type)
    op.cross_attention = True
    x, memory = inputs(4, 6)
    padding = torch.tensor([[False] * 6, [False] * 4 + [True] * 2, [True] * 5 + [False]])
    with torch.set_grad_enabled(grad):
        right = theirs(x, memory, memory, padding, need_weights=False)[0]
        state, before = {}, None
        for t in range(4):
            key = (memory, None, torch.full_like(memory, math.nan), memory)[t]
            out, _, new = op(x[:, t : t + 1], key, key_padding_mask=padding, layer_state=state)
            close(out, right[:, t : t + 1], 1e-10)
            assert new is not state
            pointers = [new[name].data_ptr() for name in ("key", "value")]
            assert before is None or pointers == before
            state, before = new, pointers
    assert set(state) == {"key", "value"}
    assert state["key"].shape == (B, 6, D)


@torch.no_grad()
def test_beams():
    op, _ = with_torch()
    x, more = inputs(3, 2)
    _, _, state = op(x, is_causal=True, layer_state={})
    index = torch.tensor([1, 0, 1])
    chosen = reorder_layer_state(state, index)
    out, _, _ = op(more[index], is_causal=True, layer_state=chosen)
    full, _, _ = op(torch.cat([x, more], 1)[index], is_causal=True)
    close(out, full[:, 3:], 1e-10)


@torch.no_grad()
def test_flops_of_a_step():
    op = MultiAttention(D, H).eval()
    state, counts = {}, []
    for _ in range(20):
        with FlopCounterMode(display=False) as counter:
            _, _, state = op(torch.randn(B, 1, D), is_causal=True, layer_state=state)
        counts.append(counter.get_total_flops())
    assert counts == [B * (2 * 4 * D * D + 4 * D * t) for t in range(1, 21)]
