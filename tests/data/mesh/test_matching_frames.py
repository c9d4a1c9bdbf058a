import numpy as np

from pyg_stmamba.data.mesh.matching_frames import matching_frames
from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory


def trajectory(times: np.ndarray) -> MeshTrajectory:
    mesh = Mesh(np.eye(3, 2), {"triangle": np.array([[0, 1, 2]])})
    return MeshTrajectory(mesh, {"u": np.zeros((len(times), 3, 1))}, times)


def test_each_time_finds_its_frame():
    times = np.cumsum(np.random.default_rng(0).uniform(0.5, 1.5, 40))
    order = np.random.default_rng(1).permutation(40)
    assert np.array_equal(matching_frames(times[order], trajectory(times)), order)


def test_times_in_single_precision_are_the_same_times():
    times = 1000 + 0.01 * np.arange(500)
    assert np.array_equal(
        matching_frames(times.astype(np.float32), trajectory(times)), np.arange(500)
    )


def test_a_time_without_a_frame():
    found = matching_frames([0.95, 1.0, 1.4, 2.0, 3.0, 9.0], trajectory(np.array([1.0, 2, 3])))
    assert found.tolist() == [-1, 0, -1, 1, 2, -1]


def test_a_single_frame():
    assert matching_frames([0.0, 1.0, 2.0], trajectory(np.array([1.0]))).tolist() == [-1, 0, -1]


def test_no_time_at_all():
    assert matching_frames([], trajectory(np.array([1.0, 2.0]))).shape == (0,)
