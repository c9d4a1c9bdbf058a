import pytest
import torch
from torch_geometric.utils import add_self_loops, remove_self_loops

from pyg_stmamba.nn.spatial.self_loops import REDUCTIONS, with_self_loops

EDGES = torch.tensor([[0, 1, 1, 1, 0, 2], [1, 1, 1, 0, 2, 1]])


@pytest.mark.parametrize("fill_value", [*REDUCTIONS, 0.3, torch.tensor([0.2, -0.7])])
def test_against_pyg(fill_value):
    edge_attr = torch.randn(EDGES.size(1), 2)
    edge_index, attr, ignored = with_self_loops(EDGES, edge_attr, 4, fill_value)
    expected = add_self_loops(*remove_self_loops(EDGES, edge_attr), fill_value, 4)
    assert ignored is None
    assert torch.equal(edge_index, expected[0])
    torch.testing.assert_close(attr, expected[1])


def test_kept_while_the_edges_live():
    edges = EDGES.clone()
    first, _, _ = with_self_loops(edges, None, 4)
    assert with_self_loops(edges, None, 4)[0] is first
    assert with_self_loops(edges, None, 5)[0].size(1) == first.size(1) + 1
    edges[0, 0] = 2
    changed, _, _ = with_self_loops(edges, None, 4)
    assert changed[:, 0].tolist() == [2, 1]


@pytest.mark.parametrize("fill_value", ["mean", "min", 0.3])
def test_traced(fill_value):
    edge_attr = torch.randn(EDGES.size(1), 2)
    traced = torch.compile(with_self_loops, fullgraph=True, backend="eager")
    edge_index, attr, ignored = traced(EDGES, edge_attr, 4, fill_value)
    expected_index, expected, _ = with_self_loops(EDGES, edge_attr, 4, fill_value)
    assert ignored.tolist() == [False, True, True, False, False, False] + [False] * 4
    assert torch.equal(edge_index[:, ~ignored], expected_index)
    torch.testing.assert_close(attr[~ignored], expected)
