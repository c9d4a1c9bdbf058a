import pytest
import torch
from torch import nn
from torch_geometric.nn import MessagePassing

from pyg_stmamba.nn.spatial.interaction import SpatialInteraction
from tests.laws import close

C, D, NODES, STEPS = 6, 2, 5, 4
# 1 -> 1 is a loop, 0 -> 2 is there twice, 4 is isolated; the edges are in no order.
EDGES = torch.tensor([[0, 1, 1, 3, 0, 0, 2, 2], [1, 1, 0, 2, 2, 2, 3, 0]])
OPTIONS = {
    "plain": {},
    "edges": {"edge_dim": D},
    "deep": {"edge_dim": D, "num_layers": 2},
    "norm": {"edge_dim": D, "norm": True},
    "deep, norm": {"num_layers": 3, "norm": True},
}


class Oracle(MessagePassing):
    """The same perceptrons as torch layers, on the concatenation of all an edge sees."""

    def __init__(self, op: SpatialInteraction):
        super().__init__(aggr="sum")
        self.message_net, self.update_net = layers(op.message), layers(op.update)

    def forward(self, x, edge_index, edge_attr):
        self.messages = None
        received = self.propagate(edge_index, x=x, edge_attr=edge_attr)
        return self.update_net(torch.cat([x, received], -1))

    def message(self, x_i, x_j, edge_attr):
        seen = [x_i, x_j] if edge_attr is None else [x_i, x_j, edge_attr]
        self.messages = self.message_net(torch.cat(seen, -1))
        return self.messages


def layers(perceptron: nn.Module) -> nn.Sequential:
    linears = [m for m in perceptron.modules() if isinstance(m, nn.Linear)]
    chain = [part for linear in linears for part in (linear, nn.ReLU())][:-1]
    norms = [m for m in perceptron.modules() if isinstance(m, nn.LayerNorm)]
    return nn.Sequential(*chain, *norms)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("features", ["static", "each step"])
def test_against_pyg_message_passing_at_each_instant(name, features):
    op = SpatialInteraction(C, **OPTIONS[name]).double()
    for parameter in op.parameters():
        nn.init.normal_(parameter)  # biases and norms too
    oracle = Oracle(op)
    x = torch.randn(NODES, STEPS, C, dtype=torch.float64, requires_grad=True)
    steps = (STEPS,) if features == "each step" else ()
    edge_attr = torch.randn(EDGES.size(1), *steps, D, dtype=torch.float64, requires_grad=True)
    attr = edge_attr if "edge_dim" in OPTIONS[name] else None

    expected, messages = [], []
    for t in range(STEPS):
        expected.append(oracle(x[:, t], EDGES, attr if attr is None or not steps else attr[:, t]))
        messages.append(oracle.messages)
    expected, messages = torch.stack(expected, 1), torch.stack(messages, 1)

    y = op(x, EDGES, attr)
    also, message = op.with_messages(x, EDGES, attr)
    close(y, expected, 1e-11)
    close(also, expected, 1e-11)
    close(message, messages, 1e-11)

    wanted = [x, *op.parameters()] + ([] if attr is None else [attr])
    weight = torch.randn_like(y)
    grads = torch.autograd.grad(y, wanted, weight)
    for a, b in zip(grads, torch.autograd.grad(expected, wanted, weight), strict=True):
        close(a, b, 1e-10)


def test_matrices_are_those_over_the_concatenation():
    shapes = {k: tuple(v.shape) for k, v in SpatialInteraction(C, D).state_dict().items()}
    assert shapes["message.first.weight"] == (C, 2 * C + D)
    assert shapes["update.first.weight"] == (C, 2 * C)
    assert shapes["message.last.weight"] == shapes["update.last.weight"] == (C, C)


def test_direction():
    op, x = SpatialInteraction(C), torch.randn(NODES, C)
    moved = x.clone()
    moved[0] += 1.0
    edge = torch.tensor([[0], [1]])
    changed = (op(moved, edge) != op(x, edge)).any(-1)
    assert changed.tolist() == [True, True, False, False, False]


def test_linear_maps_of_nodes_are_applied_to_nodes():
    op = SpatialInteraction(C, D)
    rows = []
    real = torch.nn.functional.linear

    def counted(x, *arguments):
        rows.append(x.size(0))
        return real(x, *arguments)

    edges = EDGES.repeat(1, 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "linear", counted)
        op(torch.randn(NODES, STEPS, C), edges, torch.randn(80, D))
    assert sorted(rows) == [NODES] * 5 + [80]


def test_gradcheck():
    op = SpatialInteraction(3, 2, num_layers=2, norm=True).double()
    x = torch.randn(NODES, 2, 3, dtype=torch.float64, requires_grad=True)
    edge_attr = torch.randn(EDGES.size(1), 2, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x, e: op(x, EDGES, e), (x, edge_attr))


@pytest.mark.parametrize("norm", [True, False])
def test_compiled_equals_eager(norm):
    op, x = SpatialInteraction(C, D, norm=norm), torch.randn(NODES, STEPS, C)
    edge_attr = torch.randn(EDGES.size(1), D)
    y = op(x, EDGES, edge_attr)
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")(x, EDGES, edge_attr)
    close(compiled, y, 1e-6)
    weight = torch.randn_like(y)
    grads = torch.autograd.grad(y, list(op.parameters()), weight)
    for a, b in zip(torch.autograd.grad(compiled, list(op.parameters()), weight), grads):
        close(a, b, 1e-5)


@pytest.mark.parametrize("norm", [True, False])
def test_bfloat16_autocast(norm):
    op, x = SpatialInteraction(C, D, norm=norm), torch.randn(NODES, STEPS, C)
    edge_attr = torch.randn(EDGES.size(1), D)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = op(x, EDGES, edge_attr)
        y.float().square().sum().backward()
    close(y.float(), op(x, EDGES, edge_attr), 5e-2)
    assert all(parameter.grad.isfinite().all() for parameter in op.parameters())


def test_reset_draws_anew():
    op, x = SpatialInteraction(C, norm=True), torch.randn(NODES, C)
    before = op(x, EDGES)
    for parameter in op.parameters():
        parameter.data.fill_(0.5)
    op.reset_parameters()
    assert not torch.equal(op(x, EDGES), before)
    assert all(not (parameter == 0.5).any() for parameter in op.parameters())


def test_bad_input():
    op = SpatialInteraction(C, D)
    with pytest.raises(ValueError, match=r"C = 6 channels last.*\[5, 4, 7\]"):
        op(torch.zeros(5, 4, 7), EDGES, torch.zeros(8, D))
    for shape in ((8,), (8, 3), (7, 2)):
        with pytest.raises(ValueError, match=r"\[E, 2\].*E = 8 edges"):
            op(torch.zeros(NODES, STEPS, C), EDGES, torch.zeros(shape))
    with pytest.raises(ValueError, match=r"\[E, 2\].*got None"):
        op(torch.zeros(NODES, STEPS, C), EDGES)


def test_repr():
    assert str(SpatialInteraction(6, 2)) == "SpatialInteraction(6, edge_dim=2)"
