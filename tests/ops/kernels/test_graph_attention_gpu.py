import importlib
import math

import pytest
import torch

from pyg_stmamba.benchmark.memory import StorageCounter
from pyg_stmamba.benchmark.op_parity import OpCase, check_implementation
from pyg_stmamba.ops import graph_attention, neighborhood
from pyg_stmamba.ops.graph_attention import IMPLEMENTATIONS
from pyg_stmamba.ops.neighborhood import _kept, outgoing_edges

TRITON = next(entry for entry in IMPLEMENTATIONS if entry.name == "triton")


@pytest.fixture
def kernel(triton_device):
    return importlib.import_module("pyg_stmamba.ops.kernels.graph_attention_gpu")


def make_case(
    targets=5, sources=6, slices=3, heads=2, channels=3, edges=20, *,
    by_slice=None, keep=False, attention=False, outputs=None,
) -> OpCase:  # fmt: skip
    """A graph with repeated edges and self loops, where the last target and the last source have
    no edge; the logits of the edges are there by slice or for all slices, if at all."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    ends = [
        torch.randint(0, max(nodes - 1, 1), (edges,), generator=generator)
        for nodes in (sources, targets)
    ]
    edge_slices = slices if by_slice else 1
    arguments = {
        "value": draw(sources, slices, heads, channels),
        "source_logit": draw(sources, slices, heads),
        "target_logit": draw(targets, slices, heads),
        "edge_index": torch.stack(ends),
        "edge_logit": None if by_slice is None else draw(edges, edge_slices, heads),
        "keep": draw(edges, slices, heads) > -0.5 if keep else None,
        "negative_slope": 0.3,
        "scale": 1.5,
        "return_attention": attention,
    }
    return OpCase("graph_attention", "", arguments, outputs or 1 + attention)


def full_case(*sizes, by_slice=False) -> OpCase:
    return make_case(*sizes, by_slice=by_slice, keep=True, attention=True)


def check(case, device, dtype=torch.float32):
    found = check_implementation(case, TRITON, torch.device(device), dtype)
    assert found.holds, str(found)


@pytest.mark.parametrize("make", [make_case, full_case])
@pytest.mark.parametrize(
    "sizes",
    [
        (1, 1, 1, 1, 1, 1),
        (63, 5, 1, 1, 1, 70),
        (5, 65, 1, 2, 3, 70),
        (3, 4, 63, 1, 2, 10),
        (4, 3, 2, 3, 65, 9),
        (3, 3, 2, 65, 1, 9),
        (3, 4, 2, 1, 63, 0),
    ],
)
def test_outputs_and_all_gradients(kernel, triton_device, make, sizes):
    check(make(*sizes), triton_device)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", [make_case, full_case])
def test_short_dtypes(kernel, triton_device, make, dtype):
    check(make(), triton_device, dtype)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("by_slice", [None, False, True])
def test_optional_inputs_and_outputs(kernel, triton_device, by_slice, keep, attention):
    check(make_case(by_slice=by_slice, keep=keep, attention=attention), triton_device)


def test_attention_that_is_not_used(kernel, triton_device):
    check(make_case(keep=True, attention=True, outputs=1), triton_device)


@pytest.mark.parametrize("by_slice", [False, True])
def test_several_blocks_of_slices(kernel, triton_device, monkeypatch, by_slice):
    monkeypatch.setattr(kernel, "TILE", 32)
    assert kernel._constants(7, 3, 3, None)[0] == 4
    check(full_case(4, 5, 7, 3, 3, 10, by_slice=by_slice), triton_device)


def test_edges_forbidden_by_their_logits(kernel, triton_device):
    case = full_case()
    target = case.arguments["edge_index"][1]
    blocked = (target == target[0]) | (torch.arange(20) % 3 == 0)
    case.arguments["edge_logit"].masked_fill_(blocked[:, None, None], -math.inf)
    check(case, triton_device)
    given = [x.to(triton_device) if torch.is_tensor(x) else x for x in case.arguments.values()]
    out, attention = TRITON.run(*(x.float() if i < 3 else x for i, x in enumerate(given)))
    assert (out[target[0]] == 0).all()
    assert (attention[blocked] == 0).all()


def results(case, device, dtype, use, name="triton"):
    """Those outputs that are used, and the gradients of their sum."""
    entry = next(entry for entry in IMPLEMENTATIONS if entry.name == name)
    given, leaves = [], []
    for x in case.arguments.values():
        moved = x.to(device) if torch.is_tensor(x) else x
        if torch.is_tensor(x) and x.is_floating_point():
            moved = moved.to(dtype).requires_grad_()
            leaves.append(moved)
        given.append(moved)
    used = use(*entry.run(*given))
    grads = torch.autograd.grad(used.sum(), leaves, materialize_grads=True)
    return [x.detach().cpu().double() for x in (used, *grads)]


def test_logits_beyond_the_range_of_exponentials(kernel, triton_device):
    case = full_case()
    for name in ("source_logit", "target_logit", "edge_logit"):
        case.arguments[name].mul_(1000)
    found, right = (
        results(case, device, dtype, lambda out, attention: out, name)
        for device, dtype, name in (
            (triton_device, torch.float32, "triton"),
            ("cpu", torch.float64, "reference"),
        )
    )
    # A logit of some thousands has few digits after the point in float32.
    for x, y in zip(found, right, strict=True):
        torch.testing.assert_close(x, y, atol=1e-3, rtol=1e-3)


def test_only_the_attention_is_used(kernel, triton_device):
    case = full_case()
    weights = torch.randn(20, 3, 2, dtype=torch.float64)
    found, right = (
        results(case, device, dtype, lambda _, attention: attention * weights.to(attention), name)
        for device, dtype, name in (
            (triton_device, torch.float32, "triton"),
            ("cpu", torch.float64, "reference"),
        )
    )
    for x, y in zip(found, right, strict=True):
        torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)


def test_every_run_gives_the_same_bits(kernel, triton_device):
    case = full_case()
    first, second = (
        results(case, triton_device, torch.float32, lambda out, attention: out.sin())
        for _ in range(2)
    )
    for x, y in zip(first, second):
        assert torch.equal(x, y)


@pytest.mark.parametrize("name", ["value", "source_logit", "target_logit", "edge_logit"])
def test_nan_comes_out_where_it_does_of_the_reference(kernel, triton_device, name):
    case = make_case(by_slice=True)
    case.arguments[name][2, 1, 0] = math.nan
    found, right = (
        results(case, device, torch.float32, lambda out, _: out, implementation)
        for device, implementation in ((triton_device, "triton"), ("cpu", "reference"))
    )
    assert found[0].isnan().any()
    for x, y in zip(found, right, strict=True):
        assert torch.equal(x.isnan(), y.isnan())


def test_strided_tensors_of_several_dtypes(kernel, triton_device):
    arguments = make_case(by_slice=True).arguments
    dtypes = {
        "value": torch.bfloat16,
        "source_logit": torch.float32,
        "target_logit": torch.float16,
        "edge_logit": torch.bfloat16,
    }
    # Nodes last in the memory; the slices and heads are next to each other in spite of that.
    given = {
        name: arguments[name].to(triton_device, dtype).movedim(0, -1).contiguous().movedim(-1, 0)
        for name, dtype in dtypes.items()
    }
    value = arguments["value"].to(triton_device, torch.bfloat16)
    given["value"] = value.movedim(-1, 1).contiguous().movedim(1, -1)
    exact = {k: x.double().cpu().requires_grad_() for k, x in given.items()}
    given = {k: x.requires_grad_() for k, x in given.items()}
    edge_index = arguments["edge_index"].t().contiguous().t()
    weights = torch.randn(3, 5, 3, 2).bfloat16(), torch.randn(3, 2, 20).bfloat16()
    outputs = []
    for name, inputs, device in (("triton", given, triton_device), ("reference", exact, "cpu")):
        out, attention = graph_attention(
            **inputs, edge_index=edge_index.to(device), return_attention=True, implementation=name
        )
        # What comes back lies in the memory as what goes in.
        views = out.movedim(-1, 0), attention.movedim(0, -1)
        loss = sum((y * w.to(y)).sum() for y, w in zip(views, weights))
        outputs.append([out, attention, *torch.autograd.grad(loss, list(inputs.values()))])
    types = [torch.bfloat16, torch.bfloat16, *dtypes.values()]
    assert [x.dtype for x in outputs[0]] == types
    for found, right in zip(*outputs):
        torch.testing.assert_close(found.double().cpu(), right, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("by_slice", [None, False, True])
def test_opcheck(kernel, triton_device, by_slice):
    arguments = make_case(by_slice=by_slice, keep=True).arguments
    value, source_logit, target_logit, edge_index, edge_logit, keep = (
        None if x is None else x.to(triton_device) for x in list(arguments.values())[:6]
    )
    floats = (value, source_logit, target_logit, edge_logit)
    columns = [None if x is None else x.bfloat16().reshape(len(x), -1) for x in floats]
    columns[0] = columns[0].view(6, 6, 3)
    rowptr, source, _, permutation = neighborhood(edge_index, 5)
    edges = (keep.flatten(1), rowptr, source, permutation, *outgoing_edges(edge_index, 6))
    options, ops = (2, 0.2, 1.5), torch.ops.pyg_stmamba
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    forward, backward = ops.fused_attention_forward.default, ops.fused_attention_backward.default
    inputs = (*columns, *edges, *options, True, "gpu")
    torch.library.opcheck(forward, inputs, test_utils=tests)
    out, attention, log_sum = forward(*inputs)
    inputs = (out, attention, *columns, *edges, log_sum, *options, "gpu")
    torch.library.opcheck(backward, inputs, test_utils=("test_schema", "test_faketensor"))


def test_compile(kernel, triton_device):
    case = full_case()
    value, source_logit, target_logit, edge_index, edge_logit, *_ = (
        x.to(triton_device) if torch.is_tensor(x) else x for x in case.arguments.values()
    )
    leaves = [x.float().requires_grad_() for x in (value, source_logit, target_logit, edge_logit)]

    def run(value, source_logit, target_logit, edge_logit, edge_index):
        return graph_attention(
            value, source_logit, target_logit, edge_index, edge_logit, implementation="triton"
        )

    outputs = []
    for function in (torch.compile(run, fullgraph=True, backend="aot_eager"), run):
        out = function(*leaves, edge_index)
        outputs.append([out, *torch.autograd.grad(out.sin().sum(), leaves)])
    for found, right in zip(*outputs):
        torch.testing.assert_close(found, right)


def test_edges_are_sorted_by_source_for_gradients_alone(kernel, triton_device):
    value = torch.randn(4, 1, 1, device=triton_device)
    edge_index = torch.tensor([[0, 1, 2], [1, 0, 3]], device=triton_device)
    arguments = (value, value[..., 0], value[..., 0], edge_index)
    with torch.no_grad():
        graph_attention(*arguments, implementation="triton")
    assert set(_kept[id(edge_index)].by_row_and_nodes) == {(1, 4)}
    graph_attention(*arguments, implementation="triton")
    assert set(_kept[id(edge_index)].by_row_and_nodes) == {(1, 4), (0, 4)}


def test_output_is_not_needed_by_the_backward_pass(kernel, triton_device):
    case = make_case()
    right = results(case, triton_device, torch.float32, lambda out, _: 2 * out)
    found = results(case, triton_device, torch.float32, lambda out, _: out.mul_(2))
    for x, y in zip(found, right):
        assert torch.equal(x, y)


def test_memory_stays_below_one_tensor_of_edges_and_channels(kernel, triton_device):
    case = make_case(3, 4, 8, 1, 64, 60, by_slice=False)
    neighborhood(case.arguments["edge_index"], 3)
    with StorageCounter() as memory:
        results(case, triton_device, torch.float32, lambda out, _: out)
    assert memory.peak < 0.7 * 60 * 8 * 64 * 4


def test_tensors_on_a_cpu_are_refused_unless_interpreted(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    value = torch.zeros(1, 1, 1)
    edge_index = torch.zeros(2, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"triton.*runs on a GPU, got tensors on cpu"):
        graph_attention(value, value[..., 0], value[..., 0], edge_index, implementation="triton")
