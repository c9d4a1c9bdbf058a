import gc

import pytest
import torch

from pyg_stmamba.nn import SpatialGAT
from pyg_stmamba.nn.spatial.once_per_graph import once_per_graph


def test_runs_once_for_each_graph_and_argument():
    calls = []

    @once_per_graph
    def count(edge_index, size):
        calls.append(size)
        return edge_index + size

    edges = torch.tensor([[0], [1]])
    first = count(edges, 3)
    assert count(edges, 3) is first
    assert calls == [3]
    assert count(edges, 4).tolist() == [[4], [5]]
    edges.add_(1)
    assert count(edges, 4).tolist() == [[5], [6]]
    assert count(edges.clone(), 4).tolist() == [[5], [6]]
    assert calls == [3, 4, 4, 4]


def test_forgets_with_the_tensor():
    @once_per_graph
    def double(edge_index):
        return 2 * edge_index

    for _ in range(20):
        edges = torch.randint(0, 9, (2, 5))
        assert torch.equal(double(edges), 2 * edges)
        del edges
    gc.collect()
    assert double.__closure__ is not None
    kept = next(c.cell_contents for c in double.__closure__ if isinstance(c.cell_contents, dict))
    assert kept == {}


def test_errors_are_not_kept():
    @once_per_graph
    def refuse(edge_index):
        raise ValueError("no")

    edges = torch.zeros(2, 1)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            refuse(edges)


def test_inference_mode():
    @once_per_graph
    def double(edge_index):
        return 2 * edge_index

    with torch.inference_mode():
        edges = torch.tensor([[0], [1]])
        assert double(edges).tolist() == [[0], [2]]


def test_kept_in_inference_mode_and_used_in_training():
    op, x = SpatialGAT(2, 2), torch.randn(3, 4, 2)
    edges = torch.tensor([[0, 1], [1, 2]])
    with torch.inference_mode():
        op(x, edges)
    op(x, edges).sum().backward()
    assert op.lin.weight.grad.isfinite().all()
