"""The commands of :obj:`pyg-stmamba` for flows on meshes."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyg_stmamba.cli_mesh_data import (
    add_mesh_options,
    data_options,
    load_simulations,
    named_dataset,
)
from pyg_stmamba.cli_options import (
    PROGRAM,
    add_options_of,
    add_training_options,
    choose,
    configured_model,
    folder_of_dataset,
    folder_of_run,
    make_parser,
    plain,
    value_of,
)

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from pyg_stmamba.data.mesh import MeshTrajectory
    from pyg_stmamba.training.mesh import Rollout, Simulator

# Arguments of a model that the data decide.
OF_DATA = {"state", "outputs", "node_types", "edge_channels", "conditions", "static"}
OF_DATA |= {"gradient_dim"}


def train(arguments: list[str]) -> None:
    r"""Trains a surrogate of simulations on meshes and rolls it out beside persistence."""
    from pyg_stmamba.models.mesh_models import MESH_MODELS
    from pyg_stmamba.training.device import check_devices, is_main_process
    from pyg_stmamba.training.mesh import fit_simulator
    from pyg_stmamba.training.mesh.rollout_table import format_rollout_table

    name = value_of(arguments, "--model.name") or configured_model(arguments)
    name = name or next(iter(MESH_MODELS))
    model_class = choose("model", name, MESH_MODELS)

    parser = make_parser("train", train)
    parser.add_argument("--config", action="config", help="Options in a file, as config.yaml.")
    add_mesh_options(parser, named_dataset(arguments))
    not_options = {"model", "split", "protocol", "out", "resume", "callbacks", "config"}
    add_training_options(
        parser, name, MESH_MODELS, fit_simulator, of_data=OF_DATA, not_options=not_options
    )
    given = parser.parse_args(arguments)

    check_devices(given.accelerator, given.devices)
    config = plain(given.as_dict(), without=("config", "resume", "out"))
    options = parser.instantiate(given).as_dict()
    split, protocol = load_simulations(given, model_class.history, model_class.gradients)
    out = folder_of_run(given, given.dataset[0], name)
    model = _build_model(model_class, protocol.model_arguments(split.train[0]), options, given.seed)
    names = set(inspect.signature(fit_simulator).parameters) - not_options
    try:
        result = fit_simulator(
            model,
            split,
            protocol,
            out=out,
            resume=given.resume is not None,
            config=config,
            **{key: value for key, value in options.items() if key in names},
        )
    except KeyboardInterrupt:
        print(f"\nGo on with: {PROGRAM} train --resume {out}", file=sys.stderr)
        raise
    if not is_main_process():
        return
    metrics = result.metrics
    print("\nErrors of rollouts over the test simulations, mean over them")
    print(format_rollout_table(metrics["test"], metrics["baselines"], name))

    from pyg_stmamba.visualization.mesh import write_rollout_report

    print(f"Report: {write_rollout_report(out)}")


def evaluate(arguments: list[str]) -> None:
    r"""Rolls a trained surrogate out over the test simulations, beside others if given."""
    from pyg_stmamba.training.mesh import evaluate_simulator, load_simulator
    from pyg_stmamba.training.mesh.rollout_table import format_rollout_table
    from pyg_stmamba.training.run_folder import write_json

    parser = make_parser("evaluate", evaluate)
    _add_run(parser, arguments)
    parser.add_argument("--rivals", type=Path, nargs="*", default=[], help="Runs to put beside it.")
    parser.add_argument("--split", default="test", type=str, help="train, val or test.")
    not_options = {"simulator", "trajectories", "rivals", "keep", "progress", "boundary"}
    add_options_of(parser, evaluate_simulator, skip=not_options)
    parser.add_argument("--out", type=Path | None, help="Also write the errors to this .json file.")
    given = parser.parse_args(arguments)
    simulator = load_simulator(given.run)
    split, _ = load_simulations(_with_data_of_run(given), simulator.protocol.history)
    trajectories = choose("split", given.split, split._asdict())
    names = set(inspect.signature(evaluate_simulator).parameters) - not_options
    result = evaluate_simulator(
        simulator,
        trajectories,
        boundary=_boundary(given.boundary),
        rivals={path.name: load_simulator(path) for path in given.rivals},
        progress=True,
        **{key: value for key, value in given.as_dict().items() if key in names},
    )
    print(f"\nErrors of rollouts over {len(trajectories)} simulations ({given.split})")
    print(format_rollout_table(result.test, result.baselines, given.run.name))
    if given.out is not None:
        scores = {given.split: result.test, "baselines": result.baselines}
        write_json(given.out, {**scores, "rollouts": result.rollouts})
        print(given.out)


def rollout(arguments: list[str]) -> None:
    r"""Lets a trained surrogate go on from a simulation, and writes files that ParaView opens."""
    from pyg_stmamba.training.mesh import load_simulator, roll_out

    parser = make_parser("rollout", rollout)
    _add_run(parser, arguments)
    parser.add_argument(
        "--split", default="test", type=str, help="train, val, test, or all frames of all."
    )
    parser.add_argument("--simulation", default=0, type=int, help="Which one of the split.")
    not_options = {"simulator", "trajectory", "progress", "boundary"}
    add_options_of(parser, roll_out, skip=not_options)
    parser.add_argument(
        "--out",
        default=Path("rollout.pvd"),
        type=Path,
        help="File to write: .pvd (and a .vtu a frame), .xdmf, .npz or .h5.",
    )
    parser.add_argument(
        "--animation", type=Path | None, help="Also write prediction and truth as .gif or .mp4."
    )
    given = parser.parse_args(arguments)
    simulator = load_simulator(given.run)
    truth = _simulation(given, simulator)
    names = set(inspect.signature(roll_out).parameters) - not_options
    result = roll_out(
        simulator,
        truth,
        boundary=_boundary(given.boundary),
        progress=True,
        **{key: value for key, value in given.as_dict().items() if key in names},
    )
    if result.message:
        print(result.message)
    if not result.trajectory.num_frames:
        raise ValueError(f"nothing to write: {result.message}")
    _write_rollout(result, truth, given.out, given.animation)


def simulate(arguments: list[str]) -> None:
    r"""Simulates flows past cylinders, in as many processes as there are processors."""
    from pyg_stmamba.datasets.cylinder_flow import SPLITS, CylinderFlow

    parser = make_parser("simulate cylinder-flow", CylinderFlow)
    parser.add_argument("--root", type=Path | None, help="Folder of the data set.")
    parser.add_argument("--split", type=str | None, help="train, val or test (default: all).")
    add_options_of(parser, CylinderFlow, skip={"root", "split", "transform"})
    given = parser.parse_args(arguments).as_dict()
    root = given.pop("root") or folder_of_dataset(CylinderFlow)
    split = given.pop("split")
    for name in SPLITS if split is None else [split]:
        flows = CylinderFlow(root, name, **given)
        print(f"{len(flows)} simulations ({name}), the first {flows[0]}: {flows.folder}")


def convert(arguments: list[str]) -> None:
    r"""Reads simulation results of any kind and writes them as .npz, .h5, .pvd or .xdmf."""
    parser = make_parser("convert", convert)
    add_mesh_options(parser, None, protocol=False)
    parser.add_argument("--out", type=Path, required=True, help="File to write.")
    given = parser.parse_args(arguments)

    from pyg_stmamba.cli_mesh_data import read_simulations
    from pyg_stmamba.data.mesh_files.write_trajectory import write_trajectory

    trajectories = read_simulations(given)
    if len(trajectories) != 1:
        raise ValueError(f"convert takes one simulation at a time, got {len(trajectories)}")
    trajectory = trajectories[0]
    write_trajectory(given.out, trajectory, progress=True)
    print(trajectory)
    print(f"node types: {describe_node_types(trajectory)}")
    print(given.out)


def describe_node_types(trajectory: MeshTrajectory) -> str:
    r"""Says how many nodes of each type there are."""
    mesh = trajectory.mesh
    counts = {name: int(mesh.nodes_of(name).sum()) for name in mesh.node_type_names}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _build_model(model_class: Any, of_data: dict[str, Any], options: Any, seed: int) -> Any:
    import torch

    own = dict(options.pop("model"))
    own.pop("name")
    torch.manual_seed(seed)
    return model_class(**of_data, **own)


def _add_run(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    parser.add_argument("run", type=Path, help="Folder of a run, or a checkpoint.")
    add_mesh_options(parser, named_dataset(list(arguments)), protocol=False)
    parser.add_argument(
        "--boundary",
        default="held",
        type=str,
        help="How the state at the borders goes on: held, data, or a .npy file with an array "
        "[steps, nodes, channels].",
    )


def _with_data_of_run(given: Namespace) -> Namespace:
    """Takes what was not given about the data from the run."""
    import yaml

    folder = given.run if given.run.is_dir() else given.run.parent.parent
    config = folder / "config.yaml"
    if not given.dataset and config.exists():
        saved = yaml.safe_load(config.read_text(encoding="utf-8"))
        for key in data_options():
            if key in saved:
                given[key] = saved[key]
        # Here --split says which part; how large the parts are, the run knows.
        given["fractions"] = saved.get("split")
    return given


def _simulation(given: Namespace, simulator: Simulator) -> MeshTrajectory:
    if given.split == "all":
        from pyg_stmamba.cli_mesh_data import read_simulations

        trajectories = read_simulations(_with_data_of_run(given))
    else:
        split, _ = load_simulations(_with_data_of_run(given), simulator.protocol.history)
        trajectories = choose("split", given.split, split._asdict())
    if not 0 <= given.simulation < len(trajectories):
        raise ValueError(
            f"--simulation {given.simulation}: there are the simulations 0 to "
            f"{len(trajectories) - 1}"
        )
    return trajectories[given.simulation]


def _boundary(given: str) -> Any:
    if not given.endswith(".npy"):
        return given
    import numpy as np

    return np.load(given, allow_pickle=False)


def _write_rollout(
    result: Rollout, truth: MeshTrajectory, out: Path, animation: Path | None
) -> None:
    from pyg_stmamba.data.mesh_files.write_trajectory import write_trajectory
    from pyg_stmamba.training.mesh.beside_truth import beside_truth

    predicted = result.trajectory
    has_truth = predicted.times[-1] <= truth.times[-1] + 0.5 * truth.time_step
    written = beside_truth(predicted, truth) if has_truth else predicted
    write_trajectory(out, written, progress=True)
    print(f"{predicted.num_frames} frames: {out}")
    if animation is not None:
        from pyg_stmamba.visualization.mesh import animate_rollout

        if not has_truth:
            raise ValueError("an animation shows the truth too; roll out no further than it goes")
        print(animate_rollout(predicted, truth, animation, progress=True))
