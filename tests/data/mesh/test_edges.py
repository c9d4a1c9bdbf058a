import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import Cartesian, Distance, FaceToEdge
from torch_geometric.utils import coalesce, is_undirected

from pyg_stmamba.data.mesh import Mesh
from pyg_stmamba.data.mesh.edges import cells_to_edges, edge_features, undirected_edges

pv = pytest.importorskip("pyvista")

VTK = {"triangle": 5, "quad": 9, "tetra": 10, "hexahedron": 12, "wedge": 13, "pyramid": 14}


def as_set(edge_index):
    return set(map(tuple, edge_index.T.tolist()))


@pytest.mark.parametrize("kind", ["triangle", "tetra"])
def test_equals_face_to_edge_of_pyg(lattice, kind):
    mesh = lattice(kind, hole=kind == "triangle", size=6)
    face = torch.from_numpy(mesh.cells[kind].T)
    wanted = FaceToEdge()(Data(face=face, num_nodes=mesh.num_nodes)).edge_index
    given = cells_to_edges(mesh.cells)
    assert given.dtype == torch.long
    assert torch.equal(given.flip(0), coalesce(wanted.flip(0)))


@pytest.mark.parametrize("kind", VTK)
def test_equals_the_edges_of_vtk(lattice, kind):
    mesh = lattice(kind, size=3)
    points = np.zeros((mesh.num_nodes, 3))
    points[:, : mesh.dim] = mesh.pos
    grid = pv.UnstructuredGrid({VTK[kind]: mesh.cells[kind]}, points)
    wanted = grid.extract_all_edges().lines.reshape(-1, 3)[:, 1:]
    wanted = {tuple(pair) for pair in wanted.tolist()}
    assert as_set(cells_to_edges(mesh.cells)) == wanted | {(b, a) for a, b in wanted}


@pytest.mark.parametrize(("kind", "dim"), [("quad", 2), ("hexahedron", 3)])
def test_lattice_has_no_diagonals(lattice, kind, dim):
    mesh = lattice(kind, size=3)
    graph = nx.convert_node_labels_to_integers(nx.grid_graph([4] * dim), ordering="sorted")
    given = nx.Graph(cells_to_edges(mesh.cells).T.tolist())
    assert nx.utils.graphs_equal(graph, given)


def test_sorted_once_and_in_both_directions(lattice):
    edge_index = cells_to_edges(lattice("wedge", size=3).cells)
    key = edge_index[1] * 1000 + edge_index[0]
    assert bool((key.diff() > 0).all())
    assert is_undirected(edge_index)


def test_several_kinds_of_cells_share_edges():
    cells = {
        "triangle": np.array([[1, 4, 2]]),
        "quad": np.array([[0, 1, 2, 3]]),
        "line": np.array([[0, 2]]),
    }
    edge_index = cells_to_edges(cells)
    wanted = {(0, 1), (1, 2), (2, 3), (0, 3), (1, 4), (2, 4)}
    assert as_set(edge_index) == wanted | {(b, a) for a, b in wanted}
    assert edge_index.size(1) == 12


def test_nodes_without_cells_have_no_edges():
    assert cells_to_edges({}).shape == (2, 0)
    assert cells_to_edges({"line": np.array([[0, 1]])}).shape == (2, 0)
    assert as_set(cells_to_edges({"triangle": np.array([[7, 3, 9]])})) == {
        (7, 3), (3, 7), (3, 9), (9, 3), (7, 9), (9, 7)
    }  # fmt: skip


def test_pairs_may_repeat_either_way():
    edge_index = undirected_edges(np.array([5, 1, 5, 2]), np.array([1, 5, 1, 0]))
    assert edge_index.tolist() == [[2, 5, 0, 1], [0, 1, 2, 5]]


def test_features_equal_those_of_pyg(lattice):
    mesh = lattice("tetra", size=3)
    edge_index = cells_to_edges(mesh.cells)
    data = Data(pos=torch.from_numpy(mesh.pos), edge_index=edge_index)
    wanted = torch.cat(
        [
            Cartesian(norm=False)(data.clone()).edge_attr,
            Distance(norm=False)(data.clone()).edge_attr,
        ],
        dim=1,
    )
    given = edge_features(mesh.pos, edge_index)
    assert given.dtype == torch.float32
    assert torch.equal(given, wanted.float())
    assert torch.equal(edge_features(torch.from_numpy(mesh.pos), edge_index), given)


def test_features_point_from_target_to_source():
    edge_index = torch.tensor([[0], [1]])
    features = edge_features(np.array([[1.0, 1.0], [4.0, 5.0]]), edge_index)
    assert features.tolist() == [[-3.0, -4.0, 5.0]]


def test_features_far_from_the_origin():
    pos = np.array([[1e6, -1e6], [1e6 + 1e-3, -1e6]])
    features = edge_features(pos, torch.tensor([[1], [0]]))
    assert np.allclose(features, [[1e-3, 0, 1e-3]], rtol=1e-6)


def test_unknown_kind_of_cell():
    with pytest.raises(ValueError, match="unknown cell type 'tetra10'; choose from line, triangle"):
        cells_to_edges({"tetra10": np.zeros((1, 10), dtype=np.int64)})


def test_input_stays_as_it_is(lattice):
    mesh: Mesh = lattice("triangle")
    before = mesh.cells["triangle"].copy()
    cells_to_edges(mesh.cells)
    assert np.array_equal(mesh.cells["triangle"], before)
