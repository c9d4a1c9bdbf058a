from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.spatial import Delaunay
from torch_geometric.utils import is_undirected

from pyg_stmamba.data.mesh import Mesh
from pyg_stmamba.data.mesh.coarse_levels import coarse_levels
from pyg_stmamba.data.mesh.edges import cells_to_edges


def delaunay(num_nodes, dim, seed=0):
    pos = np.random.default_rng(seed).random((num_nodes, dim))
    return Mesh(pos, {"triangle" if dim == 2 else "tetra": Delaunay(pos).simplices})


def graph_of(edge_index, nodes):
    graph = nx.Graph(edge_index.T.tolist())
    graph.add_nodes_from(np.asarray(nodes).tolist())
    return graph


def graphs_of(mesh, num_levels):
    levels = coarse_levels(mesh, num_levels)
    fine = graph_of(cells_to_edges(mesh.cells), range(mesh.num_nodes))
    return [fine, *(graph_of(level.edge_index, level.nodes) for level in levels)]


@pytest.mark.parametrize("dim", [2, 3])
def test_levels_are_maximal_independent_sets(dim):
    graphs = graphs_of(delaunay(600, dim), 3 if dim == 2 else 2)
    for fine, coarse in pairwise(graphs):
        assert set(coarse) < set(fine)
        assert fine.subgraph(coarse).number_of_edges() == 0
        assert nx.is_dominating_set(fine, coarse)
        assert nx.number_connected_components(fine) == nx.number_connected_components(coarse)


@pytest.mark.parametrize("dim", [2, 3])
def test_edges_are_those_of_the_groups_that_touch(dim):
    mesh = delaunay(400, dim)
    graphs = graphs_of(mesh, 2)
    for fine, coarse in pairwise(graphs):
        groups = {node: {node} for node in coarse}
        for node in set(fine) - set(coarse):
            leads = sorted(set(fine[node]) & set(coarse))
            away = np.linalg.norm(mesh.pos[leads] - mesh.pos[node], axis=1)
            groups[leads[int(away.argmin())]].add(node)
        touching = nx.quotient_graph(fine, list(groups.values()), relabel=True)
        touching = nx.relabel_nodes(touching, dict(enumerate(groups)))
        assert set(touching) == set(coarse)
        assert {frozenset(e) for e in touching.edges} == {frozenset(e) for e in coarse.edges}


@pytest.mark.parametrize(
    ("kind", "size", "low", "high"),
    [
        ("triangle", 30, 0.2, 0.3),
        ("quad", 30, 0.15, 0.3),
        ("tetra", 10, 0.05, 0.2),
        ("hexahedron", 10, 0.05, 0.2),
    ],
)
def test_how_many_are_left(lattice, kind, size, low, high):
    mesh = lattice(kind, size=size)
    counts = [mesh.num_nodes, *(len(level.nodes) for level in coarse_levels(mesh, 2))]
    assert low < counts[1] / counts[0] < high
    assert counts[2] < 0.3 * counts[1]


@pytest.mark.parametrize("kind", ["triangle", "quad", "hexahedron"])
def test_well_spread(lattice, kind):
    # Every node has one that stays in one of its cells, and no cell has two that stay.
    mesh = lattice(kind, size=8, hole=True)
    kept = np.zeros(mesh.num_nodes, dtype=bool)
    kept[coarse_levels(mesh, 1)[0].nodes] = True
    per_cell = kept[mesh.cells[kind]].sum(1)
    assert per_cell.max() == 1
    reached = np.unique(mesh.cells[kind][per_cell == 1])
    assert len(reached) == mesh.num_nodes


def test_edges_do_not_lead_through_a_wall(lattice):
    # Two squares that almost touch, and a ring around a hole.
    square = lattice("triangle", size=8)
    block = square.cells["triangle"]
    pos = np.concatenate([square.pos, square.pos + [1.0 + 1e-9, 0]])
    mesh = Mesh(pos, {"triangle": np.concatenate([block, block + square.num_nodes])})
    for level in coarse_levels(mesh, 2):
        side = level.edge_index >= square.num_nodes
        assert bool((side[0] == side[1]).all())

    ring = lattice("quad", size=12, hole=True)
    fine = graph_of(cells_to_edges(ring.cells), range(ring.num_nodes))
    for source, target in coarse_levels(ring, 1)[0].edge_index.T.tolist():
        # At most one cell on either side of an edge, two edges each where it is a quad.
        assert nx.shortest_path_length(fine, source, target) <= 5


def test_layout_and_determinism(lattice):
    mesh = lattice("triangle", size=10)
    before = mesh.pos.copy()
    one, other = coarse_levels(mesh, 2), coarse_levels(mesh, 2)
    for a, b in zip(one, other):
        assert torch.equal(a.nodes, b.nodes)
        assert torch.equal(a.edge_index, b.edge_index)
        assert a.edge_index.dtype == torch.long
        assert is_undirected(a.edge_index, num_nodes=mesh.num_nodes)
        assert bool((a.nodes.diff() > 0).all())
        assert set(a.edge_index.unique().tolist()) <= set(a.nodes.tolist())
    assert not torch.equal(coarse_levels(mesh, 1, seed=1)[0].nodes, one[0].nodes)
    assert np.array_equal(mesh.pos, before)
    assert coarse_levels(mesh, 0) == []


def test_as_if_taken_one_by_one(lattice):
    mesh = lattice("triangle", size=9)
    graph = graph_of(cells_to_edges(mesh.cells), range(mesh.num_nodes))
    rank = np.random.default_rng(3).permutation(mesh.num_nodes)
    taken: set[int] = set()
    for node in np.argsort(rank).tolist():
        if not taken & set(graph[node]):
            taken.add(node)
    assert set(coarse_levels(mesh, 1, seed=3)[0].nodes.tolist()) == taken


def test_too_many_levels():
    mesh = Mesh(np.array([[0, 0], [1, 0], [0, 1.0]]), {"triangle": np.array([[0, 1, 2]])})
    with pytest.raises(ValueError, match="3 nodes has at most 0 coarse levels, asked for were 1"):
        coarse_levels(mesh, 1)
    with pytest.raises(ValueError, match=r"has at most [34] coarse levels, asked for were 20"):
        coarse_levels(delaunay(500, 2), 20)
