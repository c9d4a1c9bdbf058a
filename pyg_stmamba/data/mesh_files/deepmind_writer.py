from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.node_types import NODE_TYPES
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.data.mesh_files.example_message import encode_example
from pyg_stmamba.data.mesh_files.tfrecord import write_tfrecord
from pyg_stmamba.data.mesh_files.trajectory_arrays import trajectory_arrays
from pyg_stmamba.data.whole_file import written_whole

# Which cells files without a name for their type can hold, and in how many dimensions.
CELLS = {"triangle": (2, 3), "quad": (2,), "tetra": (3,)}

Stored = tuple[str, np.ndarray]


def write_deepmind(
    folder: str | os.PathLike[str],
    split: str,
    trajectories: Iterable[MeshTrajectory],
    progress: bool = False,
) -> None:
    r"""Writes trajectories as the data sets of MeshGraphNets have them, to be read by
    :class:`~pyg_stmamba.data.mesh_files.deepmind_trajectory.DeepMindTrajectories` and by other
    codes.

    Numbers on nodes become float32. Times that are not multiples of the time step, parameters and
    series become arrays of their own, :obj:`times`, :obj:`parameters/...` and :obj:`series/...`,
    of shape :math:`[1, 1, 1]` or :math:`[T, 1, 1]`, which other codes read too; units go into
    :obj:`meta.json`, names are lost. One trajectory is in memory at a time.

    .. code-block:: python

        write_deepmind("my_flow", "train", trajectories)

    Args:
        folder (str): The folder; it gets :obj:`meta.json`, or has that of another split.
        split (str): The name of the :obj:`.tfrecord` file.
        trajectories (iterable of MeshTrajectory): The trajectories, with the same number of
            frames, time step, fields and so on.
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`False`)

    Raises:
        ValueError: If there are none, they differ in what all must have, a node type is none of
            MeshGraphNets, or cells are of several types.
    """
    path = Path(folder, "meta.json")
    meta = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    bar = tqdm(trajectories, desc=f"Writing {split}", disable=not progress)
    write_tfrecord(Path(folder, f"{split}.tfrecord"), _records(bar, meta, path))
    if not path.exists():
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(meta), encoding="utf-8")


def _records(
    trajectories: Iterable[MeshTrajectory], meta: dict[str, Any], path: Path
) -> Iterator[bytes]:
    """The record of each trajectory; the first one fills meta where it is empty."""
    number = -1
    for number, trajectory in enumerate(trajectories):
        arrays = _features(trajectory)
        own = _meta(trajectory, arrays)
        if not meta:
            meta |= own
        for key in ("trajectory_length", "dt", "features", "units"):
            if own[key] != meta.get(key, {}):
                raise ValueError(
                    f"trajectory {number} does not fit {path}, which holds for all: {key} is "
                    f"{own[key]} instead of {meta.get(key, {})}"
                )
        yield encode_example({name: values.tobytes() for name, (_, values) in arrays.items()})
    if number < 0:
        raise ValueError(f"there are no trajectories to write beside {path}")


def _meta(trajectory: MeshTrajectory, arrays: Mapping[str, Stored]) -> dict[str, Any]:
    features = {
        name: {
            "type": kind,
            "shape": [len(values), 1 if "/" in name or name == "times" else -1, values.shape[2]],
            "dtype": values.dtype.name,
        }
        for name, (kind, values) in arrays.items()
    }
    return {
        "simulator": None,
        "dt": _time_step(trajectory),
        "collision_radius": None,
        "field_names": list(features),
        "features": features,
        "trajectory_length": trajectory.num_frames,
        "units": trajectory.units,
    }


def _features(trajectory: MeshTrajectory) -> dict[str, Stored]:
    """All arrays as files hold them, in three dimensions, each with the type of its feature."""
    mesh = trajectory.mesh
    features: dict[str, Stored] = {
        "cells": ("static", _cells(mesh)[None].astype("<i4")),
        "mesh_pos": ("static", mesh.pos[None].astype("<f4")),
        "node_type": ("static", _node_types(mesh)[None, :, None].astype("<i4")),
    }
    for key, values in trajectory_arrays(trajectory).items():
        group, _, name = key.rpartition("/")
        if group in ("fields", "static"):
            if name in (*features, "times"):
                raise ValueError(f"{name!r} in {group} is already the name of something else")
            stored = _as_stored(np.asarray(values[:]))
            features[name] = ("dynamic", stored) if group == "fields" else ("static", stored[None])
        elif group == "parameters":
            features[key] = ("static", np.asarray(values, dtype="<f8").reshape(1, 1, 1))
        elif group == "series":
            features[key] = ("dynamic", np.asarray(values, dtype="<f8")[:, None, None])
    steps = np.arange(trajectory.num_frames) * _time_step(trajectory)
    if not np.allclose(trajectory.times, steps, rtol=1e-9, atol=0):
        features["times"] = ("dynamic", trajectory.times.astype("<f8")[:, None, None])
    return features


def _as_stored(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        return values.astype("<f4")
    return values.astype("<i4" if np.can_cast(values.dtype, np.int32) else "<i8")


def _time_step(trajectory: MeshTrajectory) -> float:
    # Sums of a time step differ from each other in their last digits.
    return float(f"{trajectory.time_step:.12g}")


def _cells(mesh: Mesh) -> np.ndarray:
    blocks = {kind: block for kind, block in mesh.cells.items() if kind != "line"}
    if len(blocks) != 1 or mesh.dim not in CELLS.get(next(iter(blocks)), ()):
        raise ValueError(
            "these files hold triangles, quads in two dimensions or tetrahedra in three, and one "
            f"type of them, got {', '.join(blocks) or 'none'} in {mesh.dim} dimensions"
        )
    return next(iter(blocks.values()))


def _node_types(mesh: Mesh) -> np.ndarray:
    used = [mesh.node_type_names[place] for place in np.unique(mesh.node_type)]
    if unknown := [name for name in used if name not in NODE_TYPES]:
        raise ValueError(
            f"these files know the node types {', '.join(NODE_TYPES)}, not {', '.join(unknown)}"
        )
    places = [NODE_TYPES.index(n) if n in NODE_TYPES else -1 for n in mesh.node_type_names]
    return np.array(places)[mesh.node_type]
