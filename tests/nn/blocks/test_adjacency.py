import pytest
import torch
from torch_geometric.utils import to_dense_adj

from pyg_stmamba.nn.blocks.adjacency import read_graph

EDGES = torch.tensor([[0, 1, 2], [1, 2, 2]])


def test_edges_pass():
    attr = torch.randn(3, 2)
    edge_index, edge_attr = read_graph(EDGES, attr, 3)
    assert edge_index is EDGES
    assert edge_attr is attr
    assert read_graph(EDGES[:, :0], None, 3)[0].shape == (2, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int64])
def test_matrix_is_target_by_source(dtype):
    adj = torch.zeros(4, 4, dtype=dtype)
    adj[3, 0] = 1  # 3 receives from 0
    edge_index, edge_attr = read_graph(adj, None, 4)
    assert edge_index.tolist() == [[0], [3]]
    assert edge_attr is None
    dense = to_dense_adj(torch.tensor([[0], [3]]), max_num_nodes=4)[0]
    assert read_graph(dense.t(), None, 4)[0].tolist() == [[0], [3]]


def test_weights_where_wanted():
    adj = torch.tensor([[0.0, 0.5], [-2.0, 0.0]])
    edge_index, edge_attr = read_graph(adj, None, 2, edge_dim=1)
    assert edge_index.tolist() == [[1, 0], [0, 1]]
    assert edge_attr.tolist() == [[0.5], [-2.0]]
    assert read_graph(adj, None, 2)[1] is None
    assert read_graph(adj.bool(), None, 2, edge_dim=1)[1].tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (torch.zeros(3, 4), r"square.*\[3, 4\]"),
        (torch.zeros(4, 4), r"3 nodes.*\[3, 3\].*\[4, 4\]"),
        (torch.zeros(2, 5), r"square.*\[2, 5\].*int64, got torch.float32"),
        (torch.zeros(2, 5, dtype=torch.int32), r"torch.int64, got torch.int32.*\.long\(\)"),
        (torch.zeros(1, 3, 3), r"\[2, E\].*\[3, 3\].*\[1, 3, 3\]"),
        (torch.tensor([[0, 1], [1, 3]]), r"node 3.*3 nodes"),
        (torch.tensor([[0, -1], [1, 2]]), r"node -1.*3 nodes"),
    ],
)
def test_bad_graphs(graph, message):
    with pytest.raises(ValueError, match=message):
        read_graph(graph, None, 3)


def test_bad_features():
    with pytest.raises(ValueError, match=r"3 edges.*\[2, 1\]"):
        read_graph(EDGES, torch.zeros(2, 1), 3)
    with pytest.raises(ValueError, match="dense"):
        read_graph(torch.zeros(3, 3), torch.zeros(2, 1), 3)
