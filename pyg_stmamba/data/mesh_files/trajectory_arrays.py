from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pyg_stmamba.data.mesh.mesh import CELL_TYPES, Mesh
from pyg_stmamba.data.mesh.node_types import NODE_TYPES
from pyg_stmamba.data.mesh.trajectory import Frames, MeshTrajectory

# What other codes call the same.
ALIASES = {"mesh_pos": "pos", "pointcloud": "pos", "triangles": "cells", "time": "times"}
SINGLE = ("pos", "cells", "node_type", "node_type_names", "times", "dt", "name")
GROUPS = ("cells", "fields", "static", "parameters", "series", "units")


def trajectory_arrays(trajectory: MeshTrajectory) -> dict[str, np.ndarray | Frames]:
    r"""Gives every part of a trajectory the name that it has in files.

    The names are in the table of :func:`trajectory_from_arrays`, which is the way back.

    Args:
        trajectory (MeshTrajectory): The trajectory.

    Raises:
        ValueError: If a field or the like has a name with a slash in it, or none.
    """
    mesh = trajectory.mesh
    arrays: dict[str, np.ndarray | Frames] = {
        "name": np.array(trajectory.name),
        "pos": mesh.pos,
        "node_type": mesh.node_type,
        "node_type_names": np.array(mesh.node_type_names),
        "times": trajectory.times,
    }
    groups: dict[str, Mapping[str, Any]] = {
        "cells": mesh.cells,
        "fields": trajectory.fields,
        "static": trajectory.static,
        "parameters": {key: np.array(value) for key, value in trajectory.parameters.items()},
        "series": trajectory.series,
        "units": {key: np.array(value) for key, value in trajectory.units.items()},
    }
    for group, members in groups.items():
        for name, values in members.items():
            if not is_name(name):
                raise ValueError(f"{name!r} in {group} cannot be a name in a file; rename it")
            arrays[f"{group}/{name}"] = values
    if not mesh.cells:
        arrays["cells"] = np.zeros((0, 3), dtype=np.int64)
    return arrays


def is_name(name: str) -> bool:
    r"""Whether files can have something of this name."""
    return name not in ("", ".", "..") and not set(name) & {"/", "\0"}


def trajectory_from_arrays(
    arrays: Mapping[str, Any],
    source: str,
    *,
    fields: Sequence[str] | None = None,
    keys: Mapping[str, str] | None = None,
    time_step: float | None = None,
) -> MeshTrajectory:
    r"""Makes a trajectory of the arrays that a file has by name.

    ===========================  =================================================================
    name                         what
    ===========================  =================================================================
    :obj:`pos`                   :math:`[N, D]`; or :obj:`mesh_pos` or :obj:`pointcloud`
    :obj:`cells/triangle`, ...   :math:`[M, k]`, one name for each type of cells; or :obj:`cells`
                                 or :obj:`triangles` for triangles, quads (four nodes, in two
                                 dimensions) or tetrahedra (four nodes, in three)
    :obj:`node_type`             :math:`[N]` or :math:`[N, 1]`
    :obj:`node_type_names`       names of the types, those of MeshGraphNets if absent; optional
    :obj:`times`                 :math:`[T]`; or :obj:`time`, or :obj:`dt`, one number
    :obj:`fields/velocity`, ...  :math:`[T, N, C]` or :math:`[T, N]`; or :obj:`velocity`, so for
                                 every name that is not in this table
    :obj:`static/...`            :math:`[N, C]`; optional, as all that follow
    :obj:`parameters/...`        one number each
    :obj:`series/...`            :math:`[T]` each
    :obj:`units/...`             a text each
    :obj:`name`                  a text
    ===========================  =================================================================

    Positions, cells and node types that a file repeats for every frame are taken once, if they do
    not change.

    Args:
        arrays (dict[str, numpy.ndarray]): The arrays; those of fields may be :class:`Frames`.
        source (str): What messages call the file.
        fields (list[str], optional): The fields to take; names that are not known are then left
            alone. (default: :obj:`None`, all)
        keys (dict[str, str], optional): Under which name the file has what is called otherwise
            above, as :obj:`{"velocity": "U"}` for :obj:`U` or :obj:`fields/U`.
            (default: :obj:`None`)
        time_step (float, optional): The time from frame to frame where the file has none.
            (default: :obj:`None`)

    Raises:
        ValueError: If something is missing, unknown, changes with time or does not fit; the
            message lists what is there.
    """
    found = _FoundArrays(arrays, source, keys or {})
    mesh = found.mesh()
    taken = found.fields(mesh.num_nodes, fields)
    try:
        return MeshTrajectory(
            mesh,
            taken,
            found.times(taken, time_step),
            static=found.group("static"),
            parameters={key: float(value) for key, value in found.group("parameters").items()},
            series=found.group("series"),
            units={key: str(value) for key, value in found.group("units").items()},
            name=str(np.asarray(found["name"])) if "name" in found.places else "",
        )
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


class SingleChannel:
    r"""A field :math:`(T, |\mathcal{V}|)` as one with a channel,
    :math:`(T, |\mathcal{V}|, 1)`."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.shape = (*values.shape, 1)

    def __getitem__(self, frames: slice) -> np.ndarray:
        return np.asarray(self.values[frames])[..., None]


class _FoundArrays:
    """The arrays of a file, read when asked for, under the names of the table above."""

    def __init__(self, arrays: Mapping[str, Any], source: str, keys: Mapping[str, str]) -> None:
        self.arrays, self.source = arrays, source
        self.there = f"it has {', '.join(arrays) or 'nothing'}"
        # A field of a file of ours may be called as in the trajectory.
        keys = {
            name: f"fields/{key}" if key not in arrays and f"fields/{key}" in arrays else key
            for name, key in keys.items()
        }
        if absent := [key for key in keys.values() if key not in arrays]:
            raise ValueError(f"{source} has no {', '.join(absent)}; {self.there}")
        self.places = {key: key for key in arrays}
        for key, name in ALIASES.items():
            if key in self.places and name not in self.places:
                self.places[name] = self.places.pop(key)
        units = {
            f"units/{name}": f"units/{key.removeprefix('fields/')}" for name, key in keys.items()
        }
        renamed = dict(keys) | {name: key for name, key in units.items() if key in arrays}
        for key in renamed.values():
            self.places.pop(key, None)
        self.places.update(renamed)

    def __getitem__(self, name: str) -> Any:
        if name not in self.places:
            called = " or ".join([name, *(key for key, own in ALIASES.items() if own == name)])
            raise ValueError(f"{self.source} has no {called}; {self.there}")
        return self.arrays[self.places[name]]

    def mesh(self) -> Mesh:
        pos = self._still("pos", 2)
        node_type = self._still("node_type", 2 if self["node_type"].shape[-1:] == (1,) else 1)
        if node_type.ndim == 2 and node_type.shape[1] == 1:
            node_type = node_type[:, 0]
        cells = self.group("cells")
        if not cells:
            block = self._still("cells", 2)
            cells = {self._kind(block, pos): block} if len(block) else {}
        names: tuple[str, ...] = NODE_TYPES
        if "node_type_names" in self.places:
            names = tuple(map(str, np.asarray(self["node_type_names"])))
        try:
            return Mesh(pos, cells, node_type, names)
        except ValueError as error:
            raise ValueError(f"{self.source}: {error}") from error

    def fields(self, num_nodes: int, wanted: Sequence[str] | None) -> dict[str, Frames]:
        found = {}
        for name in self.places:
            group, _, member = name.rpartition("/")
            if group == "fields" or (group == "" and name not in SINGLE):
                found[member] = name
            elif wanted is None and group not in (*GROUPS, ""):
                raise ValueError(self._unknown(name, "is unknown"))
        if absent := [name for name in wanted or () if name not in found]:
            raise ValueError(f"{self.source} has no field {', '.join(absent)}; {self.there}")
        return {
            name: self._field(found[name], num_nodes)
            for name in (found if wanted is None else wanted)
        }

    def times(self, fields: Mapping[str, Frames], time_step: float | None) -> np.ndarray:
        if "times" in self.places:
            return np.asarray(self["times"])
        if "dt" in self.places:
            time_step = float(np.asarray(self["dt"]))
        if time_step is None:
            raise ValueError(
                f"{self.source} has neither times nor dt, so pass time_step=...; {self.there}"
            )
        if not fields:
            raise ValueError(f"{self.source} has no field, as velocity; {self.there}")
        return np.arange(next(iter(fields.values())).shape[0]) * time_step

    def group(self, group: str) -> dict[str, np.ndarray]:
        names = [name for name in self.places if name.startswith(f"{group}/")]
        return {name.removeprefix(f"{group}/"): np.asarray(self[name]) for name in names}

    def _field(self, name: str, num_nodes: int) -> Frames:
        values = self[name]
        shape = tuple(values.shape)
        if len(shape) == 2 and shape[1] == num_nodes:
            return SingleChannel(values)
        if len(shape) != 3 or shape[1] != num_nodes:
            why = f"has the shape {list(shape)}, which is no field [T, {num_nodes}, C]"
            raise ValueError(self._unknown(name, why))
        return values

    def _still(self, name: str, dims: int) -> np.ndarray:
        """An array of so many dimensions, the same in all frames if there are any."""
        values = self[name]
        if len(values.shape) != dims + 1 or len(values) == 0:
            return np.asarray(values)
        first = np.asarray(values[0:1])[0]
        for frame in range(1, values.shape[0]):
            if not np.array_equal(np.asarray(values[frame : frame + 1])[0], first):
                raise ValueError(
                    f"{self.source}: {name} is not in frame {frame} what it is in frame 0, but a "
                    "trajectory has one mesh; moving meshes, as in EAGLE, are not supported"
                )
        return first

    def _kind(self, block: np.ndarray, pos: np.ndarray) -> str:
        corners = {3: "triangle", 4: "quad" if pos.shape[-1] == 2 else "tetra"}
        if block.ndim != 2 or block.shape[1] not in corners:
            raise ValueError(
                f"{self.source}: cells must be [M, 3] or [M, 4], got {list(block.shape)}; call "
                f"others cells/TYPE with one of the types {', '.join(CELL_TYPES)}"
            )
        return corners[block.shape[1]]

    def _unknown(self, name: str, why: str) -> str:
        return (
            f"{self.source}: {self.places[name]} {why}. Pass fields=[...] to choose fields, or "
            f"give it a name that begins with one of {', '.join(f'{g}/' for g in GROUPS)}; "
            f"{self.there}"
        )
