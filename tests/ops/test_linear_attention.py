import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pyg_stmamba.benchmark.memory import StorageCounter
from pyg_stmamba.ops import (
    LinearAttentionState,
    linear_attention,
    positive_features,
    random_projection,
    relu_features,
)
from pyg_stmamba.ops.linear_attention import IMPLEMENTATIONS

NAMES = [entry.name for entry in IMPLEMENTATIONS]
ORDERED = ["causal", "times", "strict"]
MODES = ["both ways", *ORDERED]
FEATURES, SIZE = 12, 3


def order(mode: str, steps: int) -> dict:
    if mode == "both ways":
        return {}
    if mode == "causal":
        return {"causal": True}
    # Unequal numbers of tokens a time, in no order, some times left out.
    generator = torch.Generator().manual_seed(1)
    time = 3 * torch.randint(-2, steps // 3 + 1, (steps,), generator=generator)
    return {"time_index": time, "strict": mode == "strict"}


def visible(mode: str, steps: int) -> np.ndarray:
    if mode == "both ways":
        return np.ones((steps, steps), dtype=bool)
    if mode == "causal":
        return np.tril(np.ones((steps, steps), dtype=bool))
    time = order(mode, steps)["time_index"].numpy()
    return time[:, None] > time if mode == "strict" else time[:, None] >= time


def make_inputs(*rows: int, steps: int, scale: float = 1.0, dtype=torch.float64):
    """Features of normal queries and keys of this scale."""
    omega = random_projection(FEATURES, 8).double()
    query, key = (
        positive_features(scale * torch.randn(*rows, steps, 8, dtype=torch.float64), omega)
        for _ in range(2)
    )
    inputs = {
        "query": query.values,
        "key": key.values,
        "value": torch.randn(*rows, steps, SIZE, dtype=torch.float64),
        "log_scale": key.log_scale,
    }
    return {name: x.to(dtype).requires_grad_() for name, x in inputs.items()}


def make_state(*rows: int, dtype=torch.float64) -> LinearAttentionState:
    return LinearAttentionState(
        torch.randn(*rows, FEATURES, SIZE, dtype=dtype).requires_grad_(),
        (torch.rand(*rows, FEATURES, dtype=dtype) + 0.1).requires_grad_(),
        torch.randn(rows, dtype=dtype).requires_grad_(),
    )


def hidden_keys(*rows: int, steps: int) -> Tensor:
    mask = torch.rand(*rows, steps) > 0.6
    mask[..., 0] = True
    return mask


def without_scale(state: LinearAttentionState) -> list[Tensor]:
    """What a state stands for, whatever it is relative to: means, and the log of the weight."""
    total = state.key.sum(-1)
    mean = state.key_value / total[..., None, None]
    return [mean, state.key / total.unsqueeze(-1), total.log() + state.log_scale]


def outputs_and_gradients(inputs, state=None, mode="both ways", **kwargs) -> list[Tensor]:
    leaves = [*inputs.values(), *(state or [])]
    options = {**order(mode, inputs["query"].size(-2)), **kwargs}
    if mode == "both ways":
        outputs = [linear_attention(**inputs, **options)]
    else:
        y, after = linear_attention(
            **inputs, initial_state=state, return_final_state=True, **options
        )
        outputs = [y, *without_scale(after)]
    loss = sum((x * torch.linspace(-1, 1, x.numel()).to(x).view(x.shape)).sum() for x in outputs)
    return [*outputs, *torch.autograd.grad(loss, leaves)]


def assert_close(actual, expected, tolerance: float) -> None:
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        assert a.isfinite().all()
        scale = max(1.0, float(e.detach().abs().max()) if e.numel() else 0.0)
        torch.testing.assert_close(a.to(e.dtype) / scale, e / scale, atol=tolerance, rtol=0)


def pair_by_pair(query, key, value, log_scale, seen, hidden, state):
    """The equations in numpy, number by number."""
    y = np.zeros_like(value)
    for r in range(query.shape[0]):
        for i in range(query.shape[1]):
            numerator, denominator = np.zeros(SIZE), 0.0
            for j in range(key.shape[1]):
                if seen[i, j] and not hidden[r, j]:
                    weight = math.exp(log_scale[r, j]) * (query[r, i] @ key[r, j])
                    numerator += weight * value[r, j]
                    denominator += weight
            if state is not None:
                weight = math.exp(state[2][r])
                numerator += weight * (query[r, i] @ state[0][r])
                denominator += weight * (query[r, i] @ state[1][r])
            if denominator > 0:
                y[r, i] = numerator / denominator
    weight = np.exp(log_scale) * ~hidden
    key_value = np.einsum("rj,rjm,rje->rme", weight, key, value)
    key_sum = np.einsum("rj,rjm->rm", weight, key)
    if state is not None:
        key_value += np.exp(state[2])[:, None, None] * state[0]
        key_sum += np.exp(state[2])[:, None] * state[1]
    return y, key_value, key_sum


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stateful", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_equations(name, mode, stateful, masked):
    if stateful and mode == "both ways":
        pytest.skip("there is no state without an order")
    steps = 70
    inputs = {k: x.detach() for k, x in make_inputs(2, steps=steps).items()}
    state = make_state(2) if stateful else None
    hidden = hidden_keys(2, steps=steps) if masked else torch.zeros(2, steps, dtype=torch.bool)
    arrays = [x.numpy() for x in inputs.values()]
    before = None if state is None else [x.detach().numpy() for x in state]
    expected, key_value, key_sum = pair_by_pair(
        *arrays, visible(mode, steps), hidden.numpy(), before
    )
    options = {"padding_mask": hidden if masked else None, "implementation": name}
    if mode == "both ways":
        y = linear_attention(**inputs, **options)
    else:
        y, after = linear_attention(
            **inputs, **order(mode, steps), initial_state=state, return_final_state=True, **options
        )
        scale = after.log_scale.detach().exp()
        found = scale[:, None, None] * after.key_value.detach()
        np.testing.assert_allclose(found, key_value, atol=1e-10)
        np.testing.assert_allclose(scale[:, None] * after.key.detach(), key_sum, atol=1e-10)
    np.testing.assert_allclose(y.detach().numpy(), expected, atol=1e-10)
    if mode == "strict" and not stateful:
        assert (y == 0).all(-1).any()  # queries of the first time


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("stateful", [True, False])
@pytest.mark.parametrize(
    ("rows", "steps"), [((2,), 1), ((), 2), ((3, 2), 63), ((2,), 64), ((2, 1), 65), ((2,), 200)]
)
def test_parity(mode, masked, stateful, rows, steps):
    inputs = make_inputs(*rows, steps=steps, scale=2.0)
    state = make_state(*rows) if stateful and mode != "both ways" else None
    mask = None
    if masked:
        mask = hidden_keys(*rows, steps=steps)
        mask[..., -1] = False  # without any key a state has no mean
    ours, expected = (
        outputs_and_gradients(inputs, state, mode, padding_mask=mask, implementation=name)
        for name in NAMES
    )
    assert_close(ours, expected, 1e-11)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("name", NAMES)
def test_float32(name, scale, mode):
    inputs = make_inputs(2, 2, steps=200, scale=scale)
    right = outputs_and_gradients(inputs, None, mode, implementation="reference")
    rounded = {key: x.detach().float().requires_grad_() for key, x in inputs.items()}
    ours = outputs_and_gradients(rounded, None, mode, implementation=name)
    assert_close(ours[:1], right[:1], 1e-5)
    assert_close(ours[1:], right[1:], 2e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", MODES)
def test_gradcheck(name, mode):
    inputs, state = make_inputs(2, steps=7), make_state(2)
    mask = hidden_keys(2, steps=7)

    def run(*tensors):
        given = dict(zip(inputs, tensors))
        options = {"padding_mask": mask, "implementation": name, **order(mode, 7)}
        if mode == "both ways":
            return linear_attention(**given, **options)
        before = LinearAttentionState(*tensors[4:])
        y, after = linear_attention(
            **given, **options, initial_state=before, return_final_state=True
        )
        return y, *without_scale(after)

    leaves = [*inputs.values(), *([] if mode == "both ways" else state)]
    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ORDERED)
@pytest.mark.parametrize("masked", [True, False])
def test_chunks_are_the_whole(name, mode, masked):
    steps = 200
    inputs = make_inputs(3, steps=steps, scale=2.0)
    mask = hidden_keys(3, steps=steps) if masked else None
    time = order(mode, steps).get("time_index")
    if time is not None:
        time = time.sort().values
    whole, last = linear_attention(
        **inputs,
        padding_mask=mask,
        causal=time is None,
        time_index=time,
        strict=mode == "strict",
        return_final_state=True,
        implementation=name,
    )
    cuts = [0, 1, 7, 70, 135, 200]
    if time is not None:  # a chunk ends where a time does
        cuts = [0, *(int((time <= time[cut]).sum()) for cut in cuts[1:-1]), 200]
    state, parts = None, []
    for start, end in itertools.pairwise(cuts):
        y, state = linear_attention(
            **{key: x[:, start:end] for key, x in inputs.items()},
            padding_mask=None if mask is None else mask[:, start:end],
            causal=time is None,
            time_index=None if time is None else time[start:end],
            strict=mode == "strict",
            initial_state=state,
            return_final_state=True,
            implementation=name,
        )
        parts.append(y)
    assert_close([torch.cat(parts, 1), *state], [whole, *last], 1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ORDERED)
@pytest.mark.parametrize("cut", [10, 40, 64, 100])
def test_the_future_moves_nothing(name, mode, cut):
    steps = 150
    omega = random_projection(FEATURES, 8)
    query, key, value = (torch.randn(2, steps, size) for size in (8, 8, SIZE))
    time = order(mode, steps).get("time_index", torch.arange(steps))
    now = time.sort().values[cut]
    future = time >= now
    # To a query of that very time its keys are future too.
    past = time <= now if mode == "strict" else time < now
    results = []
    for key_factor, value_factor in ((1.0, 1.0), (50.0, 100.0)):
        factor = torch.where(future, key_factor, 1.0).unsqueeze(-1)
        keys = positive_features(factor * key, omega)
        values = torch.where(future, value_factor, 1.0).unsqueeze(-1) * value
        queries = positive_features(query, omega).values
        y = linear_attention(
            queries, keys.values, values, keys.log_scale, implementation=name, **order(mode, steps)
        )
        results.append(y)
    assert past.any()
    assert torch.equal(results[0][:, past], results[1][:, past])
    assert not torch.equal(results[0][:, future], results[1][:, future])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", MODES)
def test_padding_is_as_if_it_were_not_there(name, mode):
    steps = 130
    inputs = make_inputs(2, steps=steps, dtype=torch.float32)
    mask = hidden_keys(1, steps=steps).expand(2, -1)
    kept = ~mask[0]
    given = order(mode, steps)
    y = linear_attention(**inputs, padding_mask=mask, implementation=name, **given)
    if "time_index" in given:
        given["time_index"] = given["time_index"][kept]
    cropped = {key: x[:, kept] for key, x in inputs.items()}
    expected = linear_attention(**cropped, implementation=name, **given)
    assert_close([y[:, kept]], [expected], 1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", MODES)
def test_what_is_hidden_has_no_influence(name, mode):
    inputs, state = make_inputs(3, steps=90), make_state(3) if mode != "both ways" else None
    mask = hidden_keys(3, steps=90)
    arguments = {"padding_mask": mask, "implementation": name}
    clean = outputs_and_gradients(inputs, state, mode, **arguments)
    for key in ("key", "value", "log_scale"):
        where = mask if key == "log_scale" else mask.unsqueeze(-1)
        inputs[key] = inputs[key].detach().masked_fill(where, math.nan).requires_grad_()
    spoiled = outputs_and_gradients(inputs, state, mode, **arguments)
    assert_close(spoiled, clean, 0.0)
    grads = dict(zip(inputs, spoiled[1 if mode == "both ways" else 4 :]))
    assert all((grads[key][mask] == 0).all() for key in ("key", "value", "log_scale"))
    assert all((grads[key][~mask] != 0).any() for key in ("key", "value", "log_scale"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", MODES)
def test_a_query_without_a_key_gives_zero(name, mode):
    inputs = make_inputs(2, steps=70)
    mask = torch.ones(2, 70, dtype=torch.bool)
    mask[1, 65:] = False
    y = linear_attention(**inputs, padding_mask=mask, implementation=name, **order(mode, 70))
    assert (y[0] == 0).all()
    assert (y[1, 69] != 0).any()
    assert mode != "causal" or (y[1, :65] == 0).all()
    grads = torch.autograd.grad(y.sin().sum(), list(inputs.values()))
    assert all(g.isfinite().all() for g in grads)
    assert all((g[0] == 0).all() for g in grads)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ORDERED)
def test_hidden_keys_leave_a_state_as_it_is(name, mode):
    inputs, state = make_inputs(2, steps=70), make_state(2)
    y, after = linear_attention(
        **inputs,
        padding_mask=torch.ones(2, 70, dtype=torch.bool),
        initial_state=state,
        return_final_state=True,
        implementation=name,
        **order(mode, 70),
    )
    assert_close(after, state, 0.0)
    weights = inputs["query"] @ state.key.unsqueeze(-1)
    assert_close([y], [inputs["query"] @ state.key_value / weights], 1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_no_keys_and_no_queries(name):
    inputs, state = make_inputs(2, steps=5), make_state(2)
    none = {key: x[:, :0] for key, x in inputs.items()}
    y = linear_attention(**{**none, "query": inputs["query"]}, implementation=name)
    assert y.shape == (2, 5, SIZE)
    assert (y == 0).all()
    assert linear_attention(**{**inputs, "query": none["query"]}).shape == (2, 0, SIZE)
    for given in ({"causal": True}, {"time_index": torch.arange(0)}):
        options = {**given, "return_final_state": True, "implementation": name}
        y, fresh = linear_attention(**none, **options)
        assert y.shape == (2, 0, SIZE)
        _, after = linear_attention(**none, initial_state=state, **options)
        assert_close(after, state, 0.0)
        # What it gives without keys before is a state to go on from.
        later = {"causal": True, "implementation": name}
        y = linear_attention(**inputs, initial_state=fresh, **later)
        assert_close([y], [linear_attention(**inputs, **later)], 0.0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", MODES)
def test_scales_of_any_size(name, mode):
    inputs = make_inputs(2, steps=70)
    shift = torch.tensor([[1e4], [-1e4]])
    options = {"implementation": name, **order(mode, 70)}
    shifted = {**inputs, "log_scale": inputs["log_scale"] + shift}
    assert_close(
        [linear_attention(**shifted, **options)], [linear_attention(**inputs, **options)], 1e-10
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("product", "expected"), [(1e-22, 7.0), (1e-30, 0.0), (1e-37, 0.0)])
def test_gradients_are_finite_where_features_hardly_meet(product, expected, causal, name):
    query = torch.tensor([[1.0, product]], requires_grad=True)
    key = torch.tensor([[0.0, 1.0]], requires_grad=True)
    value = torch.full((1, 2), 7.0, requires_grad=True)
    y = linear_attention(query, key, value, causal=causal, implementation=name)
    assert_close([y], [torch.full((1, 2), expected)], 1e-6)
    grads = torch.autograd.grad((1e4 * y).sum(), (query, key, value))
    assert all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", MODES)
def test_inputs_need_not_be_contiguous_and_stay_unchanged(name, mode):
    inputs = {k: v.detach() for k, v in make_inputs(4, 3, steps=20).items()}
    options = {"implementation": name, **order(mode, 20)}
    expected = linear_attention(**inputs, **options)
    strided = {k: v.transpose(0, 2).contiguous().transpose(0, 2) for k, v in inputs.items()}
    before = {k: v.clone() for k, v in strided.items()}
    assert_close([linear_attention(**strided, **options)], [expected], 1e-12)
    assert all(torch.equal(before[k], strided[k]) for k in before)
    one = {k: v[:1].expand(4, *v.shape[1:]) for k, v in inputs.items()}
    y = linear_attention(**one, **options)
    assert_close([y[3]], [expected[0]], 1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", MODES)
def test_bfloat16_sums_in_float32(name, mode):
    inputs = {k: v.detach().bfloat16() for k, v in make_inputs(3, steps=150).items()}
    wide = {k: v.float() for k, v in inputs.items()}
    options = {**order(mode, 150), "implementation": name}
    if mode != "both ways":
        _, state = linear_attention(**inputs, **options, return_final_state=True)
        assert all(x.dtype == torch.float32 for x in state)
    y = linear_attention(**inputs, **options)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, linear_attention(**wide, **options).bfloat16())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", MODES)
def test_autocast_changes_nothing(name, mode):
    inputs = make_inputs(3, steps=70, dtype=torch.float32)
    results = []
    for enabled in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            y = linear_attention(**inputs, implementation=name, **order(mode, 70))
        results.append([y, *torch.autograd.grad(y.sin().sum(), list(inputs.values()))])
    assert_close(*results, 0.0)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", ["torch"])
def test_compile(name, causal):
    inputs = make_inputs(3, steps=70)

    def run(**tensors):
        return linear_attention(**tensors, causal=causal, implementation=name)

    results = []
    for function in (torch.compile(run, fullgraph=True, backend="aot_eager"), run):
        y = function(**inputs)
        results.append([y, *torch.autograd.grad(y.sin().sum(), list(inputs.values()))])
    assert_close(*results, 1e-12)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", ["torch"])
def test_export(name, causal):
    class Attention(torch.nn.Module):
        def forward(self, query, key, value, log_scale):
            return linear_attention(
                query, key, value, log_scale, causal=causal, implementation=name
            )

    arguments = tuple(x.detach() for x in make_inputs(3, steps=70).values())
    rows = torch.export.Dim("rows")
    program = torch.export.export(Attention(), arguments, dynamic_shapes=({0: rows},) * 4)
    more = tuple(x.detach() for x in make_inputs(7, steps=70).values())
    assert_close([program.module()(*more)], [Attention()(*more)], 1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_memory_grows_like_the_inputs(mode):
    peaks = []
    lengths = [512, 1024, 2048, 4096]
    for steps in lengths:
        inputs = make_inputs(steps=steps)
        given = order(mode, steps)
        if "time_index" in given:
            given["time_index"] = torch.arange(steps) // 16
        with StorageCounter() as memory:
            linear_attention(**inputs, **given, implementation="torch").sum().backward()
        peaks.append(memory.peak)
    slope = np.polyfit(np.log(lengths), np.log(peaks), 1)[0]
    assert slope <= 1.1


def test_against_performer_pytorch(performer_pytorch):
    query, key, value = (torch.randn(2, 3, 70, size) for size in (8, 8, 5))
    omega = random_projection(20, 8)
    kernel = {"projection_matrix": omega, "eps": 0.0}
    theirs = [
        performer_pytorch.softmax_kernel(x, is_query=x is query, **kernel) for x in (query, key)
    ]
    right = performer_pytorch.linear_attention(*theirs, value)
    y = linear_attention(*theirs, value)
    torch.testing.assert_close(y, right, atol=1e-5, rtol=1e-5)
    # Their causal one adds 1e-6 to sums of keys.
    right = performer_pytorch.causal_linear_attention_noncuda(*theirs, value, eps=0.0)
    y = linear_attention(*theirs, value, causal=True)
    torch.testing.assert_close(y, right, atol=1e-5, rtol=1e-4)

    # Our features differ from theirs by factors of a query and of all keys, which cancel.
    queries, keys = (positive_features(x * 8**-0.25, omega) for x in (query, key))
    weights = [
        theirs[0] @ theirs[1].mT,
        queries.values @ (keys.values * keys.log_scale.exp().unsqueeze(-1)).mT,
    ]
    weights = [x / x.sum(-1, keepdim=True) for x in weights]
    torch.testing.assert_close(*weights, atol=1e-5, rtol=1e-5)

    theirs = [
        performer_pytorch.generalized_kernel(x, projection_matrix=omega) for x in (query, key)
    ]
    ours = [relu_features(x * 8**-0.25, omega).values for x in (query, key)]
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


BAD = [
    ({"query": torch.ones(2, 6, 7)}, r"share.*query \[2, 6, 7\], key \[2, 6, 12\]"),
    ({"key": torch.ones(2, 5, 12)}, r"number of features M > 0 and that of keys S"),
    ({"value": torch.ones(3, 6, 3)}, r"value \[3, 6, 3\]"),
    ({"query": torch.ones(6, 12)}, r"leading dimensions"),
    ({"value": torch.ones(6)}, r"value \[6\]"),
    ({"query": torch.ones(2, 6, 0), "key": torch.ones(2, 6, 0)}, r"M > 0"),
    ({"query": torch.ones(2, 6, 12).double()}, r"share a dtype, got \['torch.float32', 'torch.fl"),
    ({"log_scale": torch.ones(2, 6).bfloat16()}, r"share a dtype"),
    ({"log_scale": torch.ones(6)}, r"log_scale must hold one entry a key, \[2, 6\], got \[6\]"),
    (
        {"padding_mask": torch.ones(2, 6, 6, dtype=torch.bool)},
        r"padding_mask must hold one.*cannot mask single pairs",
    ),
    ({"padding_mask": torch.ones(2, 6)}, r"padding_mask must be boolean, got torch.float32"),
    ({"query": torch.ones(2, 4, 12), "causal": True}, r"as many queries as keys"),
    (
        {"query": torch.ones(2, 4, 12), "time_index": torch.arange(6)},
        r"as many queries as keys",
    ),
    ({"causal": True, "time_index": torch.arange(6)}, r"two orders"),
    ({"strict": True}, r"strict=True needs time_index"),
    ({"strict": True, "causal": True}, r"strict=True needs time_index"),
    ({"time_index": torch.arange(5)}, r"one integer a key, \[6\], got torch.int64 \[5\]"),
    ({"time_index": torch.zeros(2, 6).long()}, r"got torch.int64 \[2, 6\]"),
    ({"time_index": torch.ones(6)}, r"one integer a key, \[6\], got torch.float32"),
    ({"return_final_state": True}, r"a state needs an order: causal=True or time_index"),
    ({"initial_state": make_state(2)}, r"a state needs an order"),
    (
        {"causal": True, "initial_state": make_state(3, dtype=torch.float32)},
        r"shapes \(\(2, 12, 3\), \(2, 12\), \(2,\)\) beside query \[2, 6, 12\].*got \(\(3, 12, 3\)",
    ),
    (
        {"causal": True, "initial_state": make_state(2)},
        r"initial_state must hold torch.float32 beside torch.float32, got \[torch.float64",
    ),
    (
        {"causal": True, "initial_state": make_state(2, dtype=torch.bfloat16)},
        r"initial_state must hold torch.float32",
    ),
    ({"implementation": "cuda"}, r"unknown implementation 'cuda'.*'torch', 'reference'"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_input(change, message):
    inputs = make_inputs(2, steps=6, dtype=torch.float32)
    with pytest.raises(ValueError, match=message):
        linear_attention(**{**inputs, **change})
