from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.node_rules import (
    automatic_node_types,
    node_types_by_rules,
    rule_variables,
    summarize_flow,
)
from pyg_stmamba.data.mesh.node_types import NODE_TYPES
from pyg_stmamba.data.mesh.rule_expression import names_in
from pyg_stmamba.data.mesh.trajectory import Frames, MeshTrajectory
from pyg_stmamba.data.mesh_files.open_series import PathLike, open_series
from pyg_stmamba.data.mesh_files.series_fields import SeriesFields

OWN_SUFFIXES = (".npz", ".h5", ".hdf5")
VELOCITY_NAMES = ("velocity", "u", "vel", "v")


def read_trajectory(
    paths: PathLike | Sequence[PathLike],
    *,
    fields: Sequence[str] | Mapping[str, str] | None = None,
    static: Sequence[str] = (),
    node_types: str | Mapping[str, str] | np.ndarray | None = None,
    node_type_names: Sequence[str] = NODE_TYPES,
    velocity: str | None = None,
    time_step: float | None = None,
    frames: slice | None = None,
    mesh: Literal["same", "first"] = "same",
    planar: bool = True,
    parameters: Mapping[str, float] | None = None,
    name: str | None = None,
    group: str | None = None,
    progress: bool = False,
) -> MeshTrajectory:
    r"""Reads one's own simulation results, whatever they are kept in.

    Frames are read from their files when they are asked for. Several series, as one for the
    velocity and one for the pressure, are joined.

    .. code-block:: python

        trajectory = read_trajectory(["velocity.pvd", "pressure.pvd"], time_step=0.01)
        trajectory = read_trajectory(
            "flow.xdmf",
            fields={"velocity": "f_20", "pressure": "p"},
            node_types={"inflow": "boundary & (x < 1e-6)", "wall": "boundary & (speed == 0)"},
        )

    A mesh whose points all have the same :math:`z` becomes two-dimensional, and vectors on it
    lose a third component that is 0. Values on cells come to nodes as the mean over their cells,
    if there is nothing of the same name on nodes. Cells of higher order are read by their
    corners, and the nodes between them left out. Cells are numbered the same way round; those
    without area or volume are refused.

    Where :obj:`node_types` is not given, it is the array :obj:`"node_type"` of the files, or comes
    from the flow as :func:`automatic_node_types` says, or is normal everywhere if there is no
    velocity.

    Args:
        paths (str or Sequence[str]): What :func:`open_series` opens, or an :obj:`.npz` or
            :obj:`.h5` file of this package.
        fields (Sequence[str] or dict[str, str], optional): Which fields, or names for them, as
            :obj:`{"velocity": "f_20"}`. (default: :obj:`None`, all of floating point)
        static (Sequence[str], optional): Fields that do not change; they are read once.
            (default: :obj:`()`)
        node_types (str, dict[str, str] or numpy.ndarray, optional): What nodes are: the name of
            an array on the nodes, a rule for each type as :func:`node_types_by_rules` takes them
            with the names of :func:`rule_variables`, or numbers. (default: :obj:`None`)
        node_type_names (Sequence[str], optional): The types. (default: :obj:`NODE_TYPES`)
        velocity (str, optional): The field whose speed tells walls apart. (default:
            :obj:`None`, the one called velocity, U or alike, or else the only vector)
        time_step (float, optional): What one unit of the time stamps is, for files that count
            steps instead of time. (default: :obj:`None`, 1)
        frames (slice, optional): Which frames. (default: :obj:`None`, all)
        mesh (str, optional): :obj:`"same"` refuses frames with another mesh than the first;
            :obj:`"first"` reads frames whose points moved or whose cells are numbered otherwise
            as if they had the first mesh. The number of points must be the same.
            (default: :obj:`"same"`)
        planar (bool, optional): Drops third components that are 0. (default: :obj:`True`)
        parameters (dict[str, float], optional): Numbers that hold for the simulation.
            (default: :obj:`None`)
        name (str, optional): What it is called. (default: :obj:`None`, as the file)
        group (str, optional): Which of several trajectories in an HDF5 file of this package.
            (default: :obj:`None`, the only one)
        progress (bool, optional): Shows a progress bar while all frames are read to find the
            types of nodes. (default: :obj:`False`)

    Raises:
        OSError: If a file is not there.
        ValueError: If a file is damaged or of an unknown kind, a field, a type or a name in a
            rule is not there, series do not fit each other, or a frame has another mesh.
    """
    if (own := _own_file(paths)) is not None:
        given = {
            "static": len(static) > 0,
            "node_types": node_types is not None,
            "node_type_names": tuple(node_type_names) != NODE_TYPES,
            "velocity": velocity is not None,
            "frames": frames is not None,
            "mesh": mesh != "same",
            "planar": not planar,
            "parameters": parameters is not None,
            "name": name is not None,
        }
        others = [option for option, there in given.items() if there]
        return _read_own(own, fields, time_step, group, others)
    if group is not None:
        raise ValueError(f"group={group!r} is for HDF5 files of several trajectories, not {paths}")
    if mesh not in ("same", "first"):
        raise ValueError(f"unknown mesh {mesh!r}; choose from same, first")
    if time_step is not None and not time_step > 0:
        raise ValueError(f"time_step must be positive, got {time_step}")
    source = SeriesFields(open_series(paths), mesh == "same", frames, planar)
    wanted = source.chosen(fields, static)
    moving: dict[str, Frames] = {key: source.frames(old) for key, old in wanted.items()}
    still = {key: np.asarray(source.frames(key)[0:1][0]) for key in static}
    if node_types is None and "node_type" in source.names:
        node_types = "node_type"
    types = _node_types(source, moving, velocity, node_types, node_type_names, progress)
    return MeshTrajectory(
        Mesh(source.mesh.pos, source.mesh.cells, types, tuple(node_type_names)),
        moving,
        source.times * (1.0 if time_step is None else time_step),
        static=still,
        parameters=parameters,
        name=source.name if name is None else name,
    )


def _own_file(paths: PathLike | Sequence[PathLike]) -> Path | None:
    """The path, if it is a single file of this package, which holds a whole trajectory."""
    if not isinstance(paths, (str, os.PathLike)):
        if len(paths) != 1:
            return None
        paths = paths[0]
    return Path(paths) if Path(paths).suffix in OWN_SUFFIXES else None


def _read_own(
    path: Path,
    fields: Sequence[str] | Mapping[str, str] | None,
    time_step: float | None,
    group: str | None,
    others: list[str],
) -> MeshTrajectory:
    from pyg_stmamba.data.mesh_files.hdf5_trajectory import load_trajectory_hdf5
    from pyg_stmamba.data.mesh_files.npz_trajectory import load_trajectory_npz

    if others:
        raise ValueError(
            f"{path} holds a whole trajectory; {', '.join(others)} cannot be given with it, only "
            "fields and time_step"
        )
    options: dict[str, Any] = {"time_step": time_step}
    if fields is not None:
        keys = fields if isinstance(fields, Mapping) else None
        options |= {"fields": list(fields), "keys": keys}
    if path.suffix != ".npz":
        return load_trajectory_hdf5(path, group, **options)
    if group is not None:
        raise ValueError(f"{path} holds one trajectory, there is no group {group!r} in it")
    return load_trajectory_npz(path, **options)


def _node_types(
    source: SeriesFields,
    fields: dict[str, Frames],
    velocity: str | None,
    given: str | Mapping[str, str] | np.ndarray | None,
    names: Sequence[str],
    progress: bool,
) -> np.ndarray:
    """What each node is: by an array, by numbers, by rules, or from the flow."""
    if isinstance(given, str):
        return source.frames(given)[0:1][0, :, 0]
    if isinstance(given, np.ndarray):
        return given
    if velocity is not None and velocity not in fields:
        raise ValueError(
            f"there is no field {velocity!r} for velocity; fields are {', '.join(fields)}"
        )
    velocity = velocity or _velocity_among(fields, source.mesh.dim)
    if given is None:
        if velocity is None:
            return np.zeros(source.mesh.num_nodes, dtype=np.int64)
        summary = summarize_flow({velocity: fields[velocity]}, progress)
        return automatic_node_types(source.mesh, summary, velocity, source.patches)
    known = rule_variables(source.mesh, source.patches)
    # All frames are read only for rules that ask about the flow.
    asks = any(not names_in(rule) <= known.keys() for rule in given.values())
    if asks:
        summary = summarize_flow(fields, progress)
        known = rule_variables(source.mesh, source.patches, summary, velocity)
    return node_types_by_rules(given, known, names)


def _velocity_among(fields: Mapping[str, Frames], dim: int) -> str | None:
    vectors = [name for name, frames in fields.items() if frames.shape[2] in (dim, 3)]
    for likely in VELOCITY_NAMES:
        for name in vectors:
            if name.lower() == likely:
                return name
    return vectors[0] if len(vectors) == 1 else None
