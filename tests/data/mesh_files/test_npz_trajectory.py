import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_stmamba.data.mesh import Mesh, MeshTrajectory
from pyg_stmamba.data.mesh_files.mapped_array import MappedArray
from pyg_stmamba.data.mesh_files.npz_trajectory import load_trajectory_npz, save_trajectory_npz

NAMES = st.text(min_size=1, max_size=5).filter(
    lambda name: not set(name) & {"/", "\0"} and name not in (".", "..")
)
# NumPy drops zeros at the end of a text.
TEXTS = st.text(max_size=8).filter(lambda text: "\0" not in text)


def test_there_and_back(random_trajectory, assert_same_trajectory, tmp_path):
    trajectory = random_trajectory()
    save_trajectory_npz(trajectory, tmp_path / "a.npz")
    read = load_trajectory_npz(tmp_path / "a.npz")
    assert_same_trajectory(read, trajectory)
    assert all(isinstance(field, MappedArray) for field in read.fields.values())
    assert_same_trajectory(pickle.loads(pickle.dumps(read)), trajectory)
    # What was read can be written, with the same result.
    save_trajectory_npz(read, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@settings(deadline=None, max_examples=40)
@given(
    fields=st.dictionaries(NAMES, st.integers(1, 3), max_size=3),
    others=st.dictionaries(NAMES, st.floats(allow_nan=False), max_size=2),
    units=st.dictionaries(NAMES, TEXTS, max_size=2),
    names=st.lists(TEXTS, min_size=1, max_size=3),
    name=TEXTS,
    frames=st.integers(0, 3),
    dtype=st.sampled_from(["<f4", ">f8", "i2", "?"]),
)
def test_whatever_it_has(
    tmp_path_factory, assert_same_trajectory, fields, others, units, names, name, frames, dtype
):
    generator = np.random.default_rng(0)
    mesh = Mesh(generator.normal(size=(4, 3)), {"tetra": [[0, 1, 2, 3]]}, node_type_names=names)
    trajectory = MeshTrajectory(
        mesh,
        {key: generator.normal(size=(frames, 4, c)).astype(dtype) for key, c in fields.items()},
        np.arange(frames),
        static={key: generator.normal(size=(4, c)) for key, c in fields.items()},
        parameters=others,
        series={key: np.full(frames, value) for key, value in others.items()},
        units=units,
        name=name,
    )
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    save_trajectory_npz(trajectory, path)
    assert_same_trajectory(load_trajectory_npz(path), trajectory)


def test_numpy_reads_it(random_trajectory, tmp_path):
    trajectory = random_trajectory()
    save_trajectory_npz(trajectory, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["fields/velocity"], trajectory.fields["velocity"])
        np.testing.assert_array_equal(arrays["cells/line"], trajectory.mesh.cells["line"])
        assert arrays["node_type_names"].tolist() == ["normal", "wall", "outflow"]
        assert float(arrays["parameters/viscosity"]) == 1e-3
        assert str(arrays["units/viscosity"]) == "m²/s"


def test_compressed_files_are_read_too(random_trajectory, assert_same_trajectory, tmp_path):
    save_trajectory_npz(random_trajectory(), tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as arrays:
        np.savez_compressed(tmp_path / "b.npz", **arrays)
    assert_same_trajectory(load_trajectory_npz(tmp_path / "b.npz"), random_trajectory())


def test_a_few_frames_are_in_memory_at_a_time(tmp_path):
    mesh = Mesh(np.random.default_rng(0).normal(size=(1000, 2)), {"triangle": [[0, 1, 2]]})

    class Frames:
        shape = (2000, 1000, 2)

        def __getitem__(self, frames):
            count = len(range(*frames.indices(self.shape[0])))
            return np.full((count, 1000, 2), frames.start or 0, dtype=np.float32)

    path = tmp_path / "a.npz"
    tracemalloc.start()
    save_trajectory_npz(MeshTrajectory(mesh, {"velocity": Frames()}, np.arange(2000)), path)
    read = load_trajectory_npz(path)
    window = read.frames("velocity", 1990, 1992)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 16_000_000
    assert peak < 12_000_000
    assert window.shape == (1000, 2, 2)
    assert window.max() > 0


def test_options_of_plain_files(tmp_path):
    generator = np.random.default_rng(0)
    np.savez(
        tmp_path / "run.npz",
        mesh_pos=generator.normal(size=(3, 2)),
        triangles=np.array([[0, 1, 2]]),
        node_type=np.zeros((3, 1)),
        U=generator.normal(size=(5, 3, 2)),
        edges=np.zeros((2, 6)),
    )
    path = tmp_path / "run.npz"
    trajectory = load_trajectory_npz(
        path, keys={"velocity": "U"}, fields=["velocity"], time_step=0.1
    )
    assert str(trajectory) == "MeshTrajectory(3 nodes, 5 frames, velocity[2])"
    with pytest.raises(
        ValueError, match=r"run\.npz: edges has the shape \[2, 6\].*it has mesh_pos"
    ):
        load_trajectory_npz(path, time_step=0.1)
    with pytest.raises(FileNotFoundError, match="no file"):
        load_trajectory_npz(tmp_path / "absent.npz")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="cut off"):
        load_trajectory_npz(path)
