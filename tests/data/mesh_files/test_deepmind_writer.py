import json

import numpy as np
import pytest
import tfrecord

from pyg_stmamba.data.mesh import Mesh, MeshTrajectory
from pyg_stmamba.data.mesh_files.deepmind_trajectory import DeepMindTrajectories
from pyg_stmamba.data.mesh_files.deepmind_writer import write_deepmind
from pyg_stmamba.data.mesh_files.trajectory_arrays import trajectory_arrays, trajectory_from_arrays


def parse(folder, split):
    """All arrays of the trajectories, as the code published with MeshGraphNets reads them."""
    meta = json.loads((folder / "meta.json").read_text())
    for record in tfrecord.tfrecord_loader(str(folder / f"{split}.tfrecord"), None):
        assert set(record) == set(meta["field_names"]) == set(meta["features"])
        parsed = {}
        for name, feature in meta["features"].items():
            values = np.frombuffer(bytes(record[name]), feature["dtype"]).reshape(feature["shape"])
            if feature["type"] == "static":
                values = np.tile(values, (meta["trajectory_length"], 1, 1))
            parsed[name] = values
        yield parsed


def simple(num_frames=4, num_nodes=6, seed=0, **options):
    generator = np.random.default_rng(seed)
    mesh = Mesh(
        generator.normal(size=(num_nodes, 2)).astype(np.float32),
        {"triangle": np.arange(num_nodes - 2)[:, None] + np.arange(3)},
        generator.integers(0, 7, num_nodes),
    )
    fields = {
        "velocity": generator.normal(size=(num_frames, num_nodes, 2)).astype(np.float32),
        "pressure": generator.normal(size=(num_frames, num_nodes, 1)).astype(np.float32),
    }
    times = options.pop("times", np.arange(num_frames) * 0.01)
    return MeshTrajectory(mesh, fields, times, **options)


def test_there_and_back(tmp_path, assert_same_trajectory):
    trajectories = [simple(name="train 0"), simple(num_nodes=9, seed=1, name="train 1")]
    write_deepmind(tmp_path, "train", iter(trajectories))
    read = DeepMindTrajectories(tmp_path, "train")
    assert len(read) == 2
    for number, trajectory in enumerate(trajectories):
        assert_same_trajectory(read[number], trajectory)


def test_everything_is_kept(tmp_path, random_trajectory, assert_same_trajectory):
    original = random_trajectory()
    # What the files cannot hold: other names of nodes, lines, names, and double precision.
    arrays = trajectory_arrays(original)
    arrays |= {
        "node_type": np.array([0, 6, 5])[original.mesh.node_type],
        "pos": original.mesh.pos.astype(np.float32),
        "static/depth": arrays["static/depth"].astype(np.float32),
        "static/ids": arrays["static/ids"].astype(np.int64),
        "name": np.array("train 0"),
    }
    del arrays["node_type_names"], arrays["cells/line"]
    write_deepmind(tmp_path, "train", [original])
    assert_same_trajectory(
        DeepMindTrajectories(tmp_path, "train")[0], trajectory_from_arrays(arrays, "expected")
    )


def test_published_code_reads_it(tmp_path):
    trajectories = [
        simple(seed=k, parameters={"nu": k}, series={"drag": [1, 2, 3, k]}) for k in (4, 5)
    ]
    write_deepmind(tmp_path, "valid", trajectories)
    for parsed, trajectory in zip(parse(tmp_path, "valid"), trajectories, strict=True):
        for name, field in trajectory.fields.items():
            assert parsed[name].tobytes() == field.tobytes()
        for t in range(4):
            np.testing.assert_array_equal(parsed["mesh_pos"][t], trajectory.mesh.pos)
            np.testing.assert_array_equal(parsed["cells"][t], trajectory.mesh.cells["triangle"])
            np.testing.assert_array_equal(parsed["node_type"][t, :, 0], trajectory.mesh.node_type)
            assert parsed["parameters/nu"][t] == trajectory.parameters["nu"]
        assert parsed["series/drag"].ravel().tolist() == trajectory.series["drag"].tolist()


def test_meta_is_that_of_the_published_files(tmp_path):
    write_deepmind(tmp_path, "train", [simple(600)])
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert meta["features"] == {
        "cells": {"type": "static", "shape": [1, -1, 3], "dtype": "int32"},
        "mesh_pos": {"type": "static", "shape": [1, -1, 2], "dtype": "float32"},
        "node_type": {"type": "static", "shape": [1, -1, 1], "dtype": "int32"},
        "velocity": {"type": "dynamic", "shape": [600, -1, 2], "dtype": "float32"},
        "pressure": {"type": "dynamic", "shape": [600, -1, 1], "dtype": "float32"},
    }
    assert (meta["dt"], meta["trajectory_length"]) == (0.01, 600)
    assert meta["field_names"] == list(meta["features"])


@pytest.mark.parametrize("times", [[0.01, 0.02, 0.03, 0.04], [0, 1, 2, 4]])
def test_times_of_their_own(tmp_path, times):
    write_deepmind(tmp_path, "train", [simple(times=times)])
    assert DeepMindTrajectories(tmp_path, "train")[0].times.tolist() == times


@pytest.mark.parametrize(("kind", "dim"), [("quad", 2), ("tetra", 3)])
def test_other_cells(tmp_path, assert_same_trajectory, kind, dim):
    mesh = Mesh(np.eye(4, dim), {kind: [[0, 1, 2, 3]]})
    trajectory = MeshTrajectory(mesh, {"p": np.ones((2, 4, 1), np.float32)}, [0, 1], name="a 0")
    write_deepmind(tmp_path, "a", [trajectory])
    assert_same_trajectory(DeepMindTrajectories(tmp_path, "a")[0], trajectory)


def test_types_of_numbers(tmp_path):
    mesh = simple().mesh
    fields = {
        dtype: np.arange(24).reshape(4, 6, 1).astype(dtype)
        for dtype in ("float64", "float16", "int64", "uint32", "int8", "bool")
    }
    write_deepmind(tmp_path, "a", [MeshTrajectory(mesh, fields, np.arange(4))])
    read = DeepMindTrajectories(tmp_path, "a")[0]
    stored = [read.field(dtype)[:].dtype for dtype in fields]
    assert stored == ["float32", "float32", "int64", "int64", "int32", "int32"]
    for dtype, values in fields.items():
        np.testing.assert_array_equal(read.field(dtype)[:], values)


def test_splits_share_their_meta(tmp_path):
    write_deepmind(tmp_path, "train", [simple()])
    before = (tmp_path / "meta.json").stat().st_mtime_ns
    write_deepmind(tmp_path, "test", [simple(num_nodes=8)])
    assert (tmp_path / "meta.json").stat().st_mtime_ns == before
    with pytest.raises(
        ValueError, match=r"trajectory 0 does not fit .*trajectory_length is 5 inst"
    ):
        write_deepmind(tmp_path, "valid", [simple(5)])
    assert not (tmp_path / "valid.tfrecord").exists()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (simple(5), "trajectory 1 does not fit .*: trajectory_length is 5 instead of 4"),
        (simple(times=np.arange(4) * 0.02), "dt is 0.02 instead of 0.01"),
        (simple(parameters={"nu": 1}), "features is .*parameters/nu"),
        (simple(units={"velocity": "m/s"}), "units is {'velocity': 'm/s'} instead of {}"),
    ],
)
def test_trajectories_that_do_not_fit_each_other(tmp_path, other, message):
    with pytest.raises(ValueError, match=message):
        write_deepmind(tmp_path, "train", [simple(), other])
    assert list(tmp_path.iterdir()) == []


def meshed(cells, node_type_names=("normal",), dim=2, **options):
    mesh = Mesh(np.eye(8, dim), cells, node_type_names=node_type_names)
    return MeshTrajectory(mesh, {"p": np.ones((1, 8, 1))}, [0], **options)


@pytest.mark.parametrize(
    ("trajectory", "message"),
    [
        (meshed({}), "one type of them, got none in 2 dimensions"),
        (meshed({"triangle": [[0, 1, 2]], "quad": [[0, 1, 2, 3]]}), "got triangle, quad in 2"),
        (meshed({"quad": [[0, 1, 2, 3]]}, dim=3), "got quad in 3 dimensions"),
        (meshed({"hexahedron": [range(8)]}, dim=3), "got hexahedron in 3"),
        (meshed({"triangle": [[0, 1, 2]]}, ["solid"]), "node types normal, .*, wall, not solid"),
        (meshed({"triangle": [[0, 1, 2]]}, static={"p": np.ones((8, 1))}), "'p' in static is alre"),
        (meshed({"triangle": [[0, 1, 2]]}, static={"cells": np.ones((8, 1))}), "'cells' in static"),
        (meshed({"triangle": [[0, 1, 2]]}, static={"times": np.ones((8, 1))}), "'times' in static"),
    ],
)
def test_what_the_files_cannot_hold(tmp_path, trajectory, message):
    with pytest.raises(ValueError, match=message):
        write_deepmind(tmp_path, "train", [trajectory])
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_write(tmp_path):
    with pytest.raises(ValueError, match="there are no trajectories to write beside"):
        write_deepmind(tmp_path, "train", [])
    assert list(tmp_path.iterdir()) == []


def test_progress_is_shown_on_demand(tmp_path, capsys):
    write_deepmind(tmp_path, "train", [simple()])
    assert capsys.readouterr() == ("", "")
    write_deepmind(tmp_path, "test", [simple()], progress=True)
    assert "Writing test" in capsys.readouterr().err
