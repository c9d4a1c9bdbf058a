"""MeshSimulator beside MeshGraphNet, trained on the same flows for the same time.

MeshGraphNet passes messages many times and has no memory: each frame costs all of its steps.
MeshSimulator passes few and remembers, one state a node, so that all frames of a window are
samples in one pass: in the same time it sees many more of them. Both are rolled out from the
same frames of a flow that neither has seen. With a minute each and small networks this shows how
a comparison is made, not what either is worth; the README has one of the full data set.
"""

from pathlib import Path

import torch

from pyg_stmamba.data.mesh import MeshProtocol, MeshSplit
from pyg_stmamba.datasets import CylinderFlow
from pyg_stmamba.models import MeshGraphNet, MeshSimulator
from pyg_stmamba.training.mesh import evaluate_simulator, fit_simulator

ROOT = Path(__file__).parents[1] / "datasets" / "cylinder_flow"
SMALL = {"num_nodes": 550, "num_frames": 80, "start": "rest"}


def main(root: Path = ROOT, minutes: float = 1.0) -> dict:
    numbers = {"train": 3, "val": 1, "test": 1}
    flows = {name: list(CylinderFlow(root, name, n, **SMALL)) for name, n in numbers.items()}
    split = MeshSplit(**flows)
    options = {"batch_size": 2, "noise": 0.01, "val_steps": 30, "max_time": minutes}
    results = {}
    for model_class, history, sizes in (
        (MeshSimulator, 16, {"channels": 16, "num_layers": 2}),
        (MeshGraphNet, 1, {"channels": 32, "num_steps": 6}),
    ):
        protocol = MeshProtocol(
            history=history,
            conditions=("viscosity",),
            coarse_levels=2,
            gradients=model_class.gradients,
        )
        torch.manual_seed(0)
        model = model_class(**protocol.model_arguments(split.train[0]), **sizes)
        windows = 960 // (2 * history)  # the same number of frames in an epoch
        results[model_class.__name__] = fit_simulator(
            model, split, protocol, windows_per_epoch=windows, learning_rate=3e-3, **options
        )

    ours, rival = (result.simulator for result in results.values())
    errors = evaluate_simulator(ours, split.test, rivals={"MeshGraphNet": rival})
    scores = {"MeshSimulator": errors.test, **errors.baselines}
    print(f"{'RMSE of the velocity':22}{'one step':>12}{'10 steps':>12}{'50 steps':>12}")
    for name, score in scores.items():
        ahead = [score["velocity_rmse"][steps] for steps in ("10", "50")]
        line = [score["one_step_rmse"]["1"], *ahead]
        print(f"{name:22}" + "".join(f"{error or float('inf'):12.4f}" for error in line))
    seen = {name: len(result.history) * 960 // 2 for name, result in results.items()}
    print(f"frames seen in training, about: {seen}")
    return {"scores": scores, "frames seen": seen}


if __name__ == "__main__":
    main()
