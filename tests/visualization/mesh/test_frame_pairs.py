import numpy as np
import pytest

from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.visualization.mesh.frame_pairs import frame_pairs, one_frame


def test_frames_of_the_same_time(trajectories):
    prediction, truth = trajectories
    pairs = frame_pairs(prediction, truth)
    assert np.array_equal(pairs, np.stack([np.arange(100), np.arange(2, 102)], axis=1))
    later = MeshTrajectory(truth.mesh, truth.fields, truth.times + 1.0)
    assert len(frame_pairs(later, truth)) == 52


def test_a_frame_may_hold_anything(trajectories):
    velocity = np.full((2, trajectories[0].num_nodes, 2), np.nan)
    broken = MeshTrajectory(trajectories[0].mesh, {"velocity": velocity}, [0, 1])
    assert np.isnan(one_frame(broken, "velocity", 1)).all()
    assert np.array_equal(
        one_frame(trajectories[1], "pressure", 3), trajectories[1].fields["pressure"][3]
    )


def test_what_does_not_fit(trajectories):
    _, truth = trajectories
    with pytest.raises(ValueError, match="no frame at the time of one of the truth"):
        frame_pairs(MeshTrajectory(truth.mesh, truth.fields, truth.times + 1e3), truth)
    other = MeshTrajectory(Mesh(np.eye(3, 2), {}), {"velocity": np.zeros((1, 3, 2))}, [0])
    with pytest.raises(ValueError, match="one mesh, got 3 and"):
        frame_pairs(other, truth)
