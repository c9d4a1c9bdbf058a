"""What all operations owe to input that is wrong, empty or not a number."""

import importlib
import math

import pytest
import torch
from torch import Tensor

from pyg_stmamba.ops import causal_conv1d, graph_attention, linear_attention, selective_scan


def on_cpu(op: str) -> list[str]:
    module = importlib.import_module(f"pyg_stmamba.ops.{op}")
    arguments = module.example_inputs("cpu")
    return [e.name for e in module.IMPLEMENTATIONS if not e.reasons_against(*arguments)]


def leaf(*shape: int) -> Tensor:
    return torch.randn(*shape, requires_grad=True)


def scan_inputs(rows=3, steps=12, channels=4, states=2) -> dict[str, Tensor]:
    return {
        "u": leaf(rows, steps, channels),
        "delta": leaf(rows, steps, channels),
        "A": (-torch.rand(channels, states) - 0.1).requires_grad_(),
        "B": leaf(rows, steps, states),
        "C": leaf(rows, steps, states),
        "D": leaf(channels),
        "z": leaf(rows, steps, channels),
        "delta_bias": leaf(channels),
        "initial_state": leaf(rows, channels, states),
    }


def conv_inputs(rows=3, steps=12, channels=4) -> dict[str, Tensor]:
    return {
        "x": leaf(rows, steps, channels),
        "weight": leaf(channels, 4),
        "bias": leaf(channels),
        "initial_state": leaf(rows, 3, channels),
    }


def attention_inputs(nodes=5, edges=9, slices=3, heads=2, channels=4) -> dict[str, Tensor]:
    return {
        "value": leaf(nodes, slices, heads, channels),
        "source_logit": leaf(nodes, slices, heads),
        "target_logit": leaf(nodes, slices, heads),
        "edge_index": torch.randint(0, max(nodes, 1), (2, edges)),
        "edge_logit": leaf(edges, 1, heads),
    }


def feature_inputs(rows=3, steps=12, queries=None, features=4, size=2) -> dict[str, Tensor]:
    return {
        "query": torch.rand(rows, steps if queries is None else queries, features).requires_grad_(),
        "key": torch.rand(rows, steps, features).requires_grad_(),
        "value": leaf(rows, steps, size),
        "log_scale": leaf(rows, steps),
    }


def scan(inputs, **options):
    return selective_scan(**inputs, delta_softplus=True, return_last_state=True, **options)


def convolve(inputs, **options):
    return causal_conv1d(**inputs, activation="silu", return_final_state=True, **options)


def attend(inputs, **options):
    return graph_attention(**inputs, return_attention=True, **options)


def attend_both_ways(inputs, **options):
    return [linear_attention(**inputs, **options)]


def attend_to_the_past(inputs, **options):
    y, state = linear_attention(**inputs, causal=True, return_final_state=True, **options)
    return y, state.key_value, state.key


EMPTY = [
    (scan, scan_inputs(rows=0), [(0, 12, 4), (0, 4, 2)]),
    (scan, scan_inputs(steps=0), [(3, 0, 4), (3, 4, 2)]),
    (convolve, conv_inputs(rows=0), [(0, 12, 4), (0, 3, 4)]),
    (convolve, conv_inputs(steps=0), [(3, 0, 4), (3, 3, 4)]),
    (convolve, conv_inputs(channels=0), [(3, 12, 0), (3, 3, 0)]),
    (attend, attention_inputs(nodes=0, edges=0), [(0, 3, 2, 4), (0, 3, 2)]),
    (attend, attention_inputs(edges=0), [(5, 3, 2, 4), (0, 3, 2)]),
    (attend, attention_inputs(slices=0), [(5, 0, 2, 4), (9, 0, 2)]),
    (attend, attention_inputs(channels=0), [(5, 3, 2, 0), (9, 3, 2)]),
    (attend_both_ways, feature_inputs(rows=0), [(0, 12, 2)]),
    (attend_both_ways, feature_inputs(steps=0), [(3, 0, 2)]),
    (attend_both_ways, feature_inputs(queries=0), [(3, 0, 2)]),
    (attend_both_ways, feature_inputs(steps=0, queries=5), [(3, 5, 2)]),
    (attend_both_ways, feature_inputs(size=0), [(3, 12, 0)]),
    (attend_to_the_past, feature_inputs(rows=0), [(0, 12, 2), (0, 4, 2), (0, 4)]),
    (attend_to_the_past, feature_inputs(steps=0), [(3, 0, 2), (3, 4, 2), (3, 4)]),
    (attend_to_the_past, feature_inputs(size=0), [(3, 12, 0), (3, 4, 0), (3, 4)]),
]


@pytest.mark.parametrize("name", [None, "numba", "torch", "reference"])
@pytest.mark.parametrize(("op", "inputs", "shapes"), EMPTY)
def test_empty_inputs_give_empty_outputs_and_gradients(op, inputs, shapes, name):
    try:
        outputs = op(inputs, implementation=name)
    except ValueError as refusal:
        # Only a kernel may refuse or be missing, and by default another implementation serves then.
        assert name == "numba"
        pytest.skip(str(refusal))
    assert [tuple(y.shape) for y in outputs] == shapes
    assert all(y.isfinite().all() for y in outputs)
    leaves = [x for x in inputs.values() if x.requires_grad]
    loss = sum(y.sin().sum() for y in outputs)
    for x, grad in zip(leaves, torch.autograd.grad(loss, leaves, allow_unused=True)):
        assert grad is None or (grad.shape == x.shape and grad.isfinite().all())


@pytest.mark.parametrize(
    ("op", "inputs", "floating"),
    [
        (scan, scan_inputs(), ("delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")),
        (convolve, conv_inputs(), ("weight", "bias", "initial_state")),
        (attend, attention_inputs(), ("source_logit", "target_logit", "edge_logit")),
        (attend_both_ways, feature_inputs(), ("key", "value", "log_scale")),
    ],
)
def test_wrong_dtypes_and_devices_are_named(op, inputs, floating):
    first = next(iter(inputs))
    for name in floating:
        with pytest.raises(ValueError, match=rf"{name} must be floating point, got torch.int64"):
            op({**inputs, name: inputs[name].detach().long()})
        with pytest.raises(ValueError, match=rf"{name} must be on cpu like {first}, got meta"):
            op({**inputs, name: inputs[name].detach().to("meta")})


def test_edges_on_another_device_are_named():
    inputs = attention_inputs()
    with pytest.raises(ValueError, match="edge_index must be on cpu like value, got meta"):
        attend({**inputs, "edge_index": inputs["edge_index"].to("meta")})


def test_a_mask_on_another_device_is_named():
    mask = torch.ones(3, 12, dtype=torch.bool, device="meta")
    with pytest.raises(ValueError, match="mask must be on cpu like u, got meta"):
        scan({**scan_inputs(), "mask": mask})


@pytest.mark.parametrize("name", ["padding_mask", "time_index"])
def test_what_orders_or_hides_keys_on_another_device_is_named(name):
    given = torch.zeros(3, 12, dtype=torch.bool) if name == "padding_mask" else torch.arange(12)
    with pytest.raises(ValueError, match=f"{name} must be on cpu like query, got meta"):
        attend_both_ways(feature_inputs(), **{name: given.to("meta")})


def test_a_state_on_another_device_is_named():
    inputs = feature_inputs()
    _, state = linear_attention(**inputs, causal=True, return_final_state=True)
    state = state._replace(key_value=state.key_value.to("meta"))
    with pytest.raises(ValueError, match="initial_state must be on cpu like query, got meta"):
        linear_attention(**inputs, causal=True, initial_state=state)


def spoiled(inputs: dict[str, Tensor], name: str, place: tuple[int, ...]) -> dict[str, Tensor]:
    broken = inputs[name].detach().clone()
    broken[place] = math.nan
    return {**inputs, name: broken.requires_grad_()}


def assert_nan_exactly_at(y: Tensor, clean: Tensor, hit: Tensor) -> None:
    assert torch.equal(y.isnan(), hit)
    assert torch.equal(y[~hit], clean[~hit])


@pytest.mark.parametrize("name", on_cpu("selective_scan"))
@pytest.mark.parametrize(
    ("broken", "place", "reached"),
    [
        ("u", (1, 7, 2), (1, slice(7, None), 2)),
        ("delta", (1, 7, 2), (1, slice(7, None), 2)),
        ("B", (1, 7, 0), (1, slice(7, None))),
        ("C", (1, 7, 0), (1, 7)),
        ("z", (1, 7, 2), (1, 7, 2)),
        ("initial_state", (1, 2, 0), (1, slice(None), 2)),
    ],
)
def test_nan_in_a_scan_stays_in_its_row_and_goes_forward_in_time(name, broken, place, reached):
    inputs = scan_inputs()
    clean, _ = scan(inputs, implementation=name)
    given = spoiled(inputs, broken, place)
    y, _ = scan(given, implementation=name)
    hit = torch.zeros_like(clean, dtype=torch.bool)
    hit[reached] = True
    assert_nan_exactly_at(y, clean, hit)
    grad, clean_grad = (
        torch.autograd.grad(out.sum(), tensors["u"])[0]
        for out, tensors in ((y, given), (clean, inputs))
    )
    assert torch.equal(grad[[0, 2]], clean_grad[[0, 2]])


@pytest.mark.parametrize("name", on_cpu("causal_conv1d"))
@pytest.mark.parametrize(
    ("broken", "place", "steps"),
    [("x", (1, 5, 2), slice(5, 9)), ("initial_state", (1, 1, 2), slice(0, 2))],
)
def test_nan_in_a_convolution_stays_in_its_windows(name, broken, place, steps):
    inputs = conv_inputs()
    clean, _ = convolve(inputs, implementation=name)
    given = spoiled(inputs, broken, place)
    y, _ = convolve(given, implementation=name)
    hit = torch.zeros_like(clean, dtype=torch.bool)
    hit[1, steps, 2] = True
    assert_nan_exactly_at(y, clean, hit)
    grad, clean_grad = (
        torch.autograd.grad(out.sum(), tensors["x"])[0]
        for out, tensors in ((y, given), (clean, inputs))
    )
    assert torch.equal(grad[[0, 2]], clean_grad[[0, 2]])


@pytest.mark.parametrize("name", on_cpu("linear_attention"))
@pytest.mark.parametrize("broken", ["query", "key", "value", "log_scale"])
def test_nan_in_an_attention_by_features_stays_in_its_row(name, broken):
    inputs = feature_inputs()
    given = spoiled(inputs, broken, (1, 7, 1) if inputs[broken].dim() == 3 else (1, 7))
    results = []
    for tensors in (given, inputs):
        y, *state = attend_to_the_past(tensors, implementation=name)
        results.append((y, *state, torch.autograd.grad(y.sum(), tensors["key"])[0]))
    assert all(torch.equal(a[[0, 2]], b[[0, 2]]) for a, b in zip(*results))
    assert results[0][0][1, 7].isnan().any()


@pytest.mark.parametrize("name", on_cpu("graph_attention"))
@pytest.mark.parametrize("broken", ["value", "source_logit"])
def test_nan_in_an_attention_leaves_the_gradients_of_other_slices(name, broken):
    inputs = attention_inputs()
    given = spoiled(inputs, broken, (inputs["edge_index"][0, 0], 1))
    grad, clean = (
        torch.autograd.grad(attend(x, implementation=name)[0].sum(), x["value"])[0]
        for x in (given, inputs)
    )
    assert torch.equal(grad[:, [0, 2]], clean[:, [0, 2]])
