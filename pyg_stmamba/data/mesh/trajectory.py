from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from pyg_stmamba.data.mesh.mesh import Mesh


class Frames(Protocol):
    r"""A field over time, as an array :math:`(T, |\mathcal{V}|, C)` that need not be in memory: a
    :class:`numpy.ndarray`, a :class:`numpy.memmap`, or a reader of files. Copies that are pickled
    to other processes must work there."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, frames: slice) -> np.ndarray: ...


class MeshTrajectory:
    r"""One simulation: a mesh and fields on its nodes that change with time.

    Fields are read frame by frame when they are asked for; what does not change is held once.

    .. code-block:: python

        trajectory = MeshTrajectory(mesh, {"velocity": velocity, "pressure": pressure}, times)
        window = trajectory.frames("velocity", 100, 110)    # [N, 10, 2]

    Args:
        mesh (Mesh): The mesh, the same at all times.
        fields (dict[str, Frames]): The fields by name.
        times (numpy.ndarray): The time of each frame, increasing.
        static (dict[str, numpy.ndarray], optional): Node fields that do not change.
            (default: :obj:`None`)
        parameters (dict[str, float], optional): Numbers that hold for the whole simulation, as
            the viscosity. (default: :obj:`None`)
        series (dict[str, numpy.ndarray], optional): Numbers over time that belong to no node, as
            the drag. (default: :obj:`None`)
        units (dict[str, str], optional): Units by name. (default: :obj:`None`)
        name (str, optional): What it is called. (default: :obj:`""`)

    Shapes:
        - **fields:** :math:`(T, |\mathcal{V}|, C)` each
        - **times:** :math:`(T)`
        - **static:** :math:`(|\mathcal{V}|, C)` each
        - **series:** :math:`(T)` each

    Raises:
        ValueError: If shapes do not fit or times do not increase.
    """

    def __init__(
        self,
        mesh: Mesh,
        fields: Mapping[str, Frames],
        times: np.ndarray,
        *,
        static: Mapping[str, np.ndarray] | None = None,
        parameters: Mapping[str, float] | None = None,
        series: Mapping[str, np.ndarray] | None = None,
        units: Mapping[str, str] | None = None,
        name: str = "",
    ) -> None:
        self.mesh = mesh
        self.fields: dict[str, Frames] = dict(fields)
        self.times = np.asarray(times, dtype=np.float64)
        self.static = {key: np.asarray(value) for key, value in (static or {}).items()}
        self.parameters = {key: float(value) for key, value in (parameters or {}).items()}
        self.series = {key: np.asarray(value) for key, value in (series or {}).items()}
        self.units = dict(units or {})
        self.name = name
        self._check()

    @property
    def num_frames(self) -> int:
        r"""The number of frames."""
        return len(self.times)

    @property
    def num_nodes(self) -> int:
        r"""The number of nodes."""
        return self.mesh.num_nodes

    @property
    def time_step(self) -> float:
        r"""The time from one frame to the next, 0 for a single frame."""
        return float(np.median(np.diff(self.times))) if len(self.times) > 1 else 0.0

    @property
    def first_frame(self) -> int:
        r"""The number of the first frame by the clock, frame 0 being that at time 0. It tells a
        part of a simulation where it stands in the whole."""
        return round(float(self.times[0]) / self.time_step) if self.time_step else 0

    def channels(self, name: str) -> int:
        r"""Returns how many channels a field has."""
        return int(self.field(name).shape[2])

    def field(self, name: str) -> Frames:
        r"""Returns a field, or raises a :class:`ValueError` that lists what is there."""
        if name not in self.fields:
            known = ", ".join(self.fields) or "none"
            raise ValueError(f"{self._called()} has no field {name!r}; its fields are {known}")
        return self.fields[name]

    def frames(
        self, names: str | Sequence[str], start: int = 0, stop: int | None = None
    ) -> np.ndarray:
        r"""Reads some frames, nodes first and fields side by side.

        Args:
            names (str or Sequence[str]): Which fields.
            start (int, optional): The first frame. (default: :obj:`0`)
            stop (int, optional): The frame after the last one. (default: :obj:`None`, all)

        Returns:
            numpy.ndarray: float32 :math:`(|\mathcal{V}|, t, C)`.

        Raises:
            ValueError: If a field is not there, a frame is out of range, or a value is not
                finite.
        """
        stop = self.num_frames if stop is None else stop
        self._check_range(start, stop)
        names = [names] if isinstance(names, str) else names
        parts = []
        for name in names:
            part = np.asarray(self.field(name)[start:stop], dtype=np.float32)
            finite = np.isfinite(part).all((1, 2))
            if not finite.all():
                frame = start + int(np.flatnonzero(~finite)[0])
                raise ValueError(
                    f"{name} of {self._called()} holds NaN or infinity in frame {frame}, "
                    f"t = {self.times[frame]:g}"
                )
            parts.append(part)
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        return np.ascontiguousarray(joined.transpose(1, 0, 2))

    def between(self, start: int, stop: int) -> MeshTrajectory:
        r"""Returns some frames as a trajectory of their own; nothing is read.

        Args:
            start (int): The first frame.
            stop (int): The frame after the last one.
        """
        self._check_range(start, stop)
        return MeshTrajectory(
            self.mesh,
            {name: _Part(field, start, stop) for name, field in self.fields.items()},
            self.times[start:stop],
            static=self.static,
            parameters=self.parameters,
            series={name: values[start:stop] for name, values in self.series.items()},
            units=self.units,
            name=self.name,
        )

    def _check(self) -> None:
        if self.times.ndim != 1 or not np.isfinite(self.times).all():
            raise ValueError(f"times must be finite numbers [T], got {list(self.times.shape)}")
        if (np.diff(self.times) <= 0).any():
            frame = int(np.flatnonzero(np.diff(self.times) <= 0)[0])
            raise ValueError(
                f"times must increase, but frame {frame} is at {self.times[frame]:g} and the next "
                f"at {self.times[frame + 1]:g}"
            )
        wanted: dict[str, tuple[Any, tuple[int, ...], int]] = {
            **{name: (f, (self.num_frames, self.num_nodes), 3) for name, f in self.fields.items()},
            **{name: (f, (self.num_nodes,), 2) for name, f in self.static.items()},
            **{name: (f, (self.num_frames,), 1) for name, f in self.series.items()},
        }
        for name, (values, first, dims) in wanted.items():
            shape = tuple(values.shape)
            if len(shape) != dims or shape[: len(first)] != first:
                right = [*first, *["C"] * (dims - len(first))]
                raise ValueError(
                    f"{name} must be [{', '.join(map(str, right))}] for {self.num_frames} frames "
                    f"and {self.num_nodes} nodes, got {list(shape)}"
                )

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start < stop <= self.num_frames:
            raise ValueError(
                f"{self._called()} has the frames 0 to {self.num_frames - 1}, asked for were "
                f"{start} to {stop - 1}"
            )

    def _called(self) -> str:
        return f"the trajectory {self.name!r}" if self.name else "the trajectory"

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}[{self.channels(name)}]" for name in self.fields)
        return f"{type(self).__name__}({self.num_nodes} nodes, {self.num_frames} frames, {fields})"


class _Part:
    """Some frames of a field."""

    def __init__(self, whole: Frames, start: int, stop: int) -> None:
        self._whole, self._start = whole, start
        self.shape = (stop - start, *whole.shape[1:])

    def __getitem__(self, frames: slice) -> np.ndarray:
        first, last, step = frames.indices(self.shape[0])
        return self._whole[slice(self._start + first, self._start + last, step)]
