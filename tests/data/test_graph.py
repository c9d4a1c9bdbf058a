import io
import pickle

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.utils import to_dense_adj

from pyg_stmamba.data import from_adjacency, from_networkx, gaussian_kernel_graph
from pyg_stmamba.data.graph import as_edge_index


def dense(edge_index, weight, num_nodes):
    r"""The matrix [target, source]; PyG's has [source, target]."""
    matrix = to_dense_adj(edge_index, edge_attr=weight, max_num_nodes=num_nodes)[0].T
    assert int((matrix != 0).sum()) <= edge_index.size(1)
    return matrix


def sorted_and_single(edge_index, num_nodes):
    code = edge_index[1] * num_nodes + edge_index[0]
    return bool((code.diff() > 0).all())


class ArraysOnly(pickle.Unpickler):
    r"""Reads the published Python 2 pickles: lists, dictionaries and numpy arrays, no code."""

    def find_class(self, module, name):
        if (module, name) in {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")


@pytest.fixture(scope="module")
def bay(shared_data):
    raw = (shared_data / "graphs" / "adj_mx_bay.pkl").read_bytes()
    ids, number, matrix = ArraysOnly(io.BytesIO(raw), encoding="latin1").load()
    rows = [
        line.split(",")
        for line in (shared_data / "graphs" / "distances_bay_2017.csv").read_text().split()
    ]
    rows = [(number[a], number[b], float(d)) for a, b, d in rows if a in number and b in number]
    return matrix, np.array(rows)[:, :2].astype(int).T, np.array(rows)[:, 2], len(ids)


def test_reproduces_the_published_graph_of_pems_bay(bay):
    matrix, pairs, distance, num_nodes = bay
    edge_index, weight = gaussian_kernel_graph(pairs, distance, num_nodes)
    ours = dense(edge_index, weight, num_nodes).T.numpy()
    assert edge_index.size(1) == 2694
    assert np.array_equal(ours > 0, matrix > 0)
    assert np.abs(ours - matrix).max() < 1e-6
    assert sorted_and_single(edge_index, num_nodes)


def test_gaussian_kernel_by_hand():
    pairs, distance = [[0, 1, 2], [1, 2, 0]], [1.0, 2.0, 3.0]
    sigma = np.std(distance)
    edge_index, weight = gaussian_kernel_graph(pairs, distance, 4, threshold=0.0)
    assert edge_index.tolist() == [[2, 0, 1], [0, 1, 2]]
    assert np.allclose(weight, np.exp(-(np.array([3.0, 1.0, 2.0]) ** 2) / sigma**2))
    assert weight.dtype == torch.float32
    kept, weight = gaussian_kernel_graph(pairs, distance, 4, sigma=2.0, threshold=0.2)
    assert kept.tolist() == [[0, 1], [1, 2]]
    assert np.allclose(weight, np.exp([-0.25, -1.0]))


def test_gaussian_kernel_of_a_pair_given_twice_and_of_no_road():
    pairs = torch.tensor([[0, 0, 1], [1, 1, 0]])
    edge_index, weight = gaussian_kernel_graph(pairs, [9.0, 1.0, np.inf], 2, sigma=1.0)
    assert edge_index.tolist() == [[0], [1]]
    assert float(weight) == pytest.approx(np.exp(-1))


@pytest.mark.parametrize("build", ["distance", "adjacency", "networkx"])
def test_self_loops_and_direction_are_chosen(build):
    def make(**kwargs):
        if build == "distance":
            # 0 -> 1 near, 1 -> 0 far, 2 to itself.
            pairs = [[0, 1, 2], [1, 0, 2]]
            return gaussian_kernel_graph(pairs, [0.5, 1.0, 0.0], 3, sigma=1.0, **kwargs)
        near, far = np.exp([-0.25, -1.0])
        if build == "adjacency":
            return from_adjacency([[0, far, 0], [near, 0, 0], [0, 0, 1.0]], **kwargs)
        graph = nx.DiGraph()
        graph.add_nodes_from(range(3))
        graph.add_weighted_edges_from([(0, 1, near), (1, 0, far), (2, 2, 1.0)])
        return from_networkx(graph, **kwargs)

    near, far = np.exp([-0.25, -1.0])
    eye = np.eye(3)
    given_matrix = np.array([[0, far, 0], [near, 0, 0], [0, 0, 1]])
    both = np.array([[0, near, 0], [near, 0, 0], [0, 0, 1]])
    expected = {
        (True, None): given_matrix,
        (True, True): np.maximum(given_matrix, eye),
        (True, False): given_matrix * (1 - eye),
        (False, None): both,
        (False, True): np.maximum(both, eye),
        (False, False): both * (1 - eye),
    }
    for (directed, self_loops), matrix in expected.items():
        edges, weight = make(directed=directed, self_loops=self_loops)
        assert np.allclose(dense(edges, weight, 3), matrix)
        assert edges.size(1) == np.count_nonzero(matrix)
        assert sorted_and_single(edges, 3)


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(0, 500))
def test_adjacency_there_and_back(num_nodes, seed):
    generator = np.random.default_rng(seed)
    matrix = generator.random((num_nodes, num_nodes)) * (
        generator.random((num_nodes, num_nodes)) > 0.6
    )
    for form in (np.asarray, torch.tensor, sp.csc_matrix, sp.coo_array):
        assert np.allclose(dense(*from_adjacency(form(matrix)), num_nodes), matrix)
    assert np.allclose(dense(*from_adjacency(matrix, source_first=True), num_nodes), matrix.T)
    sparse = torch.tensor(matrix).to_sparse()
    assert torch.equal(from_adjacency(sparse)[0], from_adjacency(matrix)[0])


def test_adjacency_of_booleans_integers_and_negative_weights():
    assert from_adjacency(np.array([[True, False], [True, True]]))[1].tolist() == [1, 1, 1]
    edges, weight = from_adjacency(np.array([[0, -2], [3, 0]]))
    assert edges.tolist() == [[1, 0], [0, 1]]
    assert weight.tolist() == [-2, 3]


def test_sparse_input_is_left_alone():
    matrix = sp.coo_array((np.array([1.0, 2.0, 0.0]), ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    assert from_adjacency(matrix)[1].tolist() == [3]
    assert matrix.nnz == 3


@pytest.mark.parametrize("kind", [nx.Graph, nx.DiGraph, nx.MultiDiGraph])
def test_networkx_agrees_with_its_own_matrix(kind):
    graph = kind(nx.gnp_random_graph(7, 0.4, seed=3, directed=kind is not nx.Graph))
    graph = nx.relabel_nodes(graph, {n: f"node {9 - n}" for n in graph})
    for i, (u, v) in enumerate(list(graph.edges())):
        edge = graph[u][v][0] if graph.is_multigraph() else graph[u][v]
        edge["length"] = 1.5 + i
    graph.add_edge("node 9", "node 9", length=4.0)
    expected = nx.to_numpy_array(graph, weight="length")
    edges, weight = from_networkx(graph, weight="length")
    assert np.allclose(dense(edges, weight, 7), expected.T)
    assert from_networkx(graph, weight=None)[1].tolist() == [1.0] * edges.size(1)
    assert from_networkx(graph)[1].tolist() == [1.0] * edges.size(1)


def test_networkx_parallel_edges_and_empty_graphs():
    graph = nx.MultiDiGraph()
    graph.add_edge("a", "b", weight=5.0)
    graph.add_edge("a", "b", weight=2.0)
    edges, weight = from_networkx(graph)
    assert (edges.tolist(), weight.tolist()) == ([[0], [1]], [2.0])
    edges, weight = from_networkx(nx.empty_graph(3))
    assert edges.shape == (2, 0)
    assert from_networkx(nx.empty_graph(3), self_loops=True)[0].tolist() == [[0, 1, 2]] * 2


def test_large_graphs_are_vectorised():
    num_nodes = 8600
    pairs = np.random.default_rng(0).integers(0, num_nodes, (2, 300_000))
    edges, weight = gaussian_kernel_graph(pairs, np.linspace(1, 5, 300_000), num_nodes, threshold=0)
    assert edges.size(1) == len(np.unique(pairs[0] * num_nodes + pairs[1]))
    again, _ = from_adjacency(
        sp.coo_array((weight, (edges[1], edges[0])), shape=(num_nodes, num_nodes))
    )
    assert torch.equal(again, edges)


def test_bad_input():
    with pytest.raises(ValueError, match=r"distance must be of shape \[2\], .* got \[3\]"):
        gaussian_kernel_graph([[0, 1], [1, 0]], [1.0, 2.0, 3.0], 2)
    with pytest.raises(ValueError, match="got 1 negative and 1 NaN"):
        gaussian_kernel_graph([[0, 1], [1, 0]], [-1.0, np.nan], 2)
    with pytest.raises(ValueError, match=r"all distances are equal, .* pass sigma="):
        gaussian_kernel_graph([[0, 1], [1, 0]], [2.0, 2.0], 2)
    with pytest.raises(ValueError, match="sigma must be positive, got 0"):
        gaussian_kernel_graph([[0, 1], [1, 0]], [2.0, 3.0], 2, sigma=0)
    with pytest.raises(ValueError, match="from 0 to 1 for 2 nodes"):
        gaussian_kernel_graph([[0], [2]], [2.0], 2)
    with pytest.raises(
        ValueError, match=r"square \[N, N\], got shape \[2, 3\]; pass a list of edges"
    ):
        from_adjacency(np.ones((2, 3)))
    with pytest.raises(ValueError, match="must hold numbers, got <U1"):
        from_adjacency(np.array([["a"]]))
    with pytest.raises(ValueError, match="1 NaN or infinite"):
        from_adjacency([[np.inf]])
    graph = nx.DiGraph([(0, 1, {"length": 2.0})])
    with pytest.raises(
        ValueError, match=r"no edge has the attribute 'cost', there are \['length'\]"
    ):
        from_networkx(graph, weight="cost")
    graph.add_edge(1, 0, length="far")
    with pytest.raises(ValueError, match="'length' must hold numbers"):
        from_networkx(graph, weight="length")
    graph.add_edge(1, 0, length=np.nan)
    with pytest.raises(ValueError, match="holds NaN"):
        from_networkx(graph, weight="length")
    assert as_edge_index(torch.empty(2, 0), 3).dtype == torch.int64


def test_no_distances_at_all():
    edges, weight = gaussian_kernel_graph(np.zeros((2, 0), int), [], 3)
    assert edges.shape == (2, 0)
    assert weight.shape == (0,)
