from typing import Any

import numpy as np
import pytest
from scipy.spatial import Delaunay

from pyg_stmamba.data import TemporalGraph
from pyg_stmamba.data.mesh import NODE_TYPES, Mesh, MeshTrajectory
from pyg_stmamba.data.mesh.mesh_windows import MeshWindows

RING = np.array([[0, 1, 2, 3, 4], [1, 2, 3, 4, 0]])


@pytest.fixture
def graph() -> TemporalGraph:
    """Five nodes on a ring, three weeks of hourly values of two channels with gaps."""
    rng = np.random.default_rng(0)
    steps = 3 * 7 * 24
    daily = 10 * np.sin(2 * np.pi * np.arange(steps) / 24)
    values = 50 + daily + rng.normal(size=(5, steps)).cumsum(1)
    values = np.stack([values, rng.uniform(100, 900, (5, steps))], axis=-1)
    mask = rng.random(values.shape) < 0.9
    return TemporalGraph.from_arrays(
        values.transpose(1, 0, 2),
        mask=mask.transpose(1, 0, 2),
        timestamps=np.datetime64("2024-01-01") + np.arange(steps) * np.timedelta64(1, "h"),
        edge_index=RING,
        edge_weight=rng.uniform(0.1, 1, 5),
    )


def delaunay_trajectory(num_nodes: int, num_frames: int, seed: int) -> MeshTrajectory:
    """A wave that runs over a triangulated square; its border is inflow, wall and outflow."""
    rng = np.random.default_rng(seed)
    pos = rng.random((num_nodes, 2))
    node_type = np.zeros(num_nodes, dtype=np.int64)
    node_type[pos[:, 0] < 0.15], node_type[pos[:, 0] > 0.85] = 4, 5
    node_type[pos[:, 1] < 0.1] = 6
    viscosity = 0.5 + seed
    phase = 6 * pos[:, 0] - 0.3 * viscosity * np.arange(num_frames)[:, None]
    velocity = 10 + np.stack([np.sin(phase), 0.2 * np.cos(phase)], -1)
    pressure = 300 + 50 * np.sin(2 * phase)[..., None]
    return MeshTrajectory(
        Mesh(pos, {"triangle": Delaunay(pos).simplices}, node_type),
        {"velocity": velocity, "pressure": pressure},
        0.01 * np.arange(num_frames),
        static={"distance": pos[:, :1]},
        parameters={"viscosity": viscosity},
    )


@pytest.fixture
def mesh_windows() -> MeshWindows:
    """Windows of 6 frames over two meshes of different size."""
    trajectories = [delaunay_trajectory(24, 14, 0), delaunay_trajectory(17, 12, 1)]
    return MeshWindows(trajectories, history=6, conditions=("viscosity",))


@pytest.fixture
def mesh_arguments() -> dict[str, Any]:
    """What these windows decide of a model."""
    return {
        "state": {"velocity": 2},
        "outputs": {"pressure": 1},
        "node_types": list(NODE_TYPES),
        "edge_channels": 3,
        "conditions": ["viscosity"],
        "static": {"distance": 1},
        "gradient_dim": 0,
    }
