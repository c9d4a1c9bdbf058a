from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pyg_stmamba.data.mesh.matching_frames import matching_frames
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory

# Entries of a field that are in memory at once.
CHUNK = 2**22


class MatchedFrames(NamedTuple):
    r"""Some steps of a rollout: prediction and truth of each field at the same times.

    Args:
        steps (slice): Which steps these are.
        prediction (dict[str, numpy.ndarray]): The predicted fields; not a number at steps that
            the rollout did not reach.
        truth (dict[str, numpy.ndarray]): The true fields.

    Shapes:
        - **fields:** :math:`(|\mathcal{V}|, t, C)` each, float64
    """

    steps: slice
    prediction: dict[str, np.ndarray]
    truth: dict[str, np.ndarray]


class MatchedRollout:
    r"""A predicted trajectory beside the frames of the truth at the same times.

    Frames of the prediction after the end of the truth have nothing to be compared with and are
    left out. A rollout diverged where it was told so or from the first frame that is not finite;
    the steps from there up to where it was to go are kept as steps without a prediction. One that
    diverged at its first step and has no frame at all stands beside the last frames of the truth.

    Args:
        prediction (MeshTrajectory): The prediction, from its first predicted frame on.
        truth (MeshTrajectory): The truth.
        fields (sequence): The names of the fields, all with a prediction and a truth.
        diverged_at (int, optional): The first step, counted from 1, whose prediction is of no
            use. (default: :obj:`None`)
        steps (int, optional): How many steps the rollout was to have. (default: :obj:`None`, as
            many as it has, or as the truth has where it diverged)

    Raises:
        ValueError: If the meshes, the fields or the times do not fit.
    """

    def __init__(
        self,
        prediction: MeshTrajectory,
        truth: MeshTrajectory,
        fields: Sequence[str],
        *,
        diverged_at: int | None = None,
        steps: int | None = None,
    ) -> None:
        self.prediction, self.truth, self.fields = prediction, truth, tuple(fields)
        _check_meshes(prediction, truth, self.fields)
        if steps is not None and steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        if prediction.num_frames == 0 and diverged_at == 1:
            self.frames = np.arange(truth.num_frames)[-(steps or truth.num_frames - 1) :]
        else:
            self.frames = _frames_of_truth(prediction, truth)
        if diverged_at is None:
            diverged_at = self._first_not_finite()
        elif diverged_at < 1:
            raise ValueError(f"diverged_at counts steps from 1, got {diverged_at}")
        to_the_end = _continued(self.frames, truth.num_frames)
        if diverged_at is not None:
            self.frames = to_the_end
        elif len(self.frames) < min(steps or 0, len(to_the_end)):
            raise ValueError(
                f"the rollout was to have {steps} steps, but it has {len(self.frames)} and the "
                "truth goes on; say diverged_at=... if it was given up"
            )
        self.frames = self.frames[:steps]
        within = diverged_at is not None and diverged_at <= len(self.frames)
        self.diverged_at = diverged_at if within else None

    @property
    def num_steps(self) -> int:
        r"""The number of steps, those that the rollout did not reach included."""
        return len(self.frames)

    @property
    def reached(self) -> int:
        r"""The number of steps before the rollout diverged."""
        return self.num_steps if self.diverged_at is None else self.diverged_at - 1

    @property
    def times(self) -> np.ndarray:
        r"""The time of each step."""
        return self.truth.times[self.frames]

    def chunks(self) -> Iterator[MatchedFrames]:
        r"""Reads the rollout some steps at a time, so that memory stays small."""
        for start, stop in self._spans():
            yield MatchedFrames(
                slice(start, stop),
                {name: self._predicted(name, start, stop) for name in self.fields},
                {name: self._true(name, start, stop) for name in self.fields},
            )

    def true_chunks(self, name: str) -> Iterator[np.ndarray]:
        r"""Reads one field of the truth some steps at a time.

        Args:
            name (str): The field.
        """
        for start, stop in self._spans():
            yield self._true(name, start, stop)

    def _spans(self) -> Iterator[tuple[int, int]]:
        widest = max(self.truth.channels(name) for name in self.fields)
        size = max(1, CHUNK // (self.truth.num_nodes * widest))
        for start in range(0, self.num_steps, size):
            yield start, min(start + size, self.num_steps)

    def _true(self, name: str, start: int, stop: int) -> np.ndarray:
        wanted = self.frames[start:stop]
        frames = self.truth.frames(name, int(wanted[0]), int(wanted[-1]) + 1)
        return frames[:, wanted - wanted[0]].astype(np.float64)

    def _predicted(self, name: str, start: int, stop: int) -> np.ndarray:
        shape = (self.truth.num_nodes, stop - start, self.truth.channels(name))
        values = np.full(shape, np.nan)
        end = min(stop, self.reached)
        if end > start:
            # Read past the check of MeshTrajectory.frames: that it is finite was looked at.
            part = np.asarray(self.prediction.field(name)[start:end], dtype=np.float64)
            values[:, : end - start] = part.transpose(1, 0, 2)
        return values

    def _first_not_finite(self) -> int | None:
        for number in range(len(self.frames)):
            for name in self.fields:
                if not np.isfinite(self.prediction.field(name)[number : number + 1]).all():
                    return number + 1
        return None


def _check_meshes(prediction: MeshTrajectory, truth: MeshTrajectory, fields: Sequence[str]) -> None:
    if prediction.num_nodes != truth.num_nodes:
        raise ValueError(
            f"prediction and truth must lie on one mesh, got {prediction.num_nodes} and "
            f"{truth.num_nodes} nodes"
        )
    if prediction.mesh.dim != truth.mesh.dim or not np.allclose(
        prediction.mesh.pos, truth.mesh.pos, atol=1e-5 * np.ptp(truth.mesh.pos)
    ):
        raise ValueError("prediction and truth must lie on one mesh, but their nodes differ")
    for name in fields:
        if prediction.channels(name) != truth.channels(name):
            raise ValueError(
                f"{name} has {prediction.channels(name)} channels in the prediction and "
                f"{truth.channels(name)} in the truth"
            )


def _frames_of_truth(prediction: MeshTrajectory, truth: MeshTrajectory) -> np.ndarray:
    """The frames of the truth at the times of the prediction, up to the end of the truth."""
    frames = matching_frames(prediction.times, truth)
    beyond = (frames < 0) & (prediction.times > truth.times[-1])
    stray = np.flatnonzero((frames < 0) & ~beyond)
    span = f"t = {truth.times[0]:g} to {truth.times[-1]:g}, {truth.time_step:g} apart"
    if len(stray):
        raise ValueError(
            f"the prediction has a frame at t = {prediction.times[stray[0]]:g}, where the truth "
            f"has none; its frames are at {span}"
        )
    if beyond.all():
        raise ValueError(f"the prediction has no frame within the truth, whose are at {span}")
    return frames[~beyond]


def _continued(frames: np.ndarray, num_frames: int) -> np.ndarray:
    """The frames up to the end of the truth, at the stride that they have."""
    stride = int(frames[1] - frames[0]) if len(frames) > 1 else 1
    return np.concatenate([frames, np.arange(frames[-1] + stride, num_frames, stride)])


def roles_of(
    truth: MeshTrajectory, state: str | Sequence[str], outputs: str | Sequence[str] | None
) -> Mapping[str, str]:
    r"""Says under which name each field is reported: the first state field with a channel for
    each direction of space is the :obj:`"velocity"`, the first output field with one channel the
    :obj:`"pressure"`, and all others keep their names.

    Args:
        truth (MeshTrajectory): A trajectory with these fields.
        state (str or sequence): The fields that are both input and output.
        outputs (str or sequence, optional): The fields that are output only.

    Returns:
        dict[str, str]: The reported name of each field.
    """
    state = [state] if isinstance(state, str) else list(state)
    outputs = [outputs] if isinstance(outputs, str) else list(outputs or [])
    roles = {name: name for name in [*state, *outputs]}
    for kind, names, channels in (
        ("velocity", state, truth.mesh.dim),
        ("pressure", outputs, 1),
    ):
        fitting = [name for name in names if truth.channels(name) == channels]
        if fitting and kind not in roles:
            roles[fitting[0]] = kind
    return roles
