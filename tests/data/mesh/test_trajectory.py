import pickle

import numpy as np
import pytest

from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory

MESH = Mesh([[0, 0], [1, 0], [0, 1]], {"triangle": np.array([[0, 1, 2]])})


class Counted:
    """Frames that tell which of them were read."""

    def __init__(self, values):
        self.values, self.read = values, []
        self.shape = values.shape

    def __getitem__(self, frames):
        self.read += range(*frames.indices(len(self.values)))
        return self.values[frames]


@pytest.fixture
def velocity():
    return np.arange(36.0).reshape(6, 3, 2)


@pytest.fixture
def trajectory(velocity):
    return MeshTrajectory(
        MESH,
        {"velocity": velocity, "pressure": -velocity[..., :1]},
        0.5 * np.arange(6),
        static={"depth": np.ones((3, 1))},
        parameters={"viscosity": 1e-3},
        series={"drag": np.arange(6)},
        units={"velocity": "m/s"},
        name="run 1",
    )


def test_frames_come_nodes_first_and_side_by_side(trajectory, velocity):
    frames = trajectory.frames(["pressure", "velocity"], 2, 4)
    assert frames.shape == (3, 2, 3)
    assert frames.dtype == np.float32
    for node in range(3):
        for step in range(2):
            u, v = velocity[2 + step, node]
            assert frames[node, step].tolist() == [-u, u, v]
    assert trajectory.frames("velocity").shape == (3, 6, 2)
    assert (trajectory.num_frames, trajectory.num_nodes, trajectory.time_step) == (6, 3, 0.5)


def test_only_what_is_asked_for_is_read(velocity):
    counted = Counted(velocity)
    trajectory = MeshTrajectory(MESH, {"velocity": counted}, np.arange(6))
    part = trajectory.between(2, 5)
    assert counted.read == []
    np.testing.assert_array_equal(
        part.frames("velocity", 1, 3), trajectory.frames("velocity", 3, 5)
    )
    assert counted.read == [3, 4, 3, 4]


def test_some_frames_are_a_trajectory(trajectory):
    part = trajectory.between(1, 5).between(1, 3)
    assert part.times.tolist() == [1.0, 1.5]
    assert (trajectory.first_frame, part.first_frame) == (0, 2)
    assert part.series["drag"].tolist() == [2, 3]
    assert part.parameters == {"viscosity": 1e-3}
    np.testing.assert_array_equal(part.frames("pressure"), trajectory.frames("pressure", 2, 4))
    again = pickle.loads(pickle.dumps(part))
    np.testing.assert_array_equal(again.frames("pressure"), part.frames("pressure"))
    with pytest.raises(ValueError, match="the trajectory 'run 1' has the frames 0 to 1, asked for"):
        part.frames("pressure", 1, 3)
    with pytest.raises(ValueError, match="has the frames 0 to 5, asked for were 3 to 2"):
        trajectory.between(3, 3)


def test_the_first_frame_is_counted_by_the_clock():
    # 0.3 / 0.1 is a little less than 3; a single frame has no step to count by.
    for times, first in ((0.3 + 0.1 * np.arange(4), 3), (np.array([7.0]), 0)):
        fields = {"pressure": np.zeros((len(times), 3, 1))}
        assert MeshTrajectory(MESH, fields, times).first_frame == first


def test_nan_is_refused_by_name_and_frame(trajectory, velocity):
    velocity[4, 1, 1] = np.nan
    assert np.isfinite(trajectory.frames("velocity", 0, 4)).all()
    with pytest.raises(ValueError, match=r"velocity of the trajectory 'run 1' .* frame 4, t = 2"):
        trajectory.frames("velocity", 3, 6)


def test_missing_fields_list_what_is_there(trajectory):
    with pytest.raises(ValueError, match="no field 'u'; its fields are velocity, pressure"):
        trajectory.frames("u")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": [0, 1, 1, 2, 3, 4]}, "frame 1 is at 1 and the next at 1"),
        (
            {"times": np.arange(5)},
            r"u must be \[5, 3, C\] for 5 frames and 3 nodes, got \[6, 3, 2\]",
        ),
        ({"times": [0, 1, 2, 3, 4, np.inf]}, "times must be finite"),
        ({"fields": {"u": np.zeros((6, 4, 1))}}, r"u must be \[6, 3, C\]"),
        ({"fields": {"u": np.zeros((6, 3))}}, r"u must be \[6, 3, C\].*got \[6, 3\]"),
        ({"static": {"depth": np.ones(3)}}, r"depth must be \[3, C\]"),
        ({"series": {"drag": np.ones(5)}}, r"drag must be \[6\]"),
    ],
)
def test_wrong_shapes_are_refused(velocity, change, message):
    with pytest.raises(ValueError, match=message):
        MeshTrajectory(**{"mesh": MESH, "fields": {"u": velocity}, "times": np.arange(6), **change})


def test_it_says_what_it_holds(trajectory):
    assert repr(trajectory) == "MeshTrajectory(3 nodes, 6 frames, velocity[2], pressure[1])"
