import numpy as np
import pytest

from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.mesh_split import split_trajectories
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory

MESH = Mesh([[0, 0], [1, 0], [0, 1]], {"triangle": np.array([[0, 1, 2]])})


def runs(count, frames=10):
    fields = {"u": np.arange(3.0 * frames).reshape(frames, 3, 1)}
    return [
        MeshTrajectory(MESH, fields, np.arange(frames), name=str(number)) for number in range(count)
    ]


@pytest.mark.parametrize(("count", "sizes"), [(3, (1, 1, 1)), (10, (7, 1, 2)), (20, (14, 2, 4))])
def test_several_simulations_are_split_by_simulation(count, sizes):
    trajectories = runs(count)
    split = split_trajectories(trajectories)
    assert tuple(map(len, split)) == sizes
    assert [each for part in split for each in part] == trajectories


@pytest.mark.parametrize("count", [1, 2])
def test_few_simulations_are_split_in_time(count):
    split = split_trajectories(runs(count, frames=20), (0.6, 0.2, 0.2))
    for part, (first, stop) in zip(split, [(0, 12), (12, 16), (16, 20)]):
        assert len(part) == count
        for trajectory in part:
            assert trajectory.times.tolist() == list(range(first, stop))
            assert trajectory.frames("u")[0, :, 0].tolist() == [3.0 * t for t in range(first, stop)]


@pytest.mark.parametrize(
    ("given", "fractions", "message"),
    [
        ([], (0.7, 0.1, 0.2), "there is no trajectory to split"),
        (runs(1, frames=5), (0.7, 0.1, 0.2), "5 frames are too few to be split in time"),
        (runs(4), (0.7, 0.1, 0.1), "that add up to 1, got"),
        (runs(4), (0.7, 0.0, 0.3), "three numbers between 0 and 1"),
        (runs(4), (0.5, 0.5), "three numbers between 0 and 1"),
    ],
)
def test_senseless_splits_are_refused(given, fractions, message):
    with pytest.raises(ValueError, match=message):
        split_trajectories(given, fractions)
