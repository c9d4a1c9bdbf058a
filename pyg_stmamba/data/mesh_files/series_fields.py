from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh_files.frame_series import (
    FileFrames,
    FrameSeries,
    SharedMeshReader,
    is_planar,
)
from pyg_stmamba.data.mesh_files.snapshot import mesh_of_snapshot


class _Place(NamedTuple):
    """Where a field stands: in which series, under which name, at which of its points."""

    reader: SharedMeshReader
    name: str
    nodes: np.ndarray


class SeriesFields:
    r"""The fields of one or several series of files, on one mesh and at the same times.

    Args:
        series (list[FrameSeries]): The series, each with fields of its own.
        same_mesh (bool, optional): As :class:`SharedMeshReader` takes it.
            (default: :obj:`True`)
        frames (slice, optional): Which frames. (default: :obj:`None`, all)
        planar (bool, optional): Drops third components that are 0. (default: :obj:`True`)

    Raises:
        ValueError: If series differ in their times or nodes, or hold the same field.
    """

    def __init__(
        self,
        series: Sequence[FrameSeries],
        same_mesh: bool = True,
        frames: slice | None = None,
        planar: bool = True,
    ) -> None:
        self.planar = planar
        self.name = series[0].name
        self.numbers = np.arange(len(series[0].times))[frames or slice(None)]
        if not len(self.numbers):
            raise ValueError(
                f"{series[0].name} has {len(series[0].times)} frames, and none are in {frames}"
            )
        self.times = series[0].times[self.numbers]
        self.readers = [SharedMeshReader(one, same_mesh) for one in series]
        self.mesh, nodes = _mesh_of(self.readers[0])
        self.patches = _renumbered(self.readers[0].first.patches, nodes)
        self._places: dict[str, _Place] = {}
        # What FEniCS called f_20 is called after its file, and can still be asked for.
        self._numbered: dict[str, _Place] = {}
        for reader in self.readers:
            self._add(reader)

    @property
    def names(self) -> list[str]:
        r"""The names of all arrays on nodes."""
        return list(self._places)

    def chosen(
        self, fields: Sequence[str] | Mapping[str, str] | None, static: Sequence[str]
    ) -> dict[str, str]:
        r"""Returns the names in the files of the fields that are asked for, by their new names.

        Args:
            fields (Sequence[str] or dict[str, str], optional): As :func:`read_trajectory` takes
                them.
            static (Sequence[str]): Fields that do not change, left out where nothing is said.
        """
        if isinstance(fields, Mapping):
            return dict(fields)
        if fields is not None:
            return {name: name for name in ([fields] if isinstance(fields, str) else fields)}
        return {
            name: name
            for name, place in self._places.items()
            if place.reader.first.fields[place.name].dtype.kind == "f"
            and name not in (*static, "node_type")
        }

    def frames(self, name: str) -> FileFrames:
        r"""Returns a field over the chosen frames, to be read when asked for.

        Args:
            name (str): Its name.

        Raises:
            ValueError: If it is not there.
        """
        place = self._places.get(name, self._numbered.get(name))
        if place is None:
            raise ValueError(
                f"{self.name} has no field {name!r}; its fields are "
                f"{', '.join(self._places) or 'none'}"
            )
        channels = self._channels(place)
        return FileFrames(place.reader, place.name, channels, self.numbers, place.nodes)

    def _add(self, reader: SharedMeshReader) -> None:
        own, nodes = _mesh_of(reader)
        first = self.readers[0].series
        if len(reader.series.times) != len(first.times) or not np.allclose(
            reader.series.times, first.times, rtol=1e-6, atol=1e-9 * np.ptp(first.times)
        ):
            raise ValueError(
                f"{reader.series.name} and {first.name} cannot be joined: the one has "
                f"{_span(reader.series)}, the other {_span(first)}"
            )
        nodes = nodes[_same_places(own.pos, self.mesh.pos, reader.series.name, first.name)]
        names = list(reader.first.fields)
        for name in names:
            place = _Place(reader, name, nodes)
            called = name
            if len(names) == 1 and re.fullmatch(r"f_\d+", name):
                self._numbered[name], called = place, reader.series.name
            if called in self._places and called != "node_type":
                other = self._places[called].reader.series.name
                raise ValueError(f"both {other} and {reader.series.name} hold the field {called!r}")
            self._places[called] = place

    def _channels(self, place: _Place) -> int:
        """2 where vectors on a mesh of the plane have a third component of 0."""
        channels = _width(place.reader.first.fields[place.name])
        if channels != 3 or self.mesh.dim != 2 or not self.planar:
            return channels
        for number in {self.numbers[i] for i in (0, len(self.numbers) // 2, -1)}:
            values = place.reader.read(int(number)).get(place.name)
            if values is not None and not is_planar(values[:, 2:], values):
                return 3
        return 2


def _mesh_of(reader: SharedMeshReader) -> tuple[Mesh, np.ndarray]:
    try:
        return mesh_of_snapshot(reader.first)
    except ValueError as error:
        raise ValueError(f"the mesh of {reader.series.where(0)} is wrong: {error}") from error


def _width(values: np.ndarray) -> int:
    return int(np.prod(values.shape[1:], dtype=int))


def _renumbered(patches: Mapping[str, np.ndarray], nodes: np.ndarray) -> dict[str, np.ndarray]:
    """Sets of points as sets of nodes."""
    return {name: np.flatnonzero(np.isin(nodes, points)) for name, points in patches.items()}


def _span(series: FrameSeries) -> str:
    return f"{len(series.times)} frames from t = {series.times[0]:g} to {series.times[-1]:g}"


def _same_places(pos: np.ndarray, wanted: np.ndarray, name: str, first: str) -> np.ndarray:
    """Which node of one mesh is where each node of the other one is."""
    if np.array_equal(pos, wanted):
        return np.arange(len(pos))
    if pos.shape == wanted.shape:
        distance, nearest = cKDTree(pos).query(wanted)
        one_each = len(np.unique(nearest)) == len(nearest)
        if one_each and distance.max() <= 1e-6 * np.ptp(wanted, axis=0).max():
            return nearest
    raise ValueError(
        f"{name} and {first} cannot be joined: their meshes have different nodes, "
        f"{len(pos)} and {len(wanted)} of them"
    )
