from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pyg_stmamba.data.derivatives import (
    derivative_channels,
    derivatives,
    velocity_channels,
)
from pyg_stmamba.data.mesh.mesh_windows import MeshWindows

# How many values are held in memory at once, as float64.
VALUES_AT_ONCE = 1 << 22


class Moments(NamedTuple):
    r"""Mean, standard deviation and root mean square of some channels.

    Args:
        mean: The mean :math:`(C)`, float64.
        std: The (population) standard deviation :math:`(C)`, float64, never 0.
        rms: The root mean square :math:`(C)`, float64, never 0.
    """

    mean: Tensor
    std: Tensor
    rms: Tensor


class FrameStatistics(NamedTuple):
    r"""How large everything in the windows is; without channels where there is nothing.

    Args:
        state: Of the state at all nodes.
        change: Of the change of the state from a frame to the next, at the predicted nodes.
        outputs: Of the outputs at all nodes.
        edge_attr: Of the features of the edges.
        conditions: Of the conditions, each simulation once.
        static: Of the static fields.
        derivatives: Of the derivatives of the state at all nodes.
    """

    state: Moments
    change: Moments
    outputs: Moments
    edge_attr: Moments
    conditions: Moments
    static: Moments
    derivatives: Moments


def frame_statistics(windows: MeshWindows, progress: bool = False) -> FrameStatistics:
    r"""Takes the moments of all that scalers need from the frames that some windows see.

    Every pair of consecutive frames counts once, whatever history and stride of the windows are,
    and never with noise. Simulations are read once, a few frames at a time, and sums are in
    float64 by the update of `"Updating Formulae and a Pairwise Algorithm for Computing Sample
    Variances" <https://doi.org/10.1007/978-3-642-51461-6_3>`_.

    A channel that varies less than float32 can tell, measured at the largest channel of its field
    (the state for a change), counts as constant and gets the standard deviation 1, as
    :class:`~pyg_stmamba.data.Scaler` does it.

    Args:
        windows (MeshWindows): The training windows.
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`False`)

    Raises:
        ValueError: If a value is not finite.
    """
    state, change = _Sums(windows.state.values()), _Sums(windows.state.values())
    outputs, static = _Sums(windows.outputs.values()), _Sums(windows.static.values())
    directions = windows.dim if windows.gradients else 0
    velocity = velocity_channels(windows.state, windows.dim)
    along = _Sums([1] * derivative_channels(windows.state, directions))
    conditions, edges = _Sums([1] * len(windows.conditions)), _Sums([windows.edge_channels])
    for number in tqdm(range(len(windows.ranges)), desc="Statistics", disable=not progress):
        graph = windows.graph(number)
        predicted = graph.predicted.numpy()
        edges.add(graph.edge_attr.numpy())
        conditions.add(graph.conditions.numpy())
        if windows.static:
            static.add(graph.static.numpy())
        for frames, told in _frame_pairs(windows, number):
            state.add(frames[:, :-1])
            if directions:
                x = torch.from_numpy(frames[:, :-1])
                weight = graph.gradient_weight.double()
                along.add(derivatives(x, graph.gradient_index, weight, velocity).numpy())
            change.add(frames[predicted, 1:] - frames[predicted, :-1])
            outputs.add(told)
    return FrameStatistics(
        state.moments(),
        change.moments(state.scale()),
        outputs.moments(),
        edges.moments(),
        conditions.moments(),
        static.moments(),
        along.moments(),
    )


def _frame_pairs(windows: MeshWindows, number: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The state at some frames, and the outputs at all of them but the first."""
    trajectory, (first, last) = windows.trajectories[number], windows.ranges[number]
    channels = sum(windows.state.values()) + sum(windows.outputs.values())
    at_once = max(1, VALUES_AT_ONCE // (trajectory.num_nodes * channels))
    for start in range(first, last - 1, at_once):
        stop = min(start + at_once, last - 1) + 1
        frames = trajectory.frames(tuple(windows.state), start, stop).astype(np.float64)
        told = np.zeros((len(frames), stop - start - 1, 0))
        if windows.outputs:
            told = trajectory.frames(tuple(windows.outputs), start + 1, stop)
        yield frames, told


class _Sums:
    """Count, mean and sum of squared deviations of channels, which belong to fields."""

    def __init__(self, fields: Iterable[int]) -> None:
        self.fields = list(fields)
        self.count = 0
        self.mean = np.zeros(sum(self.fields))
        self.square = np.zeros(sum(self.fields))

    def add(self, values: np.ndarray) -> None:
        # Not -1, which cannot be told where there are no channels.
        values = values.reshape(prod(values.shape[:-1]), values.shape[-1]).astype(np.float64)
        count = self.count + len(values)
        mean = values.mean(0)
        apart = mean - self.mean
        self.square += ((values - mean) ** 2).sum(0)
        self.square += apart**2 * (self.count * len(values) / count)
        self.mean = self.mean + apart * (len(values) / count)
        self.count = count

    def scale(self) -> np.ndarray:
        """The root mean square of the largest channel of the field of each channel."""
        rms = self._rms()
        ends = np.cumsum([0, *self.fields])
        largest = [rms[a:b].max(initial=0.0) for a, b in pairwise(ends)]
        return np.repeat(largest, self.fields)

    def moments(self, scale: np.ndarray | None = None) -> Moments:
        smallest = np.finfo(np.float32).eps * (self.scale() if scale is None else scale)
        std, rms = np.sqrt(self.square / max(self.count, 1)), self._rms()
        std = np.where(std <= smallest, 1.0, std)
        rms = np.where(rms <= smallest, 1.0, rms)
        return Moments(*(torch.from_numpy(each) for each in (self.mean, std, rms)))

    def _rms(self) -> np.ndarray:
        return np.sqrt(self.square / max(self.count, 1) + self.mean**2)
