from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyg_stmamba.data.mesh.trajectory import Frames, MeshTrajectory
from pyg_stmamba.data.mesh_files.hdf5_array import HDF5Array, import_h5py
from pyg_stmamba.data.mesh_files.mapped_npz import frame_parts
from pyg_stmamba.data.mesh_files.trajectory_arrays import (
    is_name,
    trajectory_arrays,
    trajectory_from_arrays,
)
from pyg_stmamba.data.whole_file import written_whole


def save_trajectory_hdf5(
    trajectory: MeshTrajectory | Mapping[str, MeshTrajectory], path: str | os.PathLike[str]
) -> None:
    r"""Writes one trajectory, or several by name, so that :func:`load_trajectory_hdf5` reads them
    back, all of them.

    The arrays are called as
    :func:`~pyg_stmamba.data.mesh_files.trajectory_arrays.trajectory_from_arrays` has it. Fields are
    read and written a few frames at a time. The file gets its name only when it is whole.

    .. code-block:: python

        save_trajectory_hdf5({"run 1": first, "run 2": second}, "runs.h5")

    Args:
        trajectory (MeshTrajectory or dict[str, MeshTrajectory]): What to write; each of several
            becomes a group of the file.
        path (str): The file.

    Raises:
        ImportError: If h5py is not installed.
        ValueError: If a trajectory, a field or the like has a name with a slash in it, or none.
    """
    groups = {"": trajectory} if isinstance(trajectory, MeshTrajectory) else trajectory
    if wrong := [name for name in groups if groups is trajectory and not is_name(name)]:
        raise ValueError(f"{wrong[0]!r} cannot be the name of a trajectory in a file; rename it")
    h5py = import_h5py()
    # Otherwise names come back in alphabetical order.
    with written_whole(path) as temporary, h5py.File(temporary, "w", track_order=True) as file:
        for name, member in groups.items():
            group = file.create_group(name, track_order=True) if name else file
            for key, values in trajectory_arrays(member).items():
                _write(group, key, values)


def load_trajectory_hdf5(
    path: str | os.PathLike[str],
    group: str | None = None,
    *,
    fields: Sequence[str] | None = None,
    keys: Mapping[str, str] | None = None,
    time_step: float | None = None,
) -> MeshTrajectory:
    r"""Reads a trajectory that :func:`save_trajectory_hdf5` wrote, or one's own HDF5 file.

    Frames are read when they are asked for. What one's own file can have is in the table of
    :func:`~pyg_stmamba.data.mesh_files.trajectory_arrays.trajectory_from_arrays`.

    Args:
        path (str): The file.
        group (str, optional): Which of several trajectories, as :func:`trajectory_groups` lists
            them. (default: :obj:`None`, the only one)
        fields (list[str], optional): The fields to take; names that are not known are then left
            alone. (default: :obj:`None`, all)
        keys (dict[str, str], optional): Under which name the file has what is called otherwise
            in the table. (default: :obj:`None`)
        time_step (float, optional): The time from frame to frame where the file has none.
            (default: :obj:`None`)

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If h5py is not installed.
        ValueError: If the file is damaged, something is missing, unknown, changes with time or
            does not fit; the message lists what is there.
    """
    groups = trajectory_groups(path)
    if group is None and len(groups) == 1:
        group = groups[0]
    if group not in groups:
        asked = "say which with group=..." if group is None else f"there is none called {group!r}"
        raise ValueError(f"{path} has {len(groups)} trajectories, {asked}: {', '.join(groups)}")
    arrays = _arrays(path, group)
    source = f"{path}, {group}" if group else str(path)
    return trajectory_from_arrays(arrays, source, fields=fields, keys=keys, time_step=time_step)


def trajectory_groups(path: str | os.PathLike[str]) -> list[str]:
    r"""Lists the trajectories in an HDF5 file by the names of their groups.

    Args:
        path (str): The file.

    Returns:
        list[str]: The names in order; one empty name if the file holds one trajectory without a
        group.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If h5py is not installed.
        ValueError: If the file is damaged.
    """
    h5py = import_h5py()
    with _open(path) as file:
        alone = any(isinstance(member, h5py.Dataset) for member in file.values())
        return [""] if alone else list(file)


def _open(path: str | os.PathLike[str]) -> Any:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        return import_h5py().File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} is no HDF5 file, or damaged or cut off: {error}") from error


def _arrays(path: str | os.PathLike[str], group: str) -> dict[str, Any]:
    """The arrays of a group by name; texts are read, numbers are not."""
    with _open(path) as file:
        found = {}
        for name, dataset in _datasets(file[group or "/"]):
            text = import_h5py().check_string_dtype(dataset.dtype) is not None
            found[name] = np.array(dataset.asstr()[()], dtype=str) if text else dataset.name
    return {
        name: HDF5Array(path, value) if isinstance(value, str) else value
        for name, value in found.items()
    }


def _datasets(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, member in group.items():
        if isinstance(member, import_h5py().Dataset):
            yield prefix + name, member
        else:
            yield from _datasets(member, f"{prefix}{name}/")


def _write(group: Any, key: str, values: np.ndarray | Frames) -> None:
    folder, _, name = key.rpartition("/")
    if folder and folder not in group:
        group.create_group(folder, track_order=True)
    parent = group[folder] if folder else group
    if not isinstance(values, np.ndarray):
        dtype = np.asarray(values[:1]).dtype
        dataset = parent.create_dataset(name, shape=values.shape, dtype=dtype)
        start = 0
        for part in frame_parts(values, dtype):
            dataset[start : start + len(part)] = part
            start += len(part)
    elif values.dtype.kind == "U":
        text = import_h5py().string_dtype()
        parent.create_dataset(name, data=values.astype(object), dtype=text)
    else:
        parent.create_dataset(name, data=values)
