import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from pyg_stmamba.data.mesh import Mesh, MeshTrajectory
from pyg_stmamba.data.mesh.coarse_levels import coarse_levels
from pyg_stmamba.data.mesh.edges import cells_to_edges, edge_features
from pyg_stmamba.data.mesh.gradient_weights import gradient_weights
from pyg_stmamba.data.mesh.mesh_graph import mesh_graph


@pytest.fixture
def trajectory(lattice):
    mesh = lattice("triangle", size=6)
    border = ((mesh.pos == 0) | (mesh.pos == 1)).any(1)
    mesh = Mesh(mesh.pos, mesh.cells, np.where(border, 6, np.where(mesh.pos[:, 0] > 0.5, 5, 0)))
    nodes = mesh.num_nodes
    return MeshTrajectory(
        mesh,
        {"velocity": np.zeros((3, nodes, 2), dtype=np.float32)},
        np.arange(3),
        static={"depth": np.arange(nodes)[:, None], "slope": np.ones((nodes, 2))},
        parameters={"speed": 2.0, "viscosity": 1e-3},
        name="run 7",
    )


def test_what_is_in_it(trajectory):
    graph = mesh_graph(trajectory, conditions=["viscosity", "speed"])
    mesh = trajectory.mesh
    edge_index = cells_to_edges(mesh.cells)
    assert torch.equal(graph.edge_index, edge_index)
    assert torch.equal(graph.edge_attr, edge_features(mesh.pos, edge_index))
    assert np.array_equal(graph.node_type, mesh.node_type)
    assert graph.node_type.dtype == torch.long
    assert np.array_equal(graph.predicted, mesh.node_type != 6)
    assert graph.predicted.dtype == torch.bool
    assert torch.equal(graph.conditions, torch.tensor([[1e-3, 2.0]]))
    assert graph.static.dtype == torch.float32
    assert np.array_equal(graph.static, np.c_[np.arange(49), np.ones((49, 2))])
    assert graph.trajectory.tolist() == [0]
    assert graph.num_nodes == 49
    assert "x" not in graph


def test_choices(trajectory):
    graph = mesh_graph(trajectory, static=["slope"], predicted_types=["outflow"])
    assert graph.static.shape == (49, 2)
    assert np.array_equal(graph.predicted, trajectory.mesh.node_type == 5)
    assert graph.conditions.shape == (1, 0)
    assert "static" not in mesh_graph(trajectory, static=[])


def test_coarse_levels_add_edges_and_channels(trajectory):
    mesh = trajectory.mesh
    graph = mesh_graph(trajectory, coarse_levels=2)
    parts = [cells_to_edges(mesh.cells), *(lv.edge_index for lv in coarse_levels(mesh, 2))]
    assert torch.equal(graph.edge_index, torch.cat(parts, dim=1))
    assert torch.equal(graph.edge_attr[:, :3], edge_features(mesh.pos, graph.edge_index))
    level = graph.edge_attr[:, 3:]
    assert level.shape[1] == 3
    assert torch.equal(level.sum(1), torch.ones(len(level)))
    assert level.argmax(1).unique_consecutive(return_counts=True)[1].tolist() == [
        part.size(1) for part in parts
    ]


def test_gradients(trajectory):
    graph = mesh_graph(trajectory, gradients=True)
    index, weight = gradient_weights(trajectory.mesh)
    assert torch.equal(graph.gradient_index, index)
    assert torch.equal(graph.gradient_weight, weight)
    assert "gradient_index" not in mesh_graph(trajectory)
    batch = Batch.from_data_list([graph, graph])
    assert torch.equal(batch.gradient_index, torch.cat([index, index + 49], dim=1))


def test_graphs_batch(trajectory):
    graph = mesh_graph(trajectory, conditions=["speed"])
    batch = Batch.from_data_list([graph, graph])
    assert batch.num_nodes == 98
    assert batch.conditions.shape == (2, 1)
    assert int(batch.edge_index.max()) == 97


def test_the_mesh_stays_as_it_is(trajectory):
    graph = mesh_graph(trajectory)
    graph.node_type += 1
    graph.static += 1
    assert trajectory.mesh.node_type.max() == 6
    assert trajectory.static["slope"].max() == 1


def test_bad_input(trajectory):
    with pytest.raises(ValueError, match=r"'run 7' has no parameter 'nu'; it has speed, viscosity"):
        mesh_graph(trajectory, conditions=["nu"])
    with pytest.raises(ValueError, match=r"'run 7' has no static field 'z'; it has depth, slope"):
        mesh_graph(trajectory, static=["z"])
    with pytest.raises(ValueError, match="unknown node type 'fluid'"):
        mesh_graph(trajectory, predicted_types=["fluid"])
    with pytest.raises(ValueError, match=r"no node is of a predicted type \(handle\).*normal, out"):
        mesh_graph(trajectory, predicted_types=["handle"])
    with pytest.raises(ValueError, match="coarse_levels must not be negative, got -1"):
        mesh_graph(trajectory, coarse_levels=-1)
    trajectory.parameters["speed"] = float("nan")
    with pytest.raises(ValueError, match=r"parameter 'speed' of .* 'run 7' is NaN or infinite"):
        mesh_graph(trajectory, conditions=["speed"])
    trajectory.static["depth"] = np.full((49, 1), np.inf)
    with pytest.raises(ValueError, match=r"static field 'depth' of .* is NaN or infinite"):
        mesh_graph(trajectory)
