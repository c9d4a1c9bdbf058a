import json
import pickle
import tracemalloc

import numpy as np
import pytest
import tfrecord

from pyg_stmamba.data.mesh import NODE_TYPES
from pyg_stmamba.data.mesh_files.deepmind_trajectory import DeepMindTrajectories
from pyg_stmamba.data.mesh_files.mapped_array import MappedArray
from pyg_stmamba.data.mesh_files.tfrecord import write_tfrecord

T = 6
SHAPES = {
    "cells": ("static", [1, -1, 3], "int32"),
    "mesh_pos": ("static", [1, -1, 2], "float32"),
    "node_type": ("static", [1, -1, 1], "int32"),
    "velocity": ("dynamic", [T, -1, 2], "float32"),
    "pressure": ("dynamic", [T, -1, 1], "float32"),
}


def arrays(num_nodes, seed=0):
    generator = np.random.default_rng(seed)
    return {
        "cells": (np.arange(num_nodes - 2)[:, None] + np.arange(3))[None].astype(np.int32),
        "mesh_pos": generator.normal(size=(1, num_nodes, 2)).astype(np.float32),
        "node_type": generator.choice([0, 4, 5, 6], (1, num_nodes, 1)).astype(np.int32),
        "velocity": generator.normal(size=(T, num_nodes, 2)).astype(np.float32),
        "pressure": generator.normal(size=(T, num_nodes, 1)).astype(np.float32),
    }


def folder(path, records, shapes=SHAPES, **meta):
    """Files as the published ones are, written with the package tfrecord."""
    features = {
        name: dict(zip(("type", "shape", "dtype"), values, strict=True))
        for name, values in shapes.items()
    }
    content = {"dt": 0.01, "features": features, "trajectory_length": T} | meta
    (path / "meta.json").write_text(json.dumps(content | {"field_names": list(features)}))
    writer = tfrecord.TFRecordWriter(str(path / "train.tfrecord"))
    for record in records:
        writer.write(
            {
                name: value if isinstance(value, tuple) else (value.tobytes(), "byte")
                for name, value in record.items()
            }
        )
    writer.close()
    return path


def test_reads_published_layout(tmp_path):
    records = [arrays(7), arrays(9, seed=1), arrays(5, seed=2)]
    trajectories = DeepMindTrajectories(folder(tmp_path, records), "train")
    assert len(trajectories) == 3
    for number in (2, 0, 1):
        trajectory, record = trajectories[number], records[number]
        np.testing.assert_array_equal(trajectory.mesh.pos, record["mesh_pos"][0])
        np.testing.assert_array_equal(trajectory.mesh.cells["triangle"], record["cells"][0])
        np.testing.assert_array_equal(trajectory.mesh.node_type, record["node_type"][0, :, 0])
        assert trajectory.mesh.node_type_names == NODE_TYPES
        assert list(trajectory.fields) == ["velocity", "pressure"]
        for name in trajectory.fields:
            assert isinstance(trajectory.field(name), MappedArray)
            assert trajectory.field(name)[1:4].tobytes() == record[name][1:4].tobytes()
        np.testing.assert_array_equal(trajectory.times, np.arange(T) * 0.01)
        assert trajectory.name == f"train {number}"
    assert trajectories[-1].name == "train 2"
    assert [trajectory.name for trajectory in trajectories[1:]] == ["train 1", "train 2"]
    with pytest.raises(IndexError, match="has 3 records, asked for was 3"):
        trajectories[3]
    assert str(trajectories).startswith("DeepMindTrajectories(3 trajectories, '")


def test_copies_are_small_and_work(tmp_path):
    record = arrays(7)
    trajectories = DeepMindTrajectories(folder(tmp_path, [record] * 2), "train")
    trajectory = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(trajectories))[1]))
    np.testing.assert_array_equal(trajectory.field("velocity")[:], record["velocity"])
    assert len(pickle.dumps(trajectory)) < 4000


def test_more_features(tmp_path):
    record = arrays(7) | {
        "density": np.ones((T, 7, 1)),
        "depth": np.arange(7, dtype=np.int64).reshape(1, 7, 1),
        "unknown": np.ones(3),
    }
    shapes = SHAPES | {
        "density": ("dynamic", [T, -1, 1], "float64"),
        "depth": ("static", [1, -1, 1], "int64"),
    }
    path = folder(tmp_path, [record], shapes, units={"density": "kg/m³"})
    trajectory = DeepMindTrajectories(path, "train")[0]
    assert list(trajectory.fields) == ["velocity", "pressure", "density"]
    assert trajectory.field("density")[:].dtype == np.float64
    assert trajectory.static["depth"].tolist() == [[k] for k in range(7)]
    assert trajectory.units == {"density": "kg/m³"}
    chosen = DeepMindTrajectories(path, "train", fields=["density"])[0]
    assert list(chosen.fields) == ["density"]
    assert chosen.static == {}
    with pytest.raises(
        ValueError, match=r"meta.json has no feature U; it has cells, mesh_pos, nod"
    ):
        DeepMindTrajectories(path, "train", fields=["density", "U"])


def varlen(record, name, rows):
    """One feature with so many rows in each frame."""
    values = np.concatenate([record[name][min(t, len(record[name]) - 1), :n] for t, n in rows])
    lengths = np.array([n for _, n in rows], dtype=np.int32)
    return record | {name: values, f"length_{name}": lengths}


def test_varying_lengths(tmp_path):
    shapes = SHAPES | {
        "mesh_pos": ("dynamic_varlen", [-1, 2], "float32"),
        "cells": ("dynamic_varlen", [-1, 3], "int32"),
        "velocity": ("dynamic_varlen", [-1, 2], "float32"),
    }
    whole = arrays(7)
    same = whole
    for name, count in (("mesh_pos", 7), ("cells", 5), ("velocity", 7)):
        same = varlen(same, name, [(t, count) for t in range(T)])
    trajectory = DeepMindTrajectories(folder(tmp_path, [same], shapes), "train")[0]
    np.testing.assert_array_equal(trajectory.mesh.pos, whole["mesh_pos"][0])
    np.testing.assert_array_equal(trajectory.mesh.cells["triangle"], whole["cells"][0])
    np.testing.assert_array_equal(trajectory.field("velocity")[:], whole["velocity"])

    remeshed = varlen(
        same | {"cells": whole["cells"]}, "cells", [(t, 5 - (t == 3)) for t in range(T)]
    )
    with pytest.raises(
        ValueError, match=r"record 0: 'cells' has 5 rows in frame 0 but 4 in frame 3"
    ):
        DeepMindTrajectories(folder(tmp_path, [remeshed], shapes), "train")[0]
    short = same | {"length_cells": same["length_cells"][:-1]}
    with pytest.raises(
        ValueError, match=r"'cells' has 30 rows in all, but .* 5 frames and 25 rows"
    ):
        DeepMindTrajectories(folder(tmp_path, [short], shapes), "train")[0]
    fewer = same | {"length_cells": same["length_cells"] - 1}
    with pytest.raises(
        ValueError, match=r"'cells' has 30 rows in all, but .* 6 frames and 24 rows"
    ):
        DeepMindTrajectories(folder(tmp_path, [fewer], shapes), "train")[0]
    del short["length_cells"]
    with pytest.raises(
        ValueError, match=r"'cells' .*length_cells is missing; the record has cells"
    ):
        DeepMindTrajectories(folder(tmp_path, [short], shapes), "train")[0]


def test_moving_meshes_are_refused(tmp_path):
    record = arrays(7)
    record["mesh_pos"] = np.repeat(record["mesh_pos"], T, axis=0)
    shapes = SHAPES | {"mesh_pos": ("dynamic", [T, -1, 2], "float32")}
    path = folder(tmp_path, [record], shapes)
    np.testing.assert_array_equal(
        DeepMindTrajectories(path, "train")[0].mesh.pos, record["mesh_pos"][0]
    )
    record["mesh_pos"][4, 2, 1] += 1e-6
    with pytest.raises(ValueError, match="record 0: pos is not in frame 4 what it is in frame 0"):
        DeepMindTrajectories(folder(tmp_path, [record], shapes), "train")[0]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "velocity",
            None,
            "'velocity' is not there, velocity is missing; the record has cells, me",
        ),
        (
            "velocity",
            np.ones(3, np.float32),
            r"has 12 bytes, which are no float32 array \[6, -1, 2\]",
        ),
        ("velocity", np.ones((T, 8, 2), np.float32), r"fields/velocity has the shape \[6, 8, 2\]"),
        ("velocity", (np.ones(84), "float"), "must be one value of a bytes_list, got 1 of a float"),
        ("velocity", ([b"a", b"b"], "byte"), "must be one value of a bytes_list, got 2 of a bytes"),
        ("velocity", b"", r"fields/velocity has the shape \[6, 0, 2\]"),
        (
            "node_type",
            np.full((1, 7, 1), 9, np.int32),
            "node 0 has the unknown type 9; types are 0",
        ),
        ("node_type", np.zeros((1, 8, 1), np.int32), r"node_type must be \[7\]"),
        ("cells", np.full((1, 1, 3), 7, np.int32), r"triangle 0 has the nodes \[7, 7, 7\]"),
        ("mesh_pos", np.full((1, 7, 2), np.nan, np.float32), "pos is not finite: node 0"),
    ],
)
def test_bad_records_are_named(tmp_path, name, value, message):
    record = arrays(7) | {name: (value, "byte") if isinstance(value, bytes) else value}
    record = {key: values for key, values in record.items() if values is not None}
    trajectories = DeepMindTrajectories(folder(tmp_path, [arrays(7), record]), "train")
    assert trajectories[0].num_nodes == 7
    with pytest.raises(ValueError, match=rf"train\.tfrecord, record 1: .*{message}"):
        trajectories[1]


def test_bad_folders(tmp_path):
    shapes = {name: value for name, value in SHAPES.items() if name != "node_type"}
    with pytest.raises(
        ValueError, match=r"meta.json has no feature node_type; it has cells, mesh_p"
    ):
        DeepMindTrajectories(folder(tmp_path, [], shapes), "train")
    path = folder(tmp_path, [])
    assert len(DeepMindTrajectories(path, "train")) == 0
    with pytest.raises(FileNotFoundError, match=r"no file .*valid\.tfrecord"):
        DeepMindTrajectories(path, "valid")


def test_damage(tmp_path):
    record = arrays(7)
    path = folder(tmp_path, [record, record]) / "train.tfrecord"
    whole = path.read_bytes()
    place = whole.rindex(record["velocity"].tobytes())
    broken = bytearray(whole)
    broken[place + 50] ^= 1
    path.write_bytes(broken)
    trajectories = DeepMindTrajectories(tmp_path, "train")
    assert trajectories[0].num_frames == T
    with pytest.raises(ValueError, match="record 1 is damaged: the data from byte"):
        trajectories[1]
    unchecked = DeepMindTrajectories(tmp_path, "train", check=False)[1]
    assert (unchecked.field("velocity")[:] != record["velocity"]).sum() == 1
    path.write_bytes(whole[:-20])
    with pytest.raises(ValueError, match="is cut off: record 1 should have"):
        DeepMindTrajectories(tmp_path, "train")


def test_no_message_in_a_record(tmp_path):
    folder(tmp_path, [])
    write_tfrecord(tmp_path / "train.tfrecord", [b"\x0a\x7f"])
    with pytest.raises(ValueError, match=r"train\.tfrecord, record 0: no tf\.train\.Example mess"):
        DeepMindTrajectories(tmp_path, "train")[0]


@pytest.mark.parametrize("check", [True, False])
def test_little_is_in_memory(tmp_path, check):
    record = arrays(1000) | {"stress": np.ones((T, 1000, 100), dtype=np.float32)}
    shapes = SHAPES | {"stress": ("dynamic", [T, -1, 100], "float32")}
    path = folder(tmp_path, [record] * 4, shapes)
    tracemalloc.start()
    for trajectory in DeepMindTrajectories(path, "train", check=check):
        trajectory.field("stress")[2:3]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.joinpath("train.tfrecord").stat().st_size > 9_000_000
    assert peak < 2_000_000
