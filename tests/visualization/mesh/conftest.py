import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import Delaunay

from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.data.mesh_files.npz_trajectory import save_trajectory_npz
from pyg_stmamba.training.mesh.rollout_errors import measure_rollout
from pyg_stmamba.training.mesh.rollout_table import (
    rollout_arrays,
    rollout_scores,
    rollout_summaries,
)

LENGTH, HEIGHT, RADIUS = 1.6, 0.4, 0.06
STEP = 0.02


def channel_mesh() -> Mesh:
    """A channel with a cylinder, triangulated by scipy."""
    x, y = np.meshgrid(np.linspace(0, LENGTH, 33), np.linspace(0, HEIGHT, 9))
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    angle = 2 * np.pi * np.arange(16) / 16
    circle = [0.4, 0.21] + RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = points[np.hypot(*(points - [0.4, 0.21]).T) > 1.3 * RADIUS]
    pos = np.concatenate([points, circle])
    triangles = Delaunay(pos).simplices
    body = len(points)
    triangles = triangles[(triangles < body).any(1)]
    corners = pos[triangles]
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    triangles = triangles[np.abs(one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]) > 1e-9]
    node_type = np.zeros(len(pos), dtype=int)
    node_type[pos[:, 0] > LENGTH - 1e-9] = 5
    node_type[pos[:, 0] < 1e-9] = 4
    node_type[(pos[:, 1] < 1e-9) | (pos[:, 1] > HEIGHT - 1e-9)] = 6
    node_type[body:] = 1
    return Mesh(pos, {"triangle": triangles}, node_type)


def street(mesh: Mesh, time: np.ndarray, lag: float = 0.0) -> dict[str, np.ndarray]:
    """Vortices that travel down the channel at 3 Hz."""
    x, y = mesh.pos.T
    wall = 4 * y * (HEIGHT - y) / HEIGHT**2
    phase = 2 * np.pi * (3 * (time[:, None] - lag) - 2 * x)
    velocity = np.stack([wall * (1 + 0.3 * np.cos(phase)), 0.5 * wall * np.sin(phase)], axis=-1)
    return {"velocity": velocity, "pressure": (LENGTH - x + 0.2 * np.sin(phase))[..., None]}


def pair(mesh: Mesh, frames: int = 100, lag: float = 0.03, name: str = "street"):
    """A prediction that comes late and the truth, which has two frames before it."""
    time = STEP * np.arange(frames + 2)
    options = {
        "parameters": {"viscosity": 1e-3},
        "units": {"velocity": "m/s", "pressure": "Pa"},
        "name": name,
    }
    return (
        MeshTrajectory(mesh, street(mesh, time[2:], lag), time[2:], **options),
        MeshTrajectory(mesh, street(mesh, time), time, **options),
    )


@pytest.fixture(scope="session")
def mesh() -> Mesh:
    return channel_mesh()


@pytest.fixture(scope="session")
def trajectories(mesh: Mesh) -> tuple[MeshTrajectory, MeshTrajectory]:
    return pair(mesh)


def made_up_mesh_run(folder: Path, mesh: Mesh, frames: int = 100) -> Path:
    """A run's folder as a training on meshes leaves it: of two rollouts of the rival one failed."""
    names = ("test 0", "test 1")
    pairs = [pair(mesh, frames, lag, name) for lag, name in zip((0.02, 0.03), names)]
    rival = [pair(mesh, frames, lag, name) for lag, name in zip((0.06, 0.08), names)]
    still = [
        (
            MeshTrajectory(
                mesh, {k: v[:1].repeat(frames, 0) for k, v in p.fields.items()}, p.times
            ),
            t,
        )
        for p, t in pairs
    ]
    methods = {
        "model": [measure_rollout(*part) for part in pairs],
        "mesh_graph_net": [
            measure_rollout(*rival[0]),
            measure_rollout(*rival[1], diverged_at=frames // 2),
        ],
        "persistence": [measure_rollout(*part) for part in still],
    }
    folder.mkdir(parents=True)
    scores = {name: rollout_scores(rollouts) for name, rollouts in methods.items()}
    metrics = {
        "model": "mesh-simulator",
        "test": scores.pop("model"),
        "baselines": scores,
        "rollouts": rollout_summaries(methods["model"]),
        "measure": {"nodes": ["normal", "outflow"], "cumulative": True, "per_component": False},
        "parameters": 131337,
        "seconds": 431.7,
        "step_seconds": 0.0123,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics, allow_nan=False))
    np.savez(folder / "rollout_errors.npz", **rollout_arrays(methods))
    prediction, truth = pairs[0]
    save_trajectory_npz(prediction, folder / "rollouts" / "test_0_prediction.npz")
    save_trajectory_npz(truth, folder / "rollouts" / "test_0_truth.npz")
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        errors = ["train_loss", "val_loss", "val_velocity_rmse"]
        writer.writerow(["epoch", *errors, "learning_rate", "seconds"])
        for epoch in range(12):
            loss = 0.02 + 0.5 * np.exp(-epoch / 3)
            rollout = "" if epoch % 3 else 0.1 + 0.3 * np.exp(-epoch / 5)
            writer.writerow([epoch, loss, 1.2 * loss, rollout, 1e-3 * 0.5 ** (epoch // 4), 31.2])
    (folder / "config.yaml").write_text("dataset: cylinder-flow\nseed: 7\n")
    (folder / "versions.json").write_text('{"torch": "2.13.0"}')
    return folder


@pytest.fixture(scope="session")
def usual_mesh_run(tmp_path_factory: pytest.TempPathFactory, mesh: Mesh) -> Path:
    """A folder with every piece."""
    return made_up_mesh_run(tmp_path_factory.mktemp("usual") / "run", mesh, 60)


@pytest.fixture
def make_mesh_run(tmp_path: Path, mesh: Mesh) -> Callable[..., Path]:
    def make(frames: int = 24) -> Path:
        return made_up_mesh_run(tmp_path / "run", mesh, frames)

    return make
