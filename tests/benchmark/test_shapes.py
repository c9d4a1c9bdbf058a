import pytest
import torch

from pyg_stmamba.benchmark import shapes
from pyg_stmamba.benchmark.shapes import random_graph


@pytest.mark.parametrize(("nodes", "edges"), [(9, 20), (5, 20), (2, 1), (1, 0)])
def test_a_random_graph_has_neither_loops_nor_parallel_edges(nodes, edges):
    edge_index = random_graph(nodes, edges)
    assert edge_index.shape == (2, edges)
    assert edge_index.dtype == torch.int64
    assert len(set(map(tuple, edge_index.t().tolist()))) == edges
    assert not (edge_index[0] == edge_index[1]).any()
    assert torch.equal(edge_index, random_graph(nodes, edges))
    assert ((edge_index >= 0) & (edge_index < nodes)).all()


def test_too_many_edges():
    with pytest.raises(ValueError, match="3 nodes have 6 edges at most, got 7"):
        random_graph(3, 7)


def test_the_sizes_that_are_measured():
    assert str(shapes.METR_LA) == "METR-LA: N 207, E 1,722, T 12, B 8, 64 channels"
    assert str(shapes.LONGEST) == "16 rows x 8,192 steps x 128 channels x 16 states"
    assert shapes.METR_LA.nodes * shapes.METR_LA.windows == shapes.MANY_SHORT.rows
    assert shapes.CFD_LONG.edges == 6 * shapes.CFD_LONG.nodes
