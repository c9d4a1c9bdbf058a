"""A surrogate of the flow past a cylinder: simulate, train, roll out.

`CylinderFlow` solves the Navier-Stokes equations on triangles, once, on all processors; each
simulation has another mesh, cylinder, inlet speed and viscosity. `MeshSimulator` learns the change
of the velocity from frame to frame, and the pressure, then goes on by itself: each of its
predictions is what it reads next. What it has to beat is persistence, the flow that stands still.
Here all is small, so that it takes a minute; a run of the full length is

    pyg-stmamba train --dataset cylinder-flow
"""

from pathlib import Path

import torch

from pyg_stmamba.data.mesh import MeshProtocol, MeshSplit
from pyg_stmamba.datasets import CylinderFlow
from pyg_stmamba.models import MeshSimulator
from pyg_stmamba.training.mesh import fit_simulator

ROOT = Path(__file__).parents[1] / "datasets" / "cylinder_flow"
SMALL = {"num_nodes": 550, "num_frames": 80, "start": "rest"}


def main(root: Path = ROOT, epochs: int = 4, channels: int = 16) -> dict:
    numbers = {"train": 3, "val": 1, "test": 1}
    flows = {name: list(CylinderFlow(root, name, n, **SMALL)) for name, n in numbers.items()}
    split = MeshSplit(**flows)
    flow = split.train[0]
    print(flow)
    print({name: f"{value:.4g}" for name, value in flow.parameters.items()})

    # Sixteen frames a window; long edges between a quarter, a sixteenth of the nodes; gradients of
    # the velocity, which are in the equations too.
    protocol = MeshProtocol(history=16, conditions=("viscosity",), coarse_levels=2, gradients=True)
    torch.manual_seed(0)
    model = MeshSimulator(**protocol.model_arguments(flow), channels=channels, num_layers=2)
    result = fit_simulator(
        model,
        split,
        protocol,
        max_epochs=epochs,
        windows_per_epoch=60,
        batch_size=1,
        noise=0.01,
        skip=1,
        val_steps=30,
        learning_rate=3e-3,
    )
    test, still = result.metrics["test"], result.metrics["baselines"]["persistence"]
    print("RMSE of the velocity on a flow that the model has not seen")
    print(f"{'':18}{'model':>10}{'standing still':>18}")
    for name in ("one_step_rmse", "velocity_rmse"):
        for horizon, error in test[name].items():
            steps = "each single step" if name == "one_step_rmse" else f"{horizon} steps ahead"
            print(f"{steps:18}{error:10.4f}{still[name][horizon]:18.4f}")
    return result.metrics


if __name__ == "__main__":
    main()
