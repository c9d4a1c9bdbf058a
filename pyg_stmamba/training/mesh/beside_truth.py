from __future__ import annotations

from typing import Any

import numpy as np

from pyg_stmamba.data.mesh import Frames, MeshTrajectory
from pyg_stmamba.data.mesh.matching_frames import matching_frames


def beside_truth(prediction: MeshTrajectory, truth: MeshTrajectory) -> MeshTrajectory:
    r"""Puts a prediction, the truth at the same times and the difference of both into one
    trajectory, to be looked at side by side: :obj:`velocity`, :obj:`velocity_truth` and
    :obj:`velocity_error`, and so on for each field that the truth has.

    Args:
        prediction (MeshTrajectory): The prediction.
        truth (MeshTrajectory): The truth, which may start earlier and end later.

    Raises:
        ValueError: If the truth has no frame at a time of the prediction.
    """
    frames = matching_frames(prediction.times, truth)
    first, last = int(frames[0]), int(frames[-1])
    if (frames != np.arange(first, first + len(frames))).any() or first < 0:
        raise ValueError(
            f"the truth, at t = {truth.times[0]:g} to {truth.times[-1]:g}, has no frame at some "
            f"of the times of the prediction, {prediction.times[0]:g} to {prediction.times[-1]:g}"
        )
    there = truth.between(first, last + 1)
    fields: dict[str, Frames] = {}
    units: dict[str, str] = dict(prediction.units)
    for name, field in prediction.fields.items():
        fields[name] = field
        if name in there.fields:
            fields[f"{name}_truth"] = there.fields[name]
            fields[f"{name}_error"] = _Difference(field, there.fields[name])
            unit: Any = units.get(name)
            units |= {f"{name}_truth": unit, f"{name}_error": unit} if unit else {}
    return MeshTrajectory(
        prediction.mesh,
        fields,
        prediction.times,
        static=prediction.static,
        parameters=prediction.parameters,
        units=units,
        name=prediction.name,
    )


class _Difference:
    """One field minus another."""

    def __init__(self, field: Frames, other: Frames) -> None:
        self._field, self._other = field, other
        self.shape = tuple(field.shape)

    def __getitem__(self, frames: slice) -> np.ndarray:
        return self._field[frames] - self._other[frames]
