"""A rollout looked at: prediction, truth and error side by side, and how the error grows.

Vortices drift through a channel, what a wake does far behind a body. A small MeshSimulator learns
them from one simulation and goes on by itself in another, whose vortices stand elsewhere and whose
borders are prescribed. The animation is a GIF, the picture of the errors a PNG; both are drawn
without a display. `pyg-stmamba train` draws such pictures into the report of a run by itself, and
`pyg-stmamba rollout --animation flow.gif` those of a single rollout.
"""

from pathlib import Path

import numpy as np
import torch
from scipy.spatial import Delaunay

from pyg_stmamba.data.mesh import Mesh, MeshProtocol, MeshSplit, MeshTrajectory
from pyg_stmamba.models import MeshSimulator
from pyg_stmamba.training.mesh import evaluate_simulator, fit_simulator, roll_out
from pyg_stmamba.visualization.mesh import animate_rollout, plot_error_growth


def drifting_vortices(num_frames: int, start: float, seed: int) -> MeshTrajectory:
    """Two rows of vortices that turn against each other, carried along by a stream."""
    x, y = np.meshgrid(np.linspace(0, 4, 27), np.linspace(0, 1, 9), indexing="ij")
    pos = np.stack([x.ravel(), y.ravel()], axis=1)
    inside = (pos > 0).all(1) & (pos < [4, 1]).all(1)
    pos[inside] += np.random.default_rng(seed).uniform(-0.03, 0.03, (inside.sum(), 2))
    x, y = pos.T
    # Velocities of the stream function y + 0.1 sin(3 (x - t)) sin(2 pi y).
    phase = 3 * (x - start - 0.04 * np.arange(num_frames)[:, None])
    across = np.broadcast_to(2 * np.pi * y, phase.shape)
    along = 1 + 0.2 * np.pi * np.sin(phase) * np.cos(across)
    velocity = np.stack([along, -0.3 * np.cos(phase) * np.sin(across)], axis=-1)
    node_type = np.where(inside, 0, np.where(x == 0, 4, np.where(x == 4, 5, 6)))
    mesh = Mesh(pos, {"triangle": Delaunay(pos).simplices.astype(int)}, node_type)
    return MeshTrajectory(mesh, {"velocity": velocity}, 0.04 * np.arange(num_frames))


def main(animation: Path = Path("vortices.gif"), errors: Path = Path("errors.png")) -> dict:
    train, val, test = (drifting_vortices(90, start, seed) for seed, start in enumerate((0, 1, 2)))
    split, protocol = MeshSplit([train], [val], [test]), MeshProtocol(outputs=(), history=8)
    torch.manual_seed(0)
    model = MeshSimulator(**protocol.model_arguments(train), channels=16, num_layers=2)
    result = fit_simulator(
        model, split, protocol, max_epochs=8, noise=0.01, learning_rate=3e-3, boundary="data"
    )

    rollout = roll_out(result.simulator, test, boundary="data")
    animate_rollout(rollout.trajectory, test, animation, every=4)
    measured = evaluate_simulator(result.simulator, split.test, boundary="data")
    growth = {name: measured.arrays[f"{name}_velocity_rmse"] for name in ("model", "persistence")}
    plot_error_growth(measured.arrays["time"], growth, quantity="velocity RMSE").savefig(errors)
    print(f"{animation}, {errors}")

    shares = {
        name: scores["velocity_relative_l2"]["all"]
        for name, scores in (
            ("model", measured.test),
            ("persistence", measured.baselines["persistence"]),
        )
    }
    print(f"relative L2 error over {rollout.trajectory.num_frames} steps: {shares}")
    return {"frames": rollout.trajectory.num_frames, "relative error": shares}


if __name__ == "__main__":
    main()
