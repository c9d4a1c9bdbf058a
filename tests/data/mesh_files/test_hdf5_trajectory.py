import pickle
import sys

import h5py
import numpy as np
import pytest

from pyg_stmamba.data.mesh import Mesh, MeshTrajectory
from pyg_stmamba.data.mesh_files.hdf5_array import HDF5Array
from pyg_stmamba.data.mesh_files.hdf5_trajectory import (
    load_trajectory_hdf5,
    save_trajectory_hdf5,
    trajectory_groups,
)
from pyg_stmamba.data.mesh_files.npz_trajectory import load_trajectory_npz, save_trajectory_npz


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "f2", "i2"])
def test_there_and_back(random_trajectory, assert_same_trajectory, tmp_path, dtype):
    trajectory = random_trajectory(dtype=dtype)
    save_trajectory_hdf5(trajectory, tmp_path / "a.h5")
    read = load_trajectory_hdf5(tmp_path / "a.h5")
    assert_same_trajectory(read, trajectory)
    assert all(isinstance(field, HDF5Array) for field in read.fields.values())
    assert_same_trajectory(pickle.loads(pickle.dumps(read)), trajectory)


def test_what_a_trajectory_need_not_have(tmp_path, assert_same_trajectory):
    trajectory = MeshTrajectory(Mesh(np.ones((3, 3)), {}), {"p": np.zeros((0, 3, 1))}, [])
    save_trajectory_hdf5(trajectory, tmp_path / "a.h5")
    assert_same_trajectory(load_trajectory_hdf5(tmp_path / "a.h5"), trajectory)


def test_other_formats_hold_the_same(random_trajectory, assert_same_trajectory, tmp_path):
    save_trajectory_npz(random_trajectory(), tmp_path / "a.npz")
    save_trajectory_hdf5(load_trajectory_npz(tmp_path / "a.npz"), tmp_path / "a.h5")
    save_trajectory_npz(load_trajectory_hdf5(tmp_path / "a.h5"), tmp_path / "b.npz")
    assert_same_trajectory(load_trajectory_npz(tmp_path / "b.npz"), random_trajectory())
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_several_in_one_file(random_trajectory, assert_same_trajectory, tmp_path):
    several = {"z last": random_trajectory(seed=1), "a": random_trajectory(3, 9, seed=2)}
    path = tmp_path / "a.h5"
    save_trajectory_hdf5(several, path)
    assert trajectory_groups(path) == ["z last", "a"]
    for name, trajectory in several.items():
        assert_same_trajectory(load_trajectory_hdf5(path, name), trajectory)
    with pytest.raises(ValueError, match=r"2 trajectories, say which with group=\.\.\.: z last, a"):
        load_trajectory_hdf5(path)
    with pytest.raises(ValueError, match="none called 'b': z last, a"):
        load_trajectory_hdf5(path, "b")
    save_trajectory_hdf5({"alone": several["a"]}, path)
    assert_same_trajectory(load_trajectory_hdf5(path), several["a"])
    for name in ("", "a/b", ".."):
        with pytest.raises(ValueError, match="cannot be the name of a trajectory"):
            save_trajectory_hdf5({name: several["a"]}, path)


def test_fields_are_written_part_by_part(tmp_path, monkeypatch):
    values = np.random.default_rng(0).normal(size=(11, 4, 2))
    asked = []

    class Frames:
        shape = values.shape

        def __getitem__(self, frames):
            asked.append(len(values[frames]))
            return values[frames]

    monkeypatch.setattr(
        "pyg_stmamba.data.mesh_files.mapped_npz.BYTES_AT_ONCE", 3 * values[0].nbytes
    )
    mesh = Mesh(np.ones((4, 2)), {"quad": [[0, 1, 2, 3]]})
    save_trajectory_hdf5(MeshTrajectory(mesh, {"u": Frames()}, np.arange(11)), tmp_path / "a.h5")
    assert max(asked) == 3
    np.testing.assert_array_equal(load_trajectory_hdf5(tmp_path / "a.h5").field("u")[:], values)


def test_files_of_others(tmp_path):
    generator = np.random.default_rng(0)
    velocity = generator.normal(size=(4, 3, 2))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        run = file.create_group("run")
        run["mesh_pos"] = generator.normal(size=(3, 2))
        run["triangles"] = [[0, 1, 2]]
        run["node_type"] = [[0], [4], [6]]
        run.create_dataset("U", data=velocity, chunks=(1, 3, 2), compression="gzip")
        run.create_dataset("p", data=velocity[..., 0], chunks=(1, 3))
        run["units/p"] = "Pa"
    trajectory = load_trajectory_hdf5(
        tmp_path / "a.h5", keys={"velocity": "U", "pressure": "p"}, time_step=0.1
    )
    np.testing.assert_array_equal(trajectory.field("velocity")[1:3], velocity[1:3])
    np.testing.assert_array_equal(trajectory.field("pressure")[1:3], velocity[1:3, :, :1])
    assert trajectory.mesh.node_type.tolist() == [0, 4, 6]
    assert trajectory.units == {"pressure": "Pa"}  # by the name of the field, not of the file
    with pytest.raises(
        ValueError, match=r"a\.h5, run has neither times nor dt.* mesh_pos, node_typ"
    ):
        load_trajectory_hdf5(tmp_path / "a.h5")


def test_bad_files(random_trajectory, tmp_path):
    path = tmp_path / "a.h5"
    with pytest.raises(FileNotFoundError, match=r"no file .*a\.h5"):
        load_trajectory_hdf5(path)
    with h5py.File(path, "w"):
        pass
    with pytest.raises(ValueError, match=r"a\.h5 has 0 trajectories"):
        load_trajectory_hdf5(path)
    save_trajectory_hdf5(random_trajectory(), path)
    whole = path.read_bytes()
    for content in (b"", b"no HDF5", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is no HDF5 file, or damaged or cut off"):
            load_trajectory_hdf5(path)


def test_without_h5py(random_trajectory, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install 'pyg-stmamba\[train\]'"):
        save_trajectory_hdf5(random_trajectory(), tmp_path / "a.h5")
    with pytest.raises(ImportError, match=r"pip install 'pyg-stmamba\[train\]'"):
        trajectory_groups(tmp_path / "a.h5")
