import gc

import pytest
import torch

from pyg_stmamba.ops import neighborhood
from pyg_stmamba.ops.neighborhood import _kept, check_edge_index


def test_edges_of_every_target():
    edge_index = torch.randint(0, 7, (2, 40))
    rowptr, source, target, permutation = neighborhood(edge_index, 9)
    assert rowptr.shape == (10,)
    for node in range(9):
        mine = (edge_index[1] == node).nonzero().flatten()
        part = slice(rowptr[node], rowptr[node + 1])
        assert torch.equal(permutation[part], mine)
        assert torch.equal(source[part], edge_index[0, mine])
        assert (target[part] == node).all()


def test_no_edges():
    rowptr, source, _, _ = neighborhood(torch.empty(2, 0, dtype=torch.int64), 3)
    assert rowptr.tolist() == [0, 0, 0, 0]
    assert source.numel() == 0


def test_is_kept_as_long_as_the_edges_stay_the_same():
    edge_index = torch.randint(0, 5, (2, 12))
    first = neighborhood(edge_index, 5)
    assert neighborhood(edge_index, 5).rowptr is first.rowptr
    assert neighborhood(edge_index, 6).rowptr.numel() == 7
    assert neighborhood(edge_index, 5).rowptr.numel() == 6
    edge_index[1, 0] = (edge_index[1, 0] + 1) % 5
    changed = neighborhood(edge_index, 5)
    assert torch.equal(changed.target, edge_index[1].sort().values)
    size, key = len(_kept), id(edge_index)
    del edge_index
    gc.collect()
    assert key not in _kept
    assert len(_kept) == size - 1


def test_inference_mode():
    with torch.inference_mode():
        edge_index = torch.randint(0, 5, (2, 12))
        assert neighborhood(edge_index, 5).rowptr.numel() == 6


def test_kept_inside_inference_mode_serves_training():
    edge_index = torch.randint(0, 5, (2, 12))
    with torch.inference_mode():
        neighborhood(edge_index, 5)
    result = neighborhood(edge_index, 5)
    assert not any(tensor.is_inference() for tensor in result)


def test_compile():
    compiled = torch.compile(
        lambda edges: neighborhood(edges, 5), fullgraph=True, backend="aot_eager"
    )
    edge_index = torch.randint(0, 5, (2, 12))
    for actual, expected in zip(compiled(edge_index), neighborhood(edge_index, 5)):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize(
    ("edge_index", "message"),
    [
        (torch.zeros(2, 3), r"torch.int64 \[2, E\].*got torch.float32 \[2, 3\]"),
        (torch.zeros(2, 3, dtype=torch.int32), r"got torch.int32"),
        (torch.zeros(3, 2, dtype=torch.int64), r"got torch.int64 \[3, 2\]"),
        (torch.tensor([[0, 4], [0, 1]]), r"source nodes 0 to 3, got source nodes from 0 to 4"),
        (torch.tensor([[0, 3], [0, 6]]), r"target nodes 0 to 5, got target nodes from 0 to 6"),
        (torch.tensor([[0, -1], [0, 1]]), r"got source nodes from -1 to 0"),
    ],
)
def test_bad_edges(edge_index, message):
    with pytest.raises(ValueError, match=message):
        check_edge_index(edge_index, 4, 6)
