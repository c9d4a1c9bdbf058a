import numpy as np
import pytest

from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.data.mesh_files.read_trajectory import read_trajectory
from pyg_stmamba.data.mesh_files.write_trajectory import write_trajectory


@pytest.mark.parametrize("suffix", [".pvd", ".xdmf", ".npz", ".h5"])
def test_what_is_written_is_read_back(tmp_path, suffix):
    mesh = Mesh([[0, 0], [1, 0], [0, 1]], {"triangle": np.array([[0, 1, 2]])}, [4, 5, 6])
    velocity = np.random.default_rng(0).random((4, 3, 2), dtype=np.float32)
    trajectory = MeshTrajectory(mesh, {"velocity": velocity}, 0.5 * np.arange(4))
    write_trajectory(tmp_path / f"flow{suffix}", trajectory)
    again = read_trajectory(tmp_path / f"flow{suffix}")
    np.testing.assert_array_equal(again.frames("velocity"), trajectory.frames("velocity"))
    np.testing.assert_array_equal(again.times, trajectory.times)
    np.testing.assert_array_equal(again.mesh.node_type, [4, 5, 6])


def test_unknown_endings_list_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"flow\.csv: its ending must be one of \.pvd, \.xdmf, \."):
        write_trajectory(tmp_path / "flow.csv", None)
