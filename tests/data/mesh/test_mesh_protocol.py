import numpy as np
import pytest
import torch

from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.mesh_protocol import MeshProtocol
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory


@pytest.fixture
def trajectory():
    pos = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), -1).reshape(-1, 2)
    corner = (np.arange(4)[:, None] * 5 + np.arange(4)).ravel()
    mesh = Mesh(pos, {"quad": np.stack([corner, corner + 1, corner + 6, corner + 5], 1)})
    rng = np.random.default_rng(0)
    fields = {"velocity": rng.random((12, 25, 2)), "heat": rng.random((12, 25, 1))}
    return MeshTrajectory(
        mesh,
        fields,
        np.arange(12),
        static={"depth": rng.random((25, 1)), "wall": rng.random((25, 2))},
        parameters={"viscosity": 0.1, "density": 2.0},
    )


def test_windows_and_graph_hold_what_the_protocol_names(trajectory):
    protocol = MeshProtocol(
        state=("velocity", "heat"),
        outputs=(),
        conditions=("density",),
        static=("wall",),
        history=3,
        coarse_levels=1,
    )
    windows = protocol.windows([trajectory], stride=2)
    window, graph = windows[2], protocol.graph(trajectory)
    assert window.start.item() == 4
    assert window.x.shape == (25, 3, 3)
    assert torch.equal(window.x, torch.from_numpy(trajectory.frames(["velocity", "heat"], 4, 7)))
    assert graph.conditions.tolist() == [[2.0]]
    np.testing.assert_allclose(graph.static, trajectory.static["wall"], rtol=1e-6)
    assert graph.num_edges > 80
    for key in ("edge_index", "edge_attr", "node_type", "predicted", "conditions", "static"):
        assert torch.equal(window[key], graph[key])


def test_the_arguments_of_a_model_follow_from_the_data(trajectory):
    protocol = MeshProtocol(outputs=("heat",), conditions=("viscosity",), static=("depth", "wall"))
    assert protocol.model_arguments(trajectory) == {
        "state": {"velocity": 2},
        "outputs": {"heat": 1},
        "node_types": ["normal", "obstacle", "airfoil", "handle", "inflow", "outflow", "wall"],
        "edge_channels": 3,
        "conditions": ["viscosity"],
        "static": {"depth": 1, "wall": 2},
        "gradient_dim": 0,
    }
    with_gradients = protocol._replace(gradients=True)
    assert with_gradients.model_arguments(trajectory)["gradient_dim"] == 2
    assert "gradient_weight" in with_gradients.graph(trajectory)
    assert "gradient_weight" in with_gradients.windows([trajectory])[0]
