from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import Any

import numpy as np

from pyg_stmamba.data.mesh_files.snapshot import Snapshot

# Windows overlap and fields share files, so frames that were just read are kept, up to this many
# bytes in every process.
REMEMBERED_BYTES = 2**26


class FrameSeries(ABC):
    r"""Files that hold the snapshots of one simulation, read one by one.

    Objects can be pickled and sent to the workers of a data loader.

    Args:
        times (numpy.ndarray): The time of each snapshot :math:`(T)`, as the files state it.
        name (str, optional): What the series is called. (default: :obj:`""`)
    """

    def __init__(self, times: np.ndarray, name: str = "") -> None:
        self.times = np.asarray(times, dtype=np.float64)
        self.name = name

    @abstractmethod
    def read(self, frame: int) -> Snapshot:
        r"""Reads one snapshot.

        Args:
            frame (int): Which one, 0 to :math:`T - 1`.
        """

    @abstractmethod
    def where(self, frame: int) -> str:
        r"""Says where a frame stands, for messages."""


class SharedMeshReader:
    r"""Reads the fields of a series whose frames all have the mesh of the first one.

    Args:
        series (FrameSeries): The files.
        same_mesh (bool, optional): Refuses frames whose points or cells differ from those of the
            first one; otherwise only the number of points must be the same.
            (default: :obj:`True`)
    """

    def __init__(self, series: FrameSeries, same_mesh: bool = True) -> None:
        self.series, self.same_mesh = series, same_mesh
        self.first = series.read(0)
        self._recent: OrderedDict[int, dict[str, np.ndarray]] = OrderedDict()

    def read(self, frame: int) -> dict[str, np.ndarray]:
        r"""Returns all fields of a frame by name, float32 :math:`(|\mathcal{V}|, C)` each.

        Args:
            frame (int): Which one.

        Raises:
            ValueError: If its mesh is another one.
        """
        if frame in self._recent:
            self._recent.move_to_end(frame)
            return self._recent[frame]
        snapshot = self.series.read(frame)
        self._check_mesh(snapshot, frame)
        fields = {
            name: np.asarray(values, dtype=np.float32).reshape(len(snapshot.points), -1)
            for name, values in snapshot.fields.items()
        }
        self._recent[frame] = fields
        size = sum(values.nbytes for values in fields.values())
        while len(self._recent) > 1 and size * len(self._recent) > REMEMBERED_BYTES:
            self._recent.popitem(last=False)
        return fields

    def _check_mesh(self, snapshot: Snapshot, frame: int) -> None:
        first = self.first
        if snapshot.points.shape != first.points.shape:
            differs = f"{len(snapshot.points)} points instead of {len(first.points)}"
        elif not self.same_mesh:
            return
        elif not np.array_equal(snapshot.points, first.points):
            differs = "points elsewhere"
        elif not _same_cells(snapshot, first):
            differs = "other cells"
        else:
            return
        hint = '; mesh="first" reads moving points on the mesh of the first frame'
        raise ValueError(
            f"frame {frame} ({self.series.where(frame)}) has a different mesh than the first "
            f"one, {self.series.where(0)}: {differs}{hint if self.same_mesh else ''}"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_recent": OrderedDict()}


class FileFrames:
    r"""A field over time that is read from files frame by frame, when it is asked for.

    Args:
        reader (SharedMeshReader): Reads the files.
        name (str): The name of the field there.
        channels (int): How many channels to take; what is beyond must be 0.
        frames (numpy.ndarray): Which frames of the files.
        nodes (numpy.ndarray, optional): Which nodes of the files. (default: :obj:`None`, all)
    """

    def __init__(
        self,
        reader: SharedMeshReader,
        name: str,
        channels: int,
        frames: np.ndarray,
        nodes: np.ndarray | None = None,
    ) -> None:
        self.reader, self.name, self.channels = reader, name, channels
        self.numbers, self.nodes = frames, nodes

    @property
    def shape(self) -> tuple[int, int, int]:
        r"""Frames, nodes, channels."""
        points = len(self.reader.first.points)
        nodes = points if self.nodes is None else len(self.nodes)
        return len(self.numbers), nodes, self.channels

    def __getitem__(self, frames: slice) -> np.ndarray:
        numbers = self.numbers[frames]
        out = np.empty((len(numbers), *self.shape[1:]), dtype=np.float32)
        for place, number in enumerate(numbers):
            out[place] = self._frame(int(number))
        return out

    def _frame(self, number: int) -> np.ndarray:
        fields, where = self.reader.read(number), self.reader.series.where(number)
        if self.name not in fields:
            raise ValueError(
                f"frame {number} ({where}) has no field {self.name!r}; its fields are "
                f"{', '.join(fields) or 'none'}"
            )
        values = fields[self.name]
        if self.nodes is not None:
            values = values[self.nodes]
        return self._in_plane(values, f"{self.name} in frame {number} ({where})")

    def _in_plane(self, values: np.ndarray, what: str) -> np.ndarray:
        if values.shape[1] == self.channels:
            return values
        if values.shape[1] < self.channels or not is_planar(values[:, self.channels :], values):
            raise ValueError(
                f"{what} has {values.shape[1]} components that are not 0, but only "
                f"{self.channels} in the frames that were looked at first; planar=False keeps all"
            )
        return values[:, : self.channels]


def is_planar(third: np.ndarray, values: np.ndarray) -> bool:
    r"""Tells whether third components are 0 but for rounding.

    Args:
        third (numpy.ndarray): The third components.
        values (numpy.ndarray): All components.
    """
    # NaN is not found here but where frames are asked for.
    return not np.abs(third).max(initial=0) > 1e-6 * np.abs(values).max(initial=0)


def _same_cells(one: Snapshot, two: Snapshot) -> bool:
    return one.cells.keys() == two.cells.keys() and all(
        np.array_equal(block, two.cells[kind]) for kind, block in one.cells.items()
    )
