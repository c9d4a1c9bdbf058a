import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import GATConv
from torch_geometric.utils import softmax

from pyg_stmamba.benchmark.memory import StorageCounter
from pyg_stmamba.ops import backend, graph_attention, neighborhood
from pyg_stmamba.ops.graph_attention import IMPLEMENTATIONS, example_inputs

ON_CPU = [
    entry.name for entry in IMPLEMENTATIONS if not entry.reasons_against(*example_inputs("cpu"))
]
FASTER = [name for name in ON_CPU if name != "reference"]


def skip_unless_it_runs(name: str, inputs: dict[str, Tensor]) -> None:
    entry = next(entry for entry in IMPLEMENTATIONS if entry.name == name)
    names = ("value", "source_logit", "target_logit", "edge_index")
    if reasons := entry.reasons_against(*(inputs[key] for key in names)):
        pytest.skip(f"{name}: {reasons}")


def make_inputs(
    *middle: int, nodes=7, edges=30, heads=2, channels=3, edge_middle=None, dtype=torch.float32
):
    """A graph with isolated nodes, repeated edges and self loops, as random ones have."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype).requires_grad_()

    inputs = {
        "value": draw(nodes, *middle, heads, channels),
        "source_logit": draw(nodes, *middle, heads),
        "target_logit": draw(nodes + 2, *middle, heads),
        "edge_index": torch.stack(
            [torch.randint(0, max(nodes, 1), (edges,)), torch.randint(0, nodes + 1, (edges,))]
        ),
    }
    if edge_middle is not None:
        inputs["edge_logit"] = draw(edges, *edge_middle, heads)
    return inputs


def outputs_and_gradients(inputs: dict[str, Tensor], **kwargs) -> list[Tensor]:
    torch.manual_seed(1)
    outputs = graph_attention(**inputs, **kwargs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    leaves = [x for x in inputs.values() if x.requires_grad]
    loss = sum(y.double().sin().sum() for y in outputs)
    return [*outputs, *torch.autograd.grad(loss, leaves)]


def assert_close(actual: list[Tensor], expected: list[Tensor], tolerance: float = 1e-5) -> None:
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, atol=tolerance, rtol=tolerance)


def by_hand(value, source_logit, target_logit, edge_index, edge_logit):
    """The equations in numpy, target by target."""
    out = np.zeros(target_logit.shape + value.shape[-1:])
    attention = np.zeros((edge_index.shape[1], *target_logit.shape[1:]))
    for i in range(len(target_logit)):
        edges = [e for e in range(edge_index.shape[1]) if edge_index[1, e] == i]
        weights = {}
        for e in edges:
            logit = source_logit[edge_index[0, e]] + target_logit[i] + edge_logit[e]
            weights[e] = np.exp(np.where(logit > 0, logit, 0.2 * logit))
        for e in edges:
            attention[e] = weights[e] / sum(weights.values())
            out[i] += attention[e][..., None] * value[edge_index[0, e]]
    return out, attention


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize(
    ("middle", "edge_middle"),
    [((), ()), ((5,), (1,)), ((5,), (5,)), ((2, 3), ()), ((2, 3), (1, 3)), ((2, 3), (2, 3))],
)
def test_equations(name, middle, edge_middle):
    inputs = make_inputs(*middle, edge_middle=edge_middle)
    out, attention = graph_attention(**inputs, return_attention=True, implementation=name)
    arrays = {k: v.detach().numpy() for k, v in inputs.items()}
    if edge_middle == ():
        logits = arrays["edge_logit"]
        arrays["edge_logit"] = logits.reshape(len(logits), *[1] * len(middle), -1)
    expected, expected_attention = by_hand(**arrays)
    np.testing.assert_allclose(out.detach().numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(attention.detach().numpy(), expected_attention, atol=1e-5)
    assert (out[-1] == 0).all()


@pytest.mark.parametrize("name", ON_CPU)
def test_against_gat_conv(name):
    convolution = GATConv(6, 3, heads=2, add_self_loops=False, bias=False)
    x, edge_index = torch.randn(9, 6), torch.randint(0, 9, (2, 40))
    expected, (_, expected_attention) = convolution(x, edge_index, return_attention_weights=True)
    value = convolution.lin(x).view(9, 2, 3)
    out, attention = graph_attention(
        value,
        (value * convolution.att_src).sum(-1),
        (value * convolution.att_dst).sum(-1),
        edge_index,
        return_attention=True,
        implementation=name,
    )
    assert_close([out.flatten(1), attention], [expected, expected_attention], 1e-6)
    loss = (expected.sin().sum(), out.sin().sum())
    parameters = list(convolution.parameters())
    assert_close(*(torch.autograd.grad(part, parameters, retain_graph=True) for part in loss))


@pytest.mark.parametrize("name", FASTER)
@pytest.mark.parametrize("dropout", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("return_attention", [True, False])
@pytest.mark.parametrize(
    ("nodes", "edges", "middle", "edge_middle"),
    [
        (1, 1, (), None),
        (5, 0, (3,), (1,)),
        (63, 500, (2, 2), (2, 2)),
        (65, 300, (3,), (1,)),
        (7, 30, (2, 3), (1, 3)),
        (7, 30, (0,), None),
    ],
)
def test_parity(name, dropout, return_attention, nodes, edges, middle, edge_middle):
    inputs = make_inputs(*middle, nodes=nodes, edges=edges, edge_middle=edge_middle)
    skip_unless_it_runs(name, inputs)
    ours, expected = (
        outputs_and_gradients(
            inputs, dropout=dropout, return_attention=return_attention, implementation=which
        )
        for which in (name, "reference")
    )
    assert_close(ours, expected)


@pytest.mark.parametrize("name", FASTER)
def test_parity_in_float64(name):
    inputs = make_inputs(3, edge_middle=(1,), dtype=torch.float64)
    skip_unless_it_runs(name, inputs)
    ours, expected = (
        outputs_and_gradients(inputs, implementation=which) for which in (name, "reference")
    )
    assert_close(ours, expected, 1e-12)


@pytest.mark.parametrize("name", FASTER)
def test_many_blocks_of_edges(name, monkeypatch):
    monkeypatch.setattr("pyg_stmamba.ops.edge_attention._BLOCK_ELEMENTS", 40)
    inputs = make_inputs(2, edge_middle=(1,))
    ours, expected = (
        outputs_and_gradients(inputs, implementation=which) for which in (name, "reference")
    )
    assert_close(ours, expected)


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize("edge_middle", [None, (1,), (3,)])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradcheck(name, edge_middle, dropout):
    inputs = make_inputs(
        3, nodes=4, edges=9, channels=2, edge_middle=edge_middle, dtype=torch.float64
    )
    skip_unless_it_runs(name, inputs)
    leaves = [x for x in inputs.values() if x.requires_grad]

    def run(value, source_logit, target_logit, edge_logit=None):
        torch.manual_seed(3)
        return graph_attention(
            value,
            source_logit,
            target_logit,
            inputs["edge_index"],
            edge_logit,
            dropout=dropout,
            return_attention=True,
            implementation=name,
        )

    assert torch.autograd.gradcheck(run, tuple(leaves), fast_mode=True)


@pytest.mark.parametrize("name", ON_CPU)
def test_only_the_attention_is_used(name):
    inputs = make_inputs(2)
    leaves = (inputs["source_logit"], inputs["target_logit"])
    _, attention = graph_attention(**inputs, return_attention=True, implementation=name)
    source, target = inputs["edge_index"]
    logit = F.leaky_relu(inputs["source_logit"][source] + inputs["target_logit"][target], 0.2)
    expected = softmax(logit, target, num_nodes=9)
    weights = torch.randn_like(expected)
    gradients = [torch.autograd.grad((weights * a).sum(), leaves) for a in (attention, expected)]
    assert_close([attention, *gradients[0]], [expected, *gradients[1]])


@pytest.mark.parametrize("name", ON_CPU)
def test_dropout_keeps_the_expectation(name):
    inputs = make_inputs(4000, nodes=2, edges=6, heads=1, channels=1)
    inputs = {k: v.detach()[:, :1].expand_as(v) if k != "edge_index" else v
              for k, v in inputs.items()}  # fmt: skip
    _, full = graph_attention(**inputs, return_attention=True, implementation=name)
    _, dropped = graph_attention(**inputs, dropout=0.3, return_attention=True, implementation=name)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    kept = dropped[dropped != 0] / full[dropped != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / 0.7))


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize("broken", ["value", "source_logit", "target_logit"])
def test_nan_stays_in_its_neighbourhood(name, broken):
    inputs = make_inputs(2)
    clean = graph_attention(**inputs, implementation=name)
    spoiled = inputs[broken].detach().clone()
    spoiled[3, 1] = math.nan
    out = graph_attention(**{**inputs, broken: spoiled}, implementation=name)
    source, target = inputs["edge_index"]
    hit = torch.zeros(9, dtype=torch.bool)
    hit[target[target == 3] if broken == "target_logit" else target[source == 3]] = True
    assert hit.any()
    assert out[hit, 1].isnan().all()
    torch.testing.assert_close(out[~hit], clean[~hit], atol=0, rtol=0)
    torch.testing.assert_close(out[:, 0], clean[:, 0], atol=0, rtol=0)


@pytest.mark.parametrize("name", ON_CPU)
def test_large_logits(name):
    inputs = make_inputs(2)
    for key in ("source_logit", "target_logit"):
        inputs[key] = (inputs[key].detach() * 1e4).requires_grad_()
    results = outputs_and_gradients(inputs, implementation=name)
    assert all(x.isfinite().all() for x in results)


@pytest.mark.parametrize("name", ON_CPU)
def test_edges_forbidden_by_their_logits(name):
    inputs = make_inputs(edge_middle=())
    target = inputs["edge_index"][1]
    blocked = (target == 2) | (torch.arange(30) % 3 == 0)
    logits = inputs["edge_logit"].detach().masked_fill(blocked[:, None], -math.inf)
    inputs["edge_logit"] = logits.requires_grad_()
    out, *gradients = outputs_and_gradients(inputs, implementation=name)
    del inputs["edge_logit"]
    rest = {**inputs, "edge_index": inputs["edge_index"][:, ~blocked]}
    expected = graph_attention(
        **rest, edge_logit=logits.detach()[~blocked], implementation="reference"
    )
    torch.testing.assert_close(out, expected)
    assert (out[2] == 0).all()
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("name", ON_CPU)
def test_bfloat16(name):
    inputs = make_inputs(3)
    rounded = {
        k: v.detach().bfloat16().requires_grad_() if k != "edge_index" else v
        for k, v in inputs.items()
    }
    out, attention, *gradients = outputs_and_gradients(
        rounded, return_attention=True, implementation=name
    )
    exact = {k: v.float() if k != "edge_index" else v for k, v in rounded.items()}
    expected = graph_attention(**exact, implementation="reference")
    torch.testing.assert_close(out, expected.bfloat16(), atol=1e-2, rtol=1e-2)
    assert {x.dtype for x in (out, attention, *gradients)} == {torch.bfloat16}


@pytest.mark.parametrize("name", ON_CPU)
def test_autocast_changes_nothing(name):
    inputs = make_inputs(3)
    expected = outputs_and_gradients(inputs, implementation=name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = outputs_and_gradients(inputs, implementation=name)
    assert_close(actual, expected, 0.0)


@pytest.mark.parametrize("name", ON_CPU)
def test_inputs_need_not_be_contiguous_and_stay_unchanged(name):
    inputs = {k: v.detach() for k, v in make_inputs(3, 2, edge_middle=(3, 2)).items()}
    expected = graph_attention(**inputs, implementation=name)
    strided = {
        k: v if k == "edge_index" else v.transpose(1, 2).contiguous().transpose(1, 2)
        for k, v in inputs.items()
    }
    strided["edge_index"] = inputs["edge_index"].t().contiguous().t()
    before = {k: v.clone() for k, v in strided.items()}
    torch.testing.assert_close(graph_attention(**strided, implementation=name), expected)
    assert all(torch.equal(before[k], strided[k]) for k in before)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_compile(dropout):
    inputs = make_inputs(3, edge_middle=(1,))

    def run(**tensors):
        return graph_attention(**tensors, dropout=dropout, return_attention=True)

    leaves = [x for x in inputs.values() if x.requires_grad]
    results = []
    for function in (torch.compile(run, fullgraph=True, backend="aot_eager"), run):
        torch.manual_seed(0)
        out, attention = function(**inputs)
        loss = out.sin().sum() + attention.square().sum()
        results.append([out, attention, *torch.autograd.grad(loss, leaves)])
    assert_close(*results)


def test_export():
    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, value, logit, edge_index):
            return graph_attention(value * self.scale, logit, logit, edge_index)

    def arguments(nodes, edges):
        value = torch.randn(nodes, 3, 2, 4)
        return value, value[..., 0], torch.randint(0, nodes, (2, edges))

    nodes, edges = torch.export.Dim("nodes"), torch.export.Dim("edges")
    program = torch.export.export(
        Attention(), arguments(7, 30), dynamic_shapes=({0: nodes}, {0: nodes}, {1: edges})
    )
    new = arguments(11, 50)
    torch.testing.assert_close(program.module()(*new), Attention()(*new))


@pytest.mark.parametrize("return_attention", [True, False])
def test_opcheck(return_attention):
    inputs = make_inputs(2, edge_middle=(1,))
    edge_index = inputs.pop("edge_index")
    edges = neighborhood(edge_index, 9)
    torch.library.opcheck(
        torch.ops.pyg_stmamba.attention_forward.default,
        (*inputs.values(), None, *edges, 0.2, 1.0, return_attention),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


def test_memory_stays_below_one_tensor_of_edges_and_channels():
    inputs = make_inputs(16, nodes=100, edges=3000, heads=2, channels=32)
    with StorageCounter() as memory:
        graph_attention(**inputs, implementation="torch").sum().backward()
    assert memory.peak < 0.7 * 3000 * 16 * 2 * 32 * 4


def test_forward_keeps_nothing_but_its_inputs():
    inputs = make_inputs(16, nodes=20, edges=3000, heads=2, channels=2)
    with StorageCounter() as memory:
        out = graph_attention(**inputs, implementation="torch")
    edges = 3 * 3000 * 8 + 23 * 8
    assert memory.current <= out.numel() * 4 + edges + 1024


@pytest.mark.parametrize("name", ON_CPU)
def test_gradients_are_as_exact_as_float32_allows(name):
    inputs = make_inputs(3, nodes=8, edges=40)
    for key in ("source_logit", "target_logit"):
        inputs[key] = (20 * inputs[key].detach()).requires_grad_()
    exact = {
        k: v.detach().double().requires_grad_() if v.requires_grad else v for k, v in inputs.items()
    }
    actual = outputs_and_gradients(inputs, implementation=name)
    expected = outputs_and_gradients(exact, implementation="reference")
    assert_close([x.double() for x in actual], expected, 4e-6)


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize(("heads", "channels"), [(3, 5), (4, 16), (5, 33)])
def test_more_slices_than_a_kernel_takes_at_once(name, heads, channels):
    # Three heads do not divide a block of sixteen columns, and several threads share the edges,
    # so many that two which added to the same place would meet there.
    inputs = make_inputs(101, edges=2000, heads=heads, channels=channels, edge_middle=())
    exact = {
        k: v.detach().double().requires_grad_() if v.requires_grad else v for k, v in inputs.items()
    }
    actual = outputs_and_gradients(inputs, implementation=name)
    expected = outputs_and_gradients(exact, implementation="reference")
    for a, e in zip(actual, expected, strict=True):
        scale = max(1.0, e.abs().max().item())
        torch.testing.assert_close(a.double() / scale, e / scale, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ON_CPU)
def test_one_edge_logit_for_all_heads(name):
    inputs = make_inputs(3, edge_middle=(1,))
    shared = inputs["edge_logit"].detach()[..., :1].requires_grad_()
    results = []
    for logits in (shared, shared.expand(-1, -1, 2)):
        out = graph_attention(**{**inputs, "edge_logit": logits}, implementation=name)
        results.append([out, *torch.autograd.grad(out.sin().sum(), shared)])
    assert_close(*results)


def test_very_many_nodes():
    inputs = make_inputs(nodes=70_000, edges=100_000, heads=1, channels=1)
    ours, expected = (
        outputs_and_gradients(inputs, implementation=which) for which in (None, "reference")
    )
    assert_close(ours, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edge_index": torch.tensor([[0, 7], [0, 0]])}, r"source nodes 0 to 6, got .* 0 to 7"),
        ({"edge_index": torch.tensor([[0, 6], [0, 9]])}, r"target nodes 0 to 8, got .* 0 to 9"),
        ({"edge_index": torch.zeros(2, 3)}, r"torch.int64 \[2, E\]"),
        ({"value": torch.ones(7, 3)}, r"value must be \[S, \.\.\., H, C\]"),
        ({"source_logit": torch.ones(7, 4, 2)}, r"source_logit must be \[nodes, \*\[3, 2\]\]"),
        ({"source_logit": torch.ones(8, 3, 2)}, r"source_logit must have the 7 nodes"),
        ({"target_logit": torch.ones(9, 3)}, r"target_logit must be"),
        ({"edge_logit": torch.ones(30, 2, 2)}, r"edge_logit must be \[30, 2\] or broadcast"),
        ({"edge_logit": torch.ones(29, 3, 2)}, r"edge_logit must be \[30, 2\] or broadcast"),
        ({"dropout": 1.5}, r"dropout must be a probability between 0 and 1, got 1.5"),
        ({"implementation": "dgl"}, r"unknown implementation 'dgl'.*'triton', 'torch_scatter'"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        graph_attention(**{**make_inputs(3), **change})


def scatter(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Stands in for torch-scatter's function: same arguments, 0 where nothing arrives."""
    assert dim == 0
    assert out is None
    rows = [src[index == i] for i in range(dim_size)]
    reduced = {"sum": lambda x: x.sum(0), "max": lambda x: x.amax(0)}[reduce]
    empty = torch.zeros_like(src.sum(0))
    return torch.stack([reduced(row) if len(row) else empty for row in rows])


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_torch_scatter_stand_in(monkeypatch, dropout):
    monkeypatch.setitem(sys.modules, "torch_scatter", SimpleNamespace(scatter=scatter))
    backend._first_import_failure.cache_clear()
    inputs = make_inputs(2, edge_middle=(1,))
    ours, expected = (
        outputs_and_gradients(inputs, dropout=dropout, return_attention=True, implementation=which)
        for which in ("torch_scatter", "reference")
    )
    backend._first_import_failure.cache_clear()
    assert_close(ours, expected)


def test_torch_scatter_is_there():
    """Where the real package is installed, the tests above run on it; here is the proof."""
    pytest.importorskip(
        "torch_scatter", reason="torch-scatter is not installed", exc_type=Exception
    )
    assert "torch_scatter" in ON_CPU
