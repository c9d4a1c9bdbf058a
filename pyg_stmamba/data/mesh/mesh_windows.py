from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset
from torch_geometric.data import Data

from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.mesh_graph import (
    mesh_graph,
    mesh_part,
    static_channels,
    with_numbers,
)
from pyg_stmamba.data.mesh.node_types import PREDICTED_TYPES
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory

__all__ = ["MeshWindows", "mesh_graph"]

NOISE_KINDS = ("independent", "walk")


class MeshWindows(Dataset[Data]):
    r"""The windows of simulations on meshes: some frames, and the frames one step later.

    A window is a :class:`torch_geometric.data.Data` with what :func:`mesh_graph` returns and

    * :obj:`x` :math:`(|\mathcal{V}|, H, S)`: the state at the frames :math:`t` to
      :math:`t + H - 1`, with noise at the predicted nodes if asked for,
    * :obj:`y` :math:`(|\mathcal{V}|, H, S + O)`: state and outputs at the frames :math:`t + 1` to
      :math:`t + H`, never with noise,
    * :obj:`trajectory` :math:`(1)` and :obj:`start` :math:`(1)`: which one, and the number of
      the frame :math:`t` by its clock, see :attr:`MeshTrajectory.first_frame`.

    As :obj:`y` stays clean, the change that a model learns takes the noise away again, as in
    `"Learning Mesh-Based Simulation with Graph Networks" <https://arxiv.org/abs/2010.03409>`_.
    Batch windows with :class:`torch_geometric.loader.DataLoader`, meshes may differ.

    .. code-block:: python

        windows = MeshWindows(trajectories, noise=0.02)
        for epoch in range(epochs):
            windows.set_epoch(epoch)    # other noise each time
            for batch in loader:
                ...

    Args:
        trajectories (sequence): The simulations, each a
            :class:`~pyg_stmamba.data.mesh.MeshTrajectory`. A sequence that reads them when they
            are asked for is asked at every access.
        state (sequence, optional): The fields that a model carries on. (default:
            :obj:`("velocity",)`)
        outputs (sequence, optional): The fields that it tells besides. (default:
            :obj:`("pressure",)`)
        history (int, optional): Frames :math:`H` in a window. (default: :obj:`1`)
        stride (int, optional): Frames from the start of a window to that of the next.
            (default: :obj:`1`)
        frames (tuple[int, int], optional): The first frame that windows see and the one after
            the last, to split a simulation in time. (default: :obj:`None`, all)
        noise (float or dict[str, float], optional): Standard deviation of the noise, in the
            units of the fields; one for all, or by name of the field. (default: :obj:`0.0`)
        noise_kind (str, optional): :obj:`"walk"`, a random walk over the history that has the
            given deviation at its end, as in `"Learning to Simulate Complex Physics with Graph
            Networks" <https://arxiv.org/abs/2002.09405>`_, since the errors of a rollout add up
            too; or :obj:`"independent"` for each frame. With a history of one frame they are the
            same. (default: :obj:`"walk"`)
        seed (int, optional): Seed of the noise. (default: :obj:`0`)
        conditions (sequence, optional): See :func:`mesh_graph`. (default: :obj:`()`)
        static (sequence, optional): See :func:`mesh_graph`. (default: :obj:`None`)
        predicted_types (sequence, optional): See :func:`mesh_graph`.
            (default: :obj:`PREDICTED_TYPES`)
        coarse_levels (int, optional): See :func:`mesh_graph`. (default: :obj:`0`)
        gradients (bool, optional): See :func:`mesh_graph`. (default: :obj:`False`)

    What a model needs to know is in the attributes :obj:`state`, :obj:`outputs` and :obj:`static`
    (fields and their numbers of channels), :obj:`conditions`, :obj:`node_types`,
    :obj:`edge_channels`, :obj:`dim` and :obj:`time_step`.

    Raises:
        ValueError: If a field, parameter or node type is not there, trajectories differ in their
            fields, types or time steps, a trajectory is too short, or an option is out of range.
    """

    def __init__(
        self,
        trajectories: Sequence[MeshTrajectory],
        state: Sequence[str] = ("velocity",),
        outputs: Sequence[str] = ("pressure",),
        history: int = 1,
        stride: int = 1,
        frames: tuple[int, int] | None = None,
        noise: float | Mapping[str, float] = 0.0,
        noise_kind: Literal["independent", "walk"] = "walk",
        seed: int = 0,
        *,
        conditions: Sequence[str] = (),
        static: Sequence[str] | None = None,
        predicted_types: Sequence[str] = PREDICTED_TYPES,
        coarse_levels: int = 0,
        gradients: bool = False,
    ) -> None:
        if noise_kind not in NOISE_KINDS:
            raise ValueError(f"unknown noise_kind {noise_kind!r}; choose from {NOISE_KINDS}")
        for name, number, least in (
            ("history", history, 1),
            ("stride", stride, 1),
            ("seed", seed, 0),
        ):
            if number < least:
                raise ValueError(f"{name} must be at least {least}, got {number}")
        if len(trajectories) == 0:
            raise ValueError("trajectories must hold at least one trajectory, got none")
        self.trajectories = trajectories
        self.history, self.stride = history, stride
        self.noise_kind, self.seed = noise_kind, seed
        self.gradients = gradients
        self.conditions = _names("conditions", conditions)
        self._read_fields(_names("state", state), _names("outputs", outputs), static)
        of_mesh = (tuple(predicted_types), coarse_levels, gradients)
        self._read_trajectories(frames, of_mesh)
        self._deviation = self._noise_deviation(noise)
        # Shared memory, so that workers that live through many epochs see it change too.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        r"""Draws other noise from now on; loaders take notice when they start an epoch.

        Args:
            epoch (int): Number of the epoch; the same number gives the same noise.
        """
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0, got {epoch}")
        self._epoch.fill_(epoch)

    def graph(self, trajectory: int) -> Data:
        r"""Returns what :func:`mesh_graph` tells of one of the trajectories.

        Args:
            trajectory (int): Which one.
        """
        return Data(**self._graphs[trajectory].to_dict())

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, i: int) -> Data:
        if not -len(self) <= i < len(self):
            raise IndexError(f"window {i} of {len(self)}")
        i = int(i) % len(self)
        number = bisect_right(self._ends, i)
        place = i - (self._ends[number - 1] if number else 0)
        start = self.ranges[number][0] + place * self.stride
        trajectory, graph = self.trajectories[number], self._graphs[number]
        x, y = self._fields(trajectory, start)
        if self._deviation.any():
            predicted = graph.predicted.numpy()
            x[predicted] += self._noise(i, int(predicted.sum()))
        return Data(
            x=torch.from_numpy(x),
            y=torch.from_numpy(y),
            start=torch.tensor([trajectory.first_frame + start]),
            **graph.to_dict(),
        )

    def _fields(self, trajectory: MeshTrajectory, start: int) -> tuple[np.ndarray, np.ndarray]:
        stop = start + self.history + 1
        states = trajectory.frames(tuple(self.state), start, stop)
        clean = [states[:, 1:]]
        if self.outputs:
            clean.append(trajectory.frames(tuple(self.outputs), start + 1, stop))
        return states[:, :-1].copy(), np.concatenate(clean, axis=2)

    def _noise(self, i: int, num_nodes: int) -> np.ndarray:
        generator = np.random.default_rng([self.seed, int(self._epoch), i])
        shape = (num_nodes, self.history, len(self._deviation))
        noise = generator.standard_normal(shape, dtype=np.float32)
        if self.noise_kind == "walk":
            noise = noise.cumsum(axis=1) / np.sqrt(self.history, dtype=np.float32)
        return noise * self._deviation

    def _noise_deviation(self, noise: float | Mapping[str, float]) -> np.ndarray:
        if not isinstance(noise, Mapping):
            noise = dict.fromkeys(self.state, noise)
        for name, deviation in noise.items():
            if name not in self.state:
                raise ValueError(f"noise on {name!r}, but the state is {', '.join(self.state)}")
            if not 0 <= deviation < float("inf"):
                raise ValueError(f"noise must be a number from 0 up, got {deviation} for {name}")
        each = [np.full(count, noise.get(name, 0.0)) for name, count in self.state.items()]
        return np.concatenate(each).astype(np.float32)

    def _read_fields(
        self, state: tuple[str, ...], outputs: tuple[str, ...], static: Sequence[str] | None
    ) -> None:
        if not state:
            raise ValueError("state must name at least one field, got none")
        if set(state) & set(outputs):
            raise ValueError(f"a field is state or output, not both: got {state} and {outputs}")
        first = self.trajectories[0]
        static = tuple(first.static) if static is None else _names("static", static)
        self.state = {name: first.channels(name) for name in state}
        self.outputs = {name: first.channels(name) for name in outputs}
        self.static = static_channels(first, static)
        self.node_types, self.dim = first.mesh.node_type_names, first.mesh.dim
        self.time_step = first.time_step

    def _read_trajectories(
        self, frames: tuple[int, int] | None, of_mesh: tuple[tuple[str, ...], int, bool]
    ) -> None:
        meshes: dict[bytes, Data] = {}
        self._graphs: list[Data] = []
        self._ends: list[int] = []
        self.ranges: list[tuple[int, int]] = []
        for number in range(len(self.trajectories)):
            trajectory = self.trajectories[number]
            first, stop = self._range(number, trajectory.num_frames, frames)
            self._check_same(number, trajectory)
            key = _fingerprint(trajectory.mesh)
            if key not in meshes:
                meshes[key] = mesh_part(trajectory.mesh, *of_mesh)
            graph = with_numbers(meshes[key], trajectory, self.conditions, tuple(self.static))
            graph.trajectory = torch.tensor([number])
            count = (stop - self.history - 1 - first) // self.stride + 1
            self.ranges.append((first, stop))
            self._ends.append(count + (self._ends[-1] if self._ends else 0))
            self._graphs.append(graph)
        self.edge_channels = self._graphs[0].edge_attr.size(1)

    def _check_same(self, number: int, trajectory: MeshTrajectory) -> None:
        fields = {**self.state, **self.outputs}
        pairs = {
            "channels": ({name: trajectory.channels(name) for name in fields}, fields),
            "static fields": (static_channels(trajectory, tuple(self.static)), self.static),
            "node types": (trajectory.mesh.node_type_names, self.node_types),
            "dimension": (trajectory.mesh.dim, self.dim),
        }
        for what, (given, first) in pairs.items():
            if given != first:
                raise ValueError(
                    f"trajectories must have the same {what}: the first has {first}, trajectory "
                    f"{number} has {given}"
                )
        # A model of the change from frame to frame holds for one time step only.
        if not np.isclose(trajectory.time_step, self.time_step, rtol=0.01, atol=0):
            raise ValueError(
                f"trajectories must have the same time step: the first has {self.time_step:g}, "
                f"trajectory {number} has {trajectory.time_step:g}"
            )

    def _range(
        self, number: int, num_frames: int, frames: tuple[int, int] | None
    ) -> tuple[int, int]:
        first, stop = (0, num_frames) if frames is None else frames
        if not 0 <= first < stop <= num_frames:
            raise ValueError(
                f"frames must lie within 0 and {num_frames}, the frames of trajectory {number}, "
                f"got {frames}"
            )
        if stop - first <= self.history:
            raise ValueError(
                f"a history of {self.history} needs at least {self.history + 1} frames, but "
                f"trajectory {number} gives {stop - first}"
            )
        return first, stop

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self)}, trajectories={len(self.trajectories)}, "
            f"history={self.history})"
        )


def _names(what: str, names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise ValueError(f"{what} must be a sequence of names, as ({names!r},), got {names!r}")
    if len(set(names)) != len(names):
        raise ValueError(f"{what} must not name anything twice, got {tuple(names)}")
    return tuple(names)


def _fingerprint(mesh: Mesh) -> bytes:
    digest = hashlib.blake2b(mesh.pos.tobytes() + mesh.node_type.tobytes())
    for kind, block in mesh.cells.items():
        digest.update(kind.encode() + block.tobytes())
    return digest.digest()
