import gc

import pytest
import torch
from torch_geometric import EdgeIndex

from pyg_stmamba.ops import neighborhood
from pyg_stmamba.ops.neighborhood import _kept, check_edge_index, outgoing_edges


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


def test_edges_of_every_source():
    edge_index = torch.randint(0, 7, (2, 40))
    rowptr, target, permutation = outgoing_edges(edge_index, 9)
    assert rowptr.shape == (10,)
    for node in range(9):
        mine = (edge_index[0] == node).nonzero().flatten()
        part = slice(rowptr[node], rowptr[node + 1])
        assert torch.equal(permutation[part], mine)
        assert torch.equal(target[part], edge_index[1, mine])


def test_no_edges():
    edge_index = torch.empty(2, 0, dtype=torch.int64)
    for rowptr, other, *_ in (neighborhood(edge_index, 3), outgoing_edges(edge_index, 3)):
        assert rowptr.tolist() == [0, 0, 0, 0]
        assert other.numel() == 0


def test_outgoing_edges_are_sorted_only_when_asked_for():
    edge_index = torch.randint(0, 5, (2, 12))
    incoming = neighborhood(edge_index, 5)
    assert set(_kept[id(edge_index)].by_row_and_nodes) == {(1, 5)}
    outgoing = outgoing_edges(edge_index, 5)
    assert outgoing_edges(edge_index, 5).rowptr is outgoing.rowptr
    assert neighborhood(edge_index, 5).rowptr is incoming.rowptr
    edge_index[0, 0] = (edge_index[0, 0] + 1) % 5
    changed = outgoing_edges(edge_index, 5)
    assert torch.equal(changed.target, edge_index[1, edge_index[0].argsort(stable=True)])


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


def both(edge_index):
    return *neighborhood(edge_index, 7), *outgoing_edges(edge_index, 6)


def check_with_metadata(function, sort_order, sparse_size):
    plain = torch.randint(0, 5, (2, 30))
    if sort_order is not None:
        plain = plain[:, plain[("row", "col").index(sort_order)].argsort(stable=True)]
    edge_index = EdgeIndex(plain.clone(), sort_order=sort_order, sparse_size=sparse_size)
    for actual, expected in zip(function(edge_index), both(plain), strict=True):
        assert type(actual) is torch.Tensor
        assert actual.dtype == expected.dtype
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("sort_order", [None, "row", "col"])
@pytest.mark.parametrize("sparse_size", [(None, None), (6, 7), (5, 5)])
def test_edge_index_with_metadata(sort_order, sparse_size):
    check_with_metadata(both, sort_order, sparse_size)


@pytest.mark.parametrize("sort_order", [None, "row", "col"])
def test_compile_with_metadata(sort_order):
    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    check_with_metadata(compiled, sort_order, (6, 7))


def test_edges_that_are_sorted_already_are_not_sorted(monkeypatch):
    plain = torch.tensor([[3, 0, 2], [0, 1, 1]])
    edge_index = EdgeIndex(plain, sort_order="col", sparse_size=(4, 4))
    edge_index.get_indptr()
    monkeypatch.setattr(torch, "sort", None)
    monkeypatch.setattr(torch, "searchsorted", None)
    assert neighborhood(edge_index, 4).rowptr.tolist() == [0, 1, 3, 3, 3]
    assert neighborhood(edge_index, 4).permutation.tolist() == [0, 1, 2]


def test_what_is_kept_of_an_edge_index_ends_with_it():
    edge_index = EdgeIndex(torch.tensor([[3, 0, 2], [0, 1, 1]]), sort_order="col")
    key = id(edge_index.as_tensor())
    assert neighborhood(edge_index, 4).rowptr is neighborhood(edge_index, 4).rowptr
    assert key in _kept
    del edge_index
    gc.collect()
    assert key not in _kept


def test_compile():
    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    edge_index = torch.randint(0, 5, (2, 12))
    for actual, expected in zip(compiled(edge_index), both(edge_index), strict=True):
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
