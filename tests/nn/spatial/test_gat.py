import copy

import numpy as np
import pytest
import torch
from torch_geometric.nn import DenseGATConv, GATConv

from pyg_stmamba.nn import SpatialGAT
from tests.laws import close
from tests.nn.oracles import gat_edge_by_edge

C, D, NODES, STEPS = 6, 2, 5, 4
# 1 -> 1 is a loop that is there twice, 4 is isolated, 0 -> 2 is a double edge.
EDGES = torch.tensor([[0, 1, 1, 1, 0, 0, 2, 3], [1, 1, 1, 0, 2, 2, 3, 2]])
OPTIONS = {
    "one head": {},
    "heads": {"heads": 3},
    "averaged": {"heads": 3, "concat": False},
    "slope": {"heads": 2, "negative_slope": 0.7},
    "no loops": {"heads": 2, "add_self_loops": False},
    "no bias": {"heads": 2, "bias": False},
    "residual": {"heads": 2, "residual": True},
    "residual averaged": {"heads": 2, "residual": True, "concat": False},
    **{f"edges {fill}": {"heads": 2, "edge_dim": D, "fill_value": fill}
       for fill in ("mean", "add", "sum", "min", "max", "mul", 0.3)},
    "edges tensor": {"heads": 2, "edge_dim": D, "fill_value": torch.tensor([0.2, -0.7])},
    "edges without loops": {"heads": 2, "edge_dim": D, "add_self_loops": False},
}  # fmt: skip


def pair(options: dict) -> tuple[SpatialGAT, GATConv]:
    ours, theirs = SpatialGAT(C, 4, **options), GATConv(C, 4, **options)
    if theirs.bias is not None:
        torch.nn.init.normal_(theirs.bias)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("features", ["none", "static", "each step"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)], ids=["32", "64"]
)
def test_against_pyg_at_each_instant(name, features, dtype, tolerance):
    ours, theirs = (op.to(dtype) for op in pair(OPTIONS[name]))
    edge_attr = None
    if features != "none":
        steps = (STEPS,) if features == "each step" else ()
        edge_attr = torch.randn(EDGES.size(1), *steps, D, dtype=dtype, requires_grad=True)
    x = torch.randn(NODES, STEPS, C, dtype=dtype, requires_grad=True)
    inputs = [x] if edge_attr is None else [x, edge_attr]

    y = ours(x, EDGES, edge_attr)
    instants = edge_attr.unbind(1) if features == "each step" else [edge_attr] * STEPS
    expected = torch.stack([theirs(u, EDGES, e) for u, e in zip(x.unbind(1), instants)], 1)
    close(y, expected, tolerance)

    names, parameters = zip(*ours.named_parameters())
    theirs_named = dict(theirs.named_parameters())
    their_parameters = [theirs_named[name] for name in names]
    weight = torch.randn_like(y) / y.numel() ** 0.5
    grads = torch.autograd.grad(y, [*inputs, *parameters], weight, allow_unused=True)
    their_grads = torch.autograd.grad(
        expected, [*inputs, *their_parameters], weight, allow_unused=True
    )
    for a, b in zip(grads, their_grads):
        if b is None:
            assert a is None or (a == 0).all()
        else:
            close(a, b, tolerance)


def test_more_leading_dimensions_and_one_weight_an_edge():
    ours, theirs = pair({"heads": 2, "edge_dim": 1})
    x, weight = torch.randn(NODES, 3, STEPS, C), torch.rand(EDGES.size(1))
    y = ours(x, EDGES, weight)
    close(y[:, 1, 2], theirs(x[:, 1, 2], EDGES, weight), 1e-6)
    each = torch.randn(EDGES.size(1), STEPS, 1)
    close(ours(x, EDGES, each)[:, 1, 2], theirs(x[:, 1, 2], EDGES, each[:, 2]), 1e-6)
    each = torch.randn(EDGES.size(1), 3, STEPS, 1)
    close(ours(x, EDGES, each)[:, 1, 2], theirs(x[:, 1, 2], EDGES, each[:, 1, 2]), 1e-6)
    close(ours(x[:, 0, 0], EDGES, weight), theirs(x[:, 0, 0], EDGES, weight), 1e-6)


@pytest.mark.parametrize("add_self_loops", [True, False])
def test_attention_weights(add_self_loops):
    ours, theirs = pair({"heads": 2, "add_self_loops": add_self_loops})
    x = torch.randn(NODES, STEPS, C)
    y, (edge_index, attention) = ours(x, EDGES, return_attention_weights=True)
    close(y, ours(x, EDGES), 0.0)
    for t in range(STEPS):
        _, (edges, weights) = theirs(x[:, t], EDGES, return_attention_weights=True)
        assert torch.equal(edge_index, edges)
        close(attention[:, t], weights, 1e-6)


@pytest.mark.parametrize("edge_dim", [None, D])
def test_edge_by_edge(edge_dim):
    op = SpatialGAT(C, 4, heads=2, edge_dim=edge_dim, add_self_loops=False).double()
    torch.nn.init.normal_(op.bias)
    x = torch.randn(NODES, C, dtype=torch.float64)
    edge_attr = None if edge_dim is None else torch.randn(EDGES.size(1), D, dtype=torch.float64)
    expected = gat_edge_by_edge(op, x, EDGES, edge_attr)
    np.testing.assert_allclose(op(x, EDGES, edge_attr).detach(), expected, rtol=0, atol=1e-12)


def test_direction_against_dense():
    ours = SpatialGAT(C, 4, heads=2)
    dense = DenseGATConv(C, 4, heads=2)
    for name, value in dense.state_dict().items():
        value.copy_(ours.state_dict()[name].view_as(value))
    adj = (torch.rand(NODES, NODES) > 0.6).float()
    target, source = adj.nonzero(as_tuple=True)
    x = torch.randn(NODES, STEPS, C)
    y = ours(x, torch.stack([source, target]))
    close(y, dense(x.transpose(0, 1), adj).transpose(0, 1), 1e-6)
    assert (y - dense(x.transpose(0, 1), adj.t()).transpose(0, 1)).abs().max() > 0.1


def test_dropout_acts_on_attention_in_training_only():
    op = SpatialGAT(C, 4, dropout=0.5, bias=False)
    x = torch.randn(NODES, 200, C)
    alone = torch.tensor([[], []], dtype=torch.long)
    ratio = op(x, alone) / op.lin(x)  # each node sees itself alone: 0 or 1 / (1 - p)
    kept = ratio > 1
    close(ratio[kept], torch.full_like(ratio[kept], 2.0), 1e-5)
    assert 0.4 < kept.float().mean() < 0.6
    op.eval()
    close(op(x, alone), op.lin(x), 1e-6)


def test_gradcheck():
    op = SpatialGAT(3, 2, heads=2, edge_dim=2).double()
    x = torch.randn(NODES, 2, 3, dtype=torch.float64, requires_grad=True)
    edge_attr = torch.randn(EDGES.size(1), 2, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x, e: op(x, EDGES, e), (x, edge_attr))


@pytest.mark.parametrize("fill_value", ["mean", "max", 0.5])
@pytest.mark.parametrize("edge_dim", [None, D])
def test_compiled_equals_eager(edge_dim, fill_value):
    op = SpatialGAT(C, 4, heads=2, edge_dim=edge_dim, fill_value=fill_value)
    x = torch.randn(NODES, STEPS, C)
    edge_attr = None if edge_dim is None else torch.randn(EDGES.size(1), D)
    y = op(x, EDGES, edge_attr)
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")(x, EDGES, edge_attr)
    close(compiled, y, 1e-6)
    weight = torch.randn_like(y)
    grads = torch.autograd.grad(y, list(op.parameters()), weight)
    for a, b in zip(torch.autograd.grad(compiled, list(op.parameters()), weight), grads):
        assert b.isfinite().all()
        close(a, b, 1e-5)


def test_bfloat16_autocast():
    op, x = SpatialGAT(C, 4, heads=2), torch.randn(NODES, STEPS, C)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = op(x, EDGES)
    close(y.float(), op(x, EDGES), 3e-2)


def test_initialization():
    op = SpatialGAT(64, 32, heads=4, edge_dim=16, residual=True)
    for weight in (op.lin.weight, op.lin_edge.weight, op.res.weight):
        expected = (2 / (weight.size(0) + weight.size(1))) ** 0.5
        assert weight.std().item() == pytest.approx(expected, rel=0.05)
    bound = (6 / (4 + 32)) ** 0.5
    for att in (op.att_src, op.att_dst, op.att_edge):
        assert bound * 0.9 < att.abs().max() <= bound
    assert (op.bias == 0).all()


def test_bad_input():
    with pytest.raises(ValueError, match=r"'median'.*'mean'"):
        SpatialGAT(C, 4, fill_value="median")
    op = SpatialGAT(C, 4, edge_dim=D)
    with pytest.raises(ValueError, match=r"C = 6 channels last.*\[5, 4, 7\]"):
        op(torch.zeros(5, 4, 7), EDGES)
    for shape in ((8,), (8, 3), (7, 2), (8, 4, 3)):
        with pytest.raises(ValueError, match=r"\[E, 2\].*E = 8 edges"):
            op(torch.zeros(NODES, STEPS, C), EDGES, torch.zeros(shape))


def test_repr():
    assert str(SpatialGAT(6, 4, heads=2)) == "SpatialGAT(6, 4, heads=2)"


def test_implementation_is_forced_or_refused():
    x, edge_index = torch.randn(3, 2, 4), torch.tensor([[0, 1], [1, 2]])
    op = SpatialGAT(4, 2, heads=2, implementation="reference")
    torch.testing.assert_close(op(x, edge_index), with_implementation(op, None)(x, edge_index))
    with pytest.raises(ValueError, match="no such one"):
        with_implementation(op, "no such one")(x, edge_index)


def with_implementation(op: SpatialGAT, name: str | None) -> SpatialGAT:
    other = copy.copy(op)
    other.implementation = name
    return other
