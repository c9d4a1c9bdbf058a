"""What the border reads, and what all classes behind it have in common."""

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from pyg_stmamba.nn.blocks.joint import JointSpaceTimeTransformer
from pyg_stmamba.nn.blocks.mini import MiniSpaceTimeTransformer
from pyg_stmamba.nn.blocks.pivot import pivot
from pyg_stmamba.nn.blocks.space_time_input import read_space_time
from pyg_stmamba.nn.blocks.spatial_transformer import SpatialTransformer
from pyg_stmamba.nn.blocks.temporal_transformer import TemporalTransformer
from tests import laws
from tests.laws import close, same

B, T, N, C = 2, 6, 5, 8
EDGES = torch.tensor([[0, 1, 1, 0, 2, 3], [1, 1, 0, 2, 3, 2]])

CLASSES = {
    "temporal": lambda: TemporalTransformer(C, 2, 2),
    "temporal, causal": lambda: TemporalTransformer(C, 2, 2, max_len=T, causal=True),
    "temporal, norm first": lambda: TemporalTransformer(C, 2, max_len=9, norm_first=True),
    "spatial": lambda: SpatialTransformer(C, 2, 2),
    "spatial, along edges": lambda: SpatialTransformer(C, 2, 2, neighbors_only=True),
    "mini, space first": lambda: MiniSpaceTimeTransformer(C, 2),
    "mini, time first": lambda: MiniSpaceTimeTransformer(C, 2, "time_first"),
    "joint": lambda: JointSpaceTimeTransformer(C, 2, 2),
    "joint, causal": lambda: JointSpaceTimeTransformer(C, 2, 2, max_len=T, causal=True),
    "joint, norm first": lambda: JointSpaceTimeTransformer(C, 2, 2, norm_first=True),
}
CAUSAL = [name for name in CLASSES if "causal" in name]
WITHOUT_SPACE = [name for name in CLASSES if name.startswith("temporal")]


class NodesFirst(nn.Module):
    """A class on a fixed graph, with the face of a temporal operator."""

    def __init__(self, op: nn.Module):
        super().__init__()
        self.op = op
        self.causal = False  # it does not stream

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.op(x, EDGES, mask=mask, nodes_first=True)


def build(name: str) -> nn.Module:
    return CLASSES[name]().eval()


def graphs() -> list[Data]:
    edges = (EDGES, EDGES[:, :2], EDGES[:, :0])
    return [
        Data(x=torch.randn(n, T, C), edge_index=edge_index)
        for n, edge_index in zip((N, 3, 1), edges)
    ]


@pytest.mark.parametrize("masked", [False, True])
def test_layouts_are_read_nodes_first(masked):
    x = torch.randn(B, T, N, C)
    mask = torch.rand(B, T, N) > 0.4 if masked else None
    edge_attr = torch.randn(EDGES.size(1), 2)
    dense = read_space_time(x, EDGES, edge_attr, mask, channels=C)
    assert dense.x.shape == (N, B, T, C)
    assert dense.dense
    assert dense.edge_index is EDGES
    assert dense.edge_attr is edge_attr
    expected = x if mask is None else x * mask.unsqueeze(-1)
    same(dense.x, expected.permute(2, 0, 1, 3))
    same(dense.restore(dense.x), expected)
    if mask is not None:
        same(dense.mask, mask.permute(2, 0, 1))
        assert (dense.restore(torch.ones_like(dense.x)) == mask.unsqueeze(-1)).all()

    first = read_space_time(
        pivot(x),
        mask=None if mask is None else mask.permute(2, 0, 1),
        channels=C,
        nodes_first=True,
    )
    same(first.x, dense.x)
    same(first.restore(first.x), dense.x)
    assert first.edge_index is None


def test_data_is_read():
    data = graphs()[0]
    data.edge_attr = torch.randn(EDGES.size(1), 3)
    data.x_mask = torch.rand(N, T, C) > 0.7
    inputs = read_space_time(data, channels=C)
    same(inputs.mask, data.x_mask.any(-1))
    same(inputs.x, data.x * inputs.mask.unsqueeze(-1))
    assert inputs.edge_attr is data.edge_attr
    data.x_mask = inputs.mask
    same(read_space_time(data, channels=C).x, inputs.x)
    batch = Batch.from_data_list([data, data])
    inputs = read_space_time(batch, channels=C)
    same(inputs.batch, torch.tensor([0] * N + [1] * N))
    same(inputs.edge_index, torch.cat([EDGES, EDGES + N], 1))
    assert not inputs.dense


def test_an_adjacency_matrix_is_read():
    matrix = torch.zeros(N, N)
    matrix[3, 1] = 0.5  # node 3 receives from node 1
    inputs = read_space_time(torch.randn(N, T, C), matrix, channels=C, edge_dim=1)
    assert inputs.edge_index.tolist() == [[1], [3]]
    assert inputs.edge_attr.tolist() == [[0.5]]


def test_bad_input():
    x = torch.randn(N, T, C)
    with pytest.raises(ValueError, match=r"x\[N, T, C\].*C = 3.*\[5, 6, 8\]"):
        read_space_time(x, channels=3)
    with pytest.raises(ValueError, match=r"got a tensor of shape \[6, 8\]"):
        read_space_time(x[0], channels=C)
    with pytest.raises(ValueError, match=r"boolean.*\[5, 6\].*float32"):
        read_space_time(x, mask=torch.ones(N, T), channels=C)
    with pytest.raises(ValueError, match=r"\[5, 6\].*got \[6, 5\]"):
        read_space_time(x, mask=torch.ones(T, N) > 0, channels=C)
    with pytest.raises(ValueError, match=r"each of 5 nodes, \[5\], got \[6\]"):
        read_space_time(x, batch=torch.zeros(6).long(), channels=C)
    with pytest.raises(ValueError, match="edge_index holds node 3"):
        read_space_time(x[:3], EDGES, channels=C)


@pytest.mark.parametrize("name", CLASSES)
def test_layouts_agree(name):
    op, x = build(name), torch.randn(B, T, N, C)
    mask = torch.rand(B, T, N) > 0.3
    y, hidden = op(x, EDGES), op(x, EDGES, mask=mask)
    assert y.shape == x.shape
    close(op(pivot(x), EDGES, nodes_first=True), pivot(y), 1e-6)
    y_first = op(pivot(x), EDGES, mask=mask.permute(2, 0, 1), nodes_first=True)
    close(y_first, pivot(hidden), 1e-6)
    for b in range(B):
        one = x[b].transpose(0, 1).contiguous()
        data = Data(x=one, edge_index=EDGES)
        close(op(data), y[b].transpose(0, 1), 1e-6)
        close(op(one, EDGES, nodes_first=True), y[b].transpose(0, 1), 1e-6)
        close(op(x[b : b + 1], EDGES), y[b : b + 1], 1e-6)
        data.x_mask = mask[b].t()
        close(op(data), hidden[b].transpose(0, 1), 1e-6)


@pytest.mark.parametrize("name", CLASSES)
def test_graphs_of_a_batch_do_not_meet(name):
    op, parts = build(name), graphs()
    batch = Batch.from_data_list(parts)
    y = op(batch)
    close(y, torch.cat([op(part) for part in parts]), 1e-6)
    close(
        y,
        torch.cat([op(p.x.transpose(0, 1)[None], p.edge_index)[0].transpose(0, 1) for p in parts]),
        1e-6,
    )
    given = {"batch": batch.batch, "nodes_first": True}
    same(op(batch.x, batch.edge_index, **given), y)
    other = batch.x.clone()
    other[:N].mul_(-2.0).add_(5.0)
    same(op(other, batch.edge_index, **given)[N:], y[N:])
    windows = torch.stack([batch.x, other], 1)
    close(op(windows, batch.edge_index, **given)[:, 0], y, 1e-6)

    mask = torch.rand(batch.x.shape[:2]) > 0.4
    mask[N:] = mask[N:] & (batch.batch[N:] != 2).unsqueeze(1)  # the last graph is unobserved
    batch.x_mask = mask
    for part, of_part in zip(parts, mask.split((N, 3, 1))):
        part.x_mask = of_part
    close(op(batch), torch.cat([op(part) for part in parts]), 1e-6)


@pytest.mark.parametrize("name", CLASSES)
def test_masks(name):
    op, x = NodesFirst(build(name)), torch.randn(N, T, C)
    laws.masked_steps_have_no_influence(op, x, laws.random_mask(x))
    laws.fully_masked_rows_give_zero(op, x)
    mask = torch.ones(N, T, dtype=torch.bool)
    close(op(x, mask), op(x), 1e-6)


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("training", [False, True])
def test_causality(name, training):
    op, x = NodesFirst(CLASSES[name]()).train(training), torch.randn(N, T, C)
    laws.the_future_moves_nothing(op, x)
    laws.the_future_moves_nothing(op, x, laws.random_mask(x))
    laws.the_past_moves_the_present(op, x)


@pytest.mark.parametrize("name", CLASSES)
def test_windows_are_independent(name):
    x = torch.randn(N, 3, T, C)
    laws.rows_are_independent(NodesFirst(build(name)), x, dim=1)
    if name in WITHOUT_SPACE:
        laws.rows_are_independent(NodesFirst(build(name)), x, dim=0)


@pytest.mark.parametrize("name", CLASSES)
def test_modules(name):
    op, x = NodesFirst(build(name)), torch.randn(N, T, C)
    laws.copies_are_equal(op, lambda o: o(x))
    laws.inputs_stay_untouched(op, x, laws.random_mask(x))
    laws.inputs_stay_untouched(op.op, x.transpose(0, 1)[None], EDGES)
    laws.layout_does_not_matter(op, x)
    drawn = {n: p.detach().clone() for n, p in op.named_parameters()}
    op.op.reset_parameters()
    fresh = CLASSES[name]()
    for (key, parameter), other in zip(op.op.named_parameters(), fresh.parameters()):
        constant = (other == other.flatten()[0]).all()
        assert torch.equal(parameter, drawn[f"op.{key}"]) == constant, key
        if other.dim() > 1:
            assert parameter.std().item() == pytest.approx(other.std().item(), rel=0.3)


@pytest.mark.parametrize("name", CLASSES)
def test_derivatives(name):
    op = NodesFirst(build(name).double())
    x = torch.randn(4, 2, C, dtype=torch.double, requires_grad=True)
    mask = torch.tensor([[True, False], [True, True], [False, False], [True, True]])
    assert torch.autograd.gradcheck(lambda x: op(x, mask), x)


@pytest.mark.parametrize("name", CLASSES)
def test_autocast(name):
    op, x = NodesFirst(CLASSES[name]()), torch.randn(N, B, T, C, requires_grad=True)
    exact = op(x).detach()
    with torch.autocast("cpu", torch.bfloat16):
        y = op(x, laws.random_mask(x))
        rough = op(x)
    y.float().square().sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()
    close(rough.float(), exact, 0.1)
