"""What a run on meshes left in its folder, read leniently: a missing piece is noted, not fatal."""

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.data.mesh_files.npz_trajectory import load_trajectory_npz
from pyg_stmamba.visualization.run_results import read_run_results

UNREADABLE = (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile)


class MeshRunResults(NamedTuple):
    """The pieces of a run; those that are missing are empty, with the reason in :obj:`left_out`."""

    path: Path
    metrics: dict[str, Any]
    history: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    rollouts: dict[str, tuple[MeshTrajectory, MeshTrajectory]]
    configuration: str
    versions: dict[str, Any]
    left_out: list[str]

    @property
    def model(self) -> str:
        return str(self.metrics.get("model") or "model")

    @property
    def methods(self) -> dict[str, str]:
        """The methods in :obj:`errors` and how they are called, the model first."""
        names = [str(name) for name in self.errors.get("methods", ())]
        return {name: self.model if name == "model" else name.replace("_", " ") for name in names}

    def unit(self, role: str) -> str:
        """The unit of velocity or pressure, if a kept rollout knows it."""
        for _, truth in self.rollouts.values():
            return str(truth.units.get(role, ""))
        return ""

    @property
    def has_coefficients(self) -> bool:
        """Whether drag and lift are coefficients, as far as a kept rollout knows."""
        names = {"reference_speed", "reference_length"}
        return any(names <= set(truth.parameters) for _, truth in self.rollouts.values())


def read_mesh_run_results(path: str | Path) -> MeshRunResults:
    r"""Reads :obj:`metrics.json`, :obj:`metrics.csv`, :obj:`config.yaml`, :obj:`versions.json`,
    :obj:`rollout_errors.npz` and the pairs :obj:`<name>_prediction.npz` and
    :obj:`<name>_truth.npz` in :obj:`rollouts/`, whichever are there.

    Args:
        path: Folder that a training or an evaluation wrote.

    Raises:
        FileNotFoundError: If it is not a folder or holds no results.
    """
    run = read_run_results(Path(path))
    left_out = [line for line in run.left_out if not line.startswith("forecasts.npz")]
    errors = _read(run.path / "rollout_errors.npz", _read_arrays, left_out)
    versions = run.metrics.get("versions") or _read(
        run.path / "versions.json", lambda p: json.loads(p.read_text(encoding="utf-8")), left_out
    )
    rollouts = {}
    for prediction in sorted((run.path / "rollouts").glob("*_prediction.npz")):
        name = prediction.name.removesuffix("_prediction.npz")
        pair = _read(prediction, _read_pair, left_out)
        if pair:
            rollouts[name] = pair
    if not rollouts:
        left_out.append("rollouts/ holds no prediction, so no field is shown")
    return MeshRunResults(
        run.path,
        run.metrics,
        run.history,
        errors,
        rollouts,
        run.configuration,
        versions if isinstance(versions, dict) else {},
        left_out,
    )


def _read(path: Path, read: Any, left_out: list[str]) -> Any:
    if not path.is_file():
        left_out.append(f"{path.name} is not in the folder")
        return {}
    try:
        return read(path)
    except UNREADABLE as error:
        left_out.append(f"{path.name} cannot be read: {error}")
        return {}


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    # Opened here, because numpy leaves a broken archive open.
    with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _read_pair(prediction: Path) -> tuple[MeshTrajectory, MeshTrajectory]:
    truth = prediction.with_name(prediction.name.replace("_prediction.npz", "_truth.npz"))
    return load_trajectory_npz(prediction), load_trajectory_npz(truth)
