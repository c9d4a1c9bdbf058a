"""Which simulations a command of :obj:`pyg-stmamba` reads."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyg_stmamba.cli_options import add_options_of, configured, folder_of_dataset, value_of

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from pyg_stmamba.data.mesh import MeshTrajectory
    from pyg_stmamba.data.mesh.mesh_protocol import MeshProtocol
    from pyg_stmamba.data.mesh.mesh_split import MeshSplit

SUFFIXES = (".pvd", ".vtu", ".pvtu", ".xdmf", ".xmf", ".h5", ".hdf5", ".foam", ".case", ".cgns")
READING = ("dataset", "root", "data", "fields", "node_types", "time_step")
OF_PROTOCOL: dict[str, Any] = dict.fromkeys(
    ("state", "outputs", "conditions", "static", "predicted_types"), list[str] | None
)
OF_PROTOCOL |= {"history": int | None, "coarse_levels": int | None, "gradients": bool | None}


def is_mesh_data(arguments: list[str]) -> bool:
    r"""Returns whether the data set that a command line names, itself or in its file of options,
    are simulations on meshes.

    Args:
        arguments (list[str]): The command line.
    """
    name = named_dataset(arguments)
    return name is not None and _is_mesh_name(name)


def named_dataset(arguments: list[str]) -> str | None:
    r"""Returns the data set that a command line names, itself or in its file of options.

    Args:
        arguments (list[str]): The command line.
    """
    name: Any = value_of(arguments, "--dataset") or configured(arguments).get("dataset")
    name = name[0] if isinstance(name, list) and name else name
    return name if isinstance(name, str) else None


def is_mesh_run(run: str) -> bool:
    r"""Returns whether the folder of a run, or a checkpoint in it, is that of a surrogate of
    simulations on meshes.

    Args:
        run (str): The folder or the checkpoint.
    """
    import yaml

    from pyg_stmamba.models.mesh_models import MESH_MODELS

    path = Path(run)
    config = (path if path.is_dir() else path.parent.parent) / "config.yaml"
    if not config.exists():
        return False
    saved = yaml.safe_load(config.read_text(encoding="utf-8"))
    return isinstance(saved, dict) and (saved.get("model") or {}).get("name") in MESH_MODELS


def add_mesh_options(parser: ArgumentParser, dataset: str | None, *, protocol: bool = True) -> None:
    r"""Adds what says which simulations to read and what is predicted of them.

    Args:
        parser (ArgumentParser): The parser.
        dataset (str, optional): The data set of the command line; if it is built in, its own
            options are added under :obj:`data.`.
        protocol (bool, optional): Whether options of what is predicted are added too.
            (default: :obj:`True`)
    """
    from pyg_stmamba.datasets import MESH_DATASETS

    parser.add_argument(
        "--dataset",
        type=str,
        nargs="+",
        default=[],
        help=f"One of {', '.join(MESH_DATASETS)}, or one's own simulations, each a file (.pvd, "
        ".xdmf, .npz, .h5, .foam, ...), a folder of them, or several with commas between them "
        "that hold different fields of one simulation.",
    )
    parser.add_argument("--root", type=Path | None, help="Folder of a built-in data set.")
    made = MESH_DATASETS.get(dataset or "cylinder-flow", MESH_DATASETS["cylinder-flow"])
    of_data = {"root", "split", "num_simulations", "transform", "progress", "name"}
    add_options_of(parser, made, "data.", skip=of_data)
    parser.add_argument(
        "--fields",
        type=dict[str, str] | None,
        help="Names of fields in one's own files, as '{velocity: U, pressure: p}'.",
    )
    parser.add_argument(
        "--node-types",
        type=dict[str, str] | str | None,
        help="Where nodes of a type are, as '{inflow: \"boundary & (x < 0.001)\"}', or an array "
        "of the files (default: from the flow).",
    )
    parser.add_argument(
        "--time-step", type=float | None, help="Time between frames of files that count steps."
    )
    if protocol:
        parser.add_argument(
            "--split",
            type=tuple[float, float, float] | None,
            help="Parts of training, validation and test, as in [0.7,0.1,0.2].",
        )
        _add_protocol_options(parser)


def data_options() -> tuple[str, ...]:
    r"""Returns the names of the options that say which data to read."""
    return READING


def load_simulations(
    given: Namespace, history: int = 1, gradients: bool = False
) -> tuple[MeshSplit, MeshProtocol]:
    r"""Reads the simulations that the options name, split, and what is predicted of them.

    Args:
        given (Namespace): The options.
        history (int, optional): Frames that are read, unless the options say.
            (default: :obj:`1`)
        gradients (bool, optional): Whether gradients are read, unless the options say.
            (default: :obj:`False`)
    """
    from pyg_stmamba.data.mesh.mesh_protocol import MeshProtocol
    from pyg_stmamba.data.mesh.mesh_split import MeshSplit, split_trajectories
    from pyg_stmamba.datasets import MESH_DATASETS

    name = given.dataset[0] if len(given.dataset) == 1 else None
    if name in MESH_DATASETS:
        made = MESH_DATASETS[name]
        options = {**(given.get("data") or {})}
        root = given.root or folder_of_dataset(made)
        parts = [made(root, split=split, **options) for split in MeshSplit._fields]
        # Opened once: an item of a data set is opened anew at each access.
        split, protocol = MeshSplit(*map(list, parts)), parts[0].protocol
    else:
        trajectories = read_simulations(given)
        fractions = given.get("fractions") or given.get("split")
        fractions = tuple(fractions) if isinstance(fractions, tuple | list) else (0.7, 0.1, 0.2)
        split, protocol = split_trajectories(trajectories, fractions), MeshProtocol()
        others = tuple(name for name in trajectories[0].fields if name not in protocol.state)
        protocol = protocol._replace(outputs=others)
    wanted = {key: given.get(key) for key in OF_PROTOCOL}
    given_ones = {key: value for key, value in wanted.items() if value is not None}
    wanted = {"history": history, "gradients": gradients, **given_ones}
    tuples: dict[str, Any] = {}
    for key, value in wanted.items():
        tuples[key] = tuple(value) if isinstance(value, list) else value
    if "state" in tuples and "outputs" not in tuples:
        rest = tuple(name for name in protocol.outputs if name not in tuples["state"])
        tuples["outputs"] = rest
    return split, protocol._replace(**tuples)


def read_simulations(given: Namespace) -> list[MeshTrajectory]:
    r"""Reads one's own simulations, or all of a built-in data set.

    Args:
        given (Namespace): The options.
    """
    from pyg_stmamba.datasets import MESH_DATASETS

    if not given.dataset:
        raise ValueError(
            f"give --dataset: one of {', '.join(MESH_DATASETS)}, or files of simulations"
        )
    if given.dataset[0] in MESH_DATASETS:
        split, _ = load_simulations(given)
        return [trajectory for part in split for trajectory in part]
    found = []
    for item in given.dataset:
        found += _read(item, given)
    return found


def _read(item: str, given: Namespace) -> list[MeshTrajectory]:
    from pyg_stmamba.data.mesh_files.hdf5_trajectory import trajectory_groups
    from pyg_stmamba.data.mesh_files.read_trajectory import read_trajectory

    path = Path(item)
    if path.is_dir() and (files := sorted(path.glob("*.npz"))):
        return [each for file in files for each in _read(str(file), given)]
    options: dict[str, Any] = {"progress": True}
    options |= {name: given[name] for name in ("fields", "node_types", "time_step")}
    if path.suffix in (".h5", ".hdf5"):
        groups = trajectory_groups(path)
        if len(groups) > 1:
            return [read_trajectory(item, group=group, **options) for group in groups]
    parts = item.split(",")
    return [read_trajectory(parts if len(parts) > 1 else item, **options)]


def _is_mesh_name(name: str) -> bool:
    from pyg_stmamba.datasets import MESH_DATASETS

    path = Path(name.split(",")[0])
    if path.suffix == ".npz" and path.exists():
        with zipfile.ZipFile(path) as archive:
            return any(member.startswith("cells") for member in archive.namelist())
    return name in MESH_DATASETS or path.suffix in SUFFIXES or path.is_dir() or "*" in name


def _add_protocol_options(parser: ArgumentParser) -> None:
    import docstring_parser

    from pyg_stmamba.data.mesh.mesh_protocol import MeshProtocol

    documented = docstring_parser.parse(MeshProtocol.__doc__ or "")
    texts = {item.arg_name: item.description or "" for item in documented.params}
    for name, kind in OF_PROTOCOL.items():
        text = texts[name].replace(":obj:", "").replace("`", "").partition("(default")[0]
        spelled = {f"--{name.replace('_', '-')}": None, f"--{name}": None}
        parser.add_argument(
            *spelled,
            type=kind,
            help=" ".join(text.split()) + " (default: as the data set or the model has it)",
        )
