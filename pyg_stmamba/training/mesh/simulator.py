from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pyg_stmamba.data.mesh import MeshTrajectory
from pyg_stmamba.data.mesh.mesh_protocol import MeshProtocol
from pyg_stmamba.models.mesh_model import MeshModel
from pyg_stmamba.models.mesh_models import MESH_MODELS
from pyg_stmamba.training.checkpoint import is_plain, read_checkpoint

KIND = "simulator"


class Simulator(NamedTuple):
    r"""A surrogate of simulations on meshes: a model, and what it reads of a simulation.

    Args:
        model (MeshModel): The model, its scalers included.
        protocol (MeshProtocol): Which fields it reads and predicts, where, and from how many
            frames.
        facts (dict[str, Any]): Node types, numbers of channels, units and time step of the
            training data.
    """

    model: MeshModel
    protocol: MeshProtocol
    facts: dict[str, Any]


def facts_of(trajectories: Sequence[MeshTrajectory]) -> dict[str, Any]:
    r"""Returns what a trained model must know of its training data.

    Args:
        trajectories (Sequence[MeshTrajectory]): The training data.
    """
    first = trajectories[0]
    return {
        "node_types": list(first.mesh.node_type_names),
        "dim": first.mesh.dim,
        "channels": {name: first.channels(name) for name in first.fields},
        "units": dict(first.units),
        "time_step": first.time_step,
    }


def describe_simulator(simulator: Simulator) -> dict[str, Any]:
    r"""Returns the plain values from which :func:`load_simulator` builds the model again.

    Args:
        simulator (Simulator): The surrogate.
    """
    arguments = simulator.model.config()
    return {
        "class": type(simulator.model).__name__,
        # A model that was given modules as arguments cannot be written as plain values.
        "arguments": arguments if is_plain(arguments) else None,
        "protocol": simulator.protocol._asdict(),
        "facts": simulator.facts,
    }


def load_simulator(path: str | Path, model: MeshModel | None = None) -> Simulator:
    r"""Loads a surrogate from a checkpoint; nothing but tensors and plain values is read.

    Args:
        path (str or Path): A checkpoint, or the folder of a run, which means its best one.
        model (MeshModel, optional): A model of the right shape; needed only for classes that this
            package does not know and for models that were built from modules.
            (default: :obj:`None`)

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds something else, or the model cannot be built from it.
    """
    description, weights = read_checkpoint(path, KIND)
    if model is None:
        classes = {made.__name__: made for made in MESH_MODELS.values()}
        name, arguments = description["class"], description["arguments"]
        if name not in classes or arguments is None:
            why = f"known are {', '.join(classes)}" if name not in classes else "built from modules"
            raise ValueError(
                f"{path} holds a {name} ({why}). Build it and pass it: "
                f"load_simulator(path, model=...)"
            )
        model = classes[name](**arguments)
    model.load_state_dict(weights)
    protocol = MeshProtocol(**description["protocol"])
    return Simulator(model.eval(), protocol, description["facts"])


def check_simulator_fits(simulator: Simulator, trajectory: MeshTrajectory) -> None:
    r"""Raises a :class:`ValueError` that names all differences between what a surrogate was
    trained on and a simulation which keep it from working there.

    Args:
        simulator (Simulator): The surrogate.
        trajectory (MeshTrajectory): The simulation.
    """
    model, protocol, facts = simulator
    found = []
    for name in (*protocol.state, *protocol.outputs):
        trained = {**model.state, **model.outputs}[name]
        given = trajectory.channels(name) if name in trajectory.fields else None
        # What is predicted besides the state is not read, so a rollout can do without it.
        if given != trained and not (given is None and name in protocol.outputs):
            there = ", ".join(trajectory.fields) or "none"
            found.append(
                f"field {name}: trained on {trained} channels, given "
                + (f"{given}" if given is not None else f"none (there are {there})")
            )
    if list(trajectory.mesh.node_type_names) != facts["node_types"]:
        found.append(
            f"node types: trained on {', '.join(facts['node_types'])}, given "
            f"{', '.join(trajectory.mesh.node_type_names)}"
        )
    if trajectory.mesh.dim != facts["dim"]:
        found.append(f"space: trained in {facts['dim']}-D, given {trajectory.mesh.dim}-D")
    time_step, given_step = facts["time_step"], trajectory.time_step
    if given_step and abs(given_step - time_step) > 1e-3 * time_step:
        found.append(f"time step: trained on {time_step:g}, given {given_step:g}")
    for name in protocol.conditions:
        if name not in trajectory.parameters:
            there = ", ".join(trajectory.parameters) or "none"
            found.append(f"parameter {name}: not given (there are {there})")
    if found:
        raise ValueError("the checkpoint does not fit the data: " + "; ".join(found))
