"""One's own simulation results: from a folder of PVD and VTU files, and back to ParaView.

The folder is what a solver leaves behind: `u.pvd` and `p.pvd`, each naming one VTU file a frame,
with fields called as the solver calls them and time stamps that count steps. Nothing says which
nodes are walls; that is read off the flow: where it never moves is wall, where it comes in is
inflow. The inlet swings, so the state at the borders is prescribed in the rollout. All of this is
also three commands:

    pyg-stmamba train --dataset results --fields '{velocity: u, pressure: p}' --time-step 0.05
    pyg-stmamba rollout runs/... --boundary data --out prediction.pvd
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from pyg_stmamba.data.mesh import MeshProtocol, split_trajectories
from pyg_stmamba.data.mesh_files import read_trajectory, write_pvd, write_vtu
from pyg_stmamba.models import MeshSimulator
from pyg_stmamba.training.mesh import beside_truth, fit_simulator, roll_out


def write_results(folder: Path, num_frames: int) -> None:
    """Invents what a solver would leave: a channel whose inlet swings, and waves along it."""
    x, y = np.meshgrid(np.linspace(0, 3, 25), np.linspace(0, 1, 9), indexing="ij")
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    corner = (np.arange(24)[:, None] * 9 + np.arange(8)).ravel()
    squares = np.stack([corner, corner + 9, corner + 10, corner + 1], axis=1)
    x, y = points.T
    names: dict[str, list[str]] = {"u": [], "p": []}
    for step in range(num_frames):
        phase, profile = 4 * (0.05 * step - x / 2), 4 * y * (1 - y)
        along, across = profile * (1 + 0.3 * np.sin(phase)), 0.2 * profile * np.cos(phase)
        fields = {"u": np.stack([along, across], axis=1), "p": 3 - x + 0.1 * np.cos(phase)}
        for name, values in fields.items():
            names[name].append(f"{name}{step:06d}.vtu")
            write_vtu(folder / names[name][-1], points, {"quad": squares}, {name: values})
    for name, files in names.items():
        sets = "".join(f'<DataSet timestep="{n}" file="{file}"/>' for n, file in enumerate(files))
        text = f'<VTKFile type="Collection"><Collection>{sets}</Collection></VTKFile>'
        (folder / f"{name}.pvd").write_text(text)


def main(out: Path = Path("prediction.pvd"), num_frames: int = 160, epochs: int = 6) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        write_results(Path(folder), num_frames)
        trajectory = read_trajectory(
            folder, fields={"velocity": "u", "pressure": "p"}, time_step=0.05
        )
        nodes = {name: int(trajectory.mesh.nodes_of(name).sum()) for name in ("inflow", "wall")}
        print(trajectory, nodes)

        # One simulation is split in time: the last fifth of it is the test.
        split, protocol = split_trajectories([trajectory]), MeshProtocol(history=8)
        torch.manual_seed(0)
        model = MeshSimulator(**protocol.model_arguments(trajectory), channels=16, num_layers=2)
        result = fit_simulator(
            model,
            split,
            protocol,
            max_epochs=epochs,
            noise=0.005,
            boundary="data",
            learning_rate=3e-3,
        )
        rollout = roll_out(result.simulator, split.test[0], boundary="data")
        # Velocity, its truth and its error in each frame, to be opened with ParaView.
        write_pvd(out, beside_truth(rollout.trajectory, split.test[0]))
    written = read_trajectory(out)
    print(f"{out}: {written}")
    test, still = result.metrics["test"], result.metrics["baselines"]["persistence"]
    error, of_persistence = (each["velocity_rmse"]["all"] for each in (test, still))
    print(
        f"RMSE over {rollout.trajectory.num_frames} steps: {error:.4f}, still {of_persistence:.4f}"
    )
    return {
        "nodes": nodes,
        "error": error,
        "error of persistence": of_persistence,
        "frames": written.num_frames,
        "fields": sorted(written.fields),
    }


if __name__ == "__main__":
    main()
