from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.data.mesh_files.deepmind_meta import DeepMindFeature, read_deepmind_meta
from pyg_stmamba.data.mesh_files.example_message import Feature, find_features
from pyg_stmamba.data.mesh_files.mapped_array import MappedArray
from pyg_stmamba.data.mesh_files.tfrecord import TFRecordFile
from pyg_stmamba.data.mesh_files.trajectory_arrays import trajectory_from_arrays

MESH = ("mesh_pos", "cells", "node_type")


class DeepMindTrajectories(Sequence[MeshTrajectory]):
    r"""Trajectories in the files of the `"Learning Mesh-Based Simulation with Graph Networks"
    <https://arxiv.org/abs/2010.03409>`_ paper: a folder with :obj:`meta.json` and a
    :obj:`.tfrecord` file for each split.

    Arrays that change with time become fields, the others static ones. Frames are read when they
    are asked for.

    .. code-block:: python

        trajectory = DeepMindTrajectories("cylinder_flow", "train")[0]

    Args:
        folder (str): The folder.
        split (str): The name of the :obj:`.tfrecord` file, as :obj:`"train"`.
        fields (list[str], optional): The arrays to take besides the mesh.
            (default: :obj:`None`, all)
        check (bool, optional): Tests the checksum of a trajectory when it is opened, for which
            all of it is read once. (default: :obj:`True`)
        places (numpy.ndarray, optional): The places of the records, see
            :class:`~pyg_stmamba.data.mesh_files.tfrecord.TFRecordFile`. (default: :obj:`None`)

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If a file is cut off or damaged; or, at an access, if an array is missing, its
            size does not fit, a node type is unknown, or the mesh changes with time.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        split: str,
        *,
        fields: Sequence[str] | None = None,
        check: bool = True,
        places: np.ndarray | None = None,
    ) -> None:
        self.folder, self.split, self.check = Path(folder), split, check
        self.meta = read_deepmind_meta(folder)
        known = self.meta.features
        absent = [name for name in (*MESH, *(fields or ())) if name not in known]
        if absent:
            raise ValueError(
                f"{self.folder / 'meta.json'} has no feature {', '.join(absent)}; it has "
                f"{', '.join(known) or 'none'}"
            )
        self.features = {
            name: feature
            for name, feature in known.items()
            if fields is None or name in (*MESH, *fields) or "/" in name or name == "times"
        }
        self.records = TFRecordFile(self.folder / f"{split}.tfrecord", places)

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> MeshTrajectory: ...
    @overload
    def __getitem__(self, index: slice) -> list[MeshTrajectory]: ...

    def __getitem__(self, index: int | slice) -> MeshTrajectory | list[MeshTrajectory]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        record = self.records[index] if self.check else self.records.mapped(index)
        index = index % len(self)
        source = f"{self.records.path}, record {index}"
        try:
            found = find_features(record)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
        arrays: dict[str, Any] = {
            f"units/{name}": np.array(unit) for name, unit in self.meta.units.items()
        }
        arrays |= {"name": np.array(f"{self.split} {index}"), "dt": self.meta.time_step}
        start = int(self.records.places[index, 0])
        for name, feature in self.features.items():
            try:
                values = self._array(name, feature, record, start, found)
            except ValueError as error:
                raise ValueError(f"{source}: {name!r} {error}") from error
            arrays.update(_named(name, feature, values))
        return trajectory_from_arrays(arrays, source)

    def _array(
        self,
        name: str,
        feature: DeepMindFeature,
        record: np.ndarray,
        start: int,
        found: dict[str, Feature],
    ) -> MappedArray | np.ndarray:
        place = _only_value(name, found)
        shape = feature.shape_of(place.stop - place.start)
        if feature.type == "dynamic_varlen":
            lengths = np.frombuffer(record[_only_value(f"length_{name}", found)], dtype="<i4")
            if len(lengths) != self.meta.num_frames or lengths.sum() != shape[0]:
                raise ValueError(
                    f"has {shape[0]} rows in all, but its lengths are of {len(lengths)} frames "
                    f"and {lengths.sum()} rows; there are {self.meta.num_frames} frames"
                )
            if (lengths != lengths[0]).any():
                frame = int(np.flatnonzero(lengths != lengths[0])[0])
                raise ValueError(
                    f"has {lengths[0]} rows in frame 0 but {lengths[frame]} in frame {frame}; a "
                    "trajectory has one mesh, so data with remeshing are not supported"
                )
            shape = (len(lengths), int(lengths[0]), shape[1])
        if 0 in shape:
            return np.zeros(shape, dtype=feature.numpy_dtype)
        return MappedArray(self.records.path, start + place.start, shape, feature.numpy_dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} trajectories, {str(self.records.path)!r})"


def _only_value(name: str, found: dict[str, Feature]) -> slice:
    if name not in found:
        there = ", ".join(sorted(found)) or "nothing"
        raise ValueError(f"is not there, {name} is missing; the record has {there}")
    kind, parts = found[name]
    if kind != "bytes_list" or len(parts) != 1:
        raise ValueError(f"must be one value of a bytes_list, got {len(parts)} of a {kind}")
    return parts[0]


def _named(name: str, feature: DeepMindFeature, values: MappedArray | np.ndarray) -> dict[str, Any]:
    """The array under the name that it has in other files of trajectories."""
    if name in MESH:
        return {name.removeprefix("mesh_"): values}
    if name == "times" or "/" in name:
        flat = np.asarray(values).ravel()
        return {name: flat if feature.type == "dynamic" else flat[0]}
    if feature.type == "static":
        return {f"static/{name}": np.asarray(values)[0]}
    return {f"fields/{name}": values}
