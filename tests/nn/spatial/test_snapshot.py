import pytest
import torch
from torch import nn
from torch_geometric.nn import GATv2Conv, GCNConv, GINEConv, SAGEConv, TransformerConv

from pyg_stmamba.nn import Snapshot
from tests.laws import close

C, D, NODES, STEPS = 6, 2, 5, 4
EDGES = torch.tensor([[0, 1, 1, 0, 2, 3], [1, 1, 0, 2, 3, 2]])
# A convolution, and the size of its edge features.
CONVS = {
    "gcn": (lambda: GCNConv(C, 7), 1),
    "sage": (lambda: SAGEConv(C, 7), None),
    "sage max": (lambda: SAGEConv(C, 7, aggr="max"), None),
    "gatv2": (lambda: GATv2Conv(C, 4, heads=2, edge_dim=D), D),
    "transformer": (lambda: TransformerConv(C, 4, heads=2, edge_dim=D), D),
    "gine": (lambda: GINEConv(nn.Linear(C, 7), edge_dim=D), D),
}


@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize("features", ["static", "each step"])
def test_against_the_convolution_at_each_instant(name, features):
    build, size = CONVS[name]
    conv = build()
    edge_attr, instants = None, [None] * STEPS
    if size is not None and features == "static":
        edge_attr = torch.rand(EDGES.size(1), size)
        instants = [edge_attr] * STEPS
    elif size is not None:
        edge_attr = torch.rand(EDGES.size(1), STEPS, size)
        instants = list(edge_attr.unbind(1))
    if name == "gcn":
        instants = [e.squeeze(-1) for e in instants]
    x = torch.randn(NODES, STEPS, C, requires_grad=True)
    y = Snapshot(conv)(x, EDGES, edge_attr)
    given = [() if e is None else (e,) for e in instants]
    expected = torch.stack([conv(u, EDGES, *e) for u, e in zip(x.unbind(1), given)], 1)
    close(y, expected, 1e-6)

    leaves = [x, *conv.parameters()]
    weight = torch.randn_like(y)
    for a, b in zip(
        torch.autograd.grad(y, leaves, weight), torch.autograd.grad(expected, leaves, weight)
    ):
        close(a, b, 1e-5)


def test_more_leading_dimensions():
    conv = GCNConv(C, 7)
    x, weight = torch.randn(NODES, 3, STEPS, C), torch.rand(EDGES.size(1), STEPS, 1)
    y = Snapshot(conv)(x, EDGES, weight)
    assert y.shape == (NODES, 3, STEPS, 7)
    close(y[:, 1, 2], conv(x[:, 1, 2], EDGES, weight[:, 2, 0]), 1e-6)
    y = Snapshot(conv)(x, EDGES, weight[:, 0, 0])
    close(y[:, 1, 2], conv(x[:, 1, 2], EDGES, weight[:, 0, 0]), 1e-6)
    close(Snapshot(conv)(x[:, 0, 0], EDGES), conv(x[:, 0, 0], EDGES), 1e-6)


def test_a_trained_convolution_is_not_reset():
    conv = GCNConv(C, 7)
    before = conv.lin.weight.clone()
    op = Snapshot(conv)
    assert torch.equal(conv.lin.weight, before)
    op.reset_parameters()
    assert not torch.equal(conv.lin.weight, before)


def test_bad_input():
    with pytest.raises(ValueError, match="cached=False"):
        Snapshot(GCNConv(C, 7, cached=True))
    x = torch.zeros(NODES, STEPS, C)
    with pytest.raises(ValueError, match=r"\[E, 1\].*E = 6 edges, got \[6, 2\]"):
        Snapshot(GCNConv(C, 7))(x, EDGES, torch.zeros(6, 2))
    with pytest.raises(ValueError, match=r"\[E, D\].*E = 6 edges, got \[5, 2\]"):
        Snapshot(TransformerConv(C, 7, edge_dim=2))(x, EDGES, torch.zeros(5, 2))


def test_repr():
    assert str(Snapshot(GCNConv(6, 7))) == "Snapshot(GCNConv(6, 7))"
