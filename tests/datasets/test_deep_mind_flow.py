import importlib.util
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from pyg_stmamba.data.mesh import MeshTrajectory
from pyg_stmamba.datasets.deep_mind_flow import DeepMindFlow

CARD = Path(__file__).parents[2] / "datasets" / "deep_mind_flow"


@pytest.fixture
def root(tmp_path):
    """A copy of the sample, to be used as the root."""
    spec = importlib.util.spec_from_file_location("make_sample", CARD / "make_sample.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.make_sample(tmp_path / "raw")
    return tmp_path


def test_trajectories(root):
    train = DeepMindFlow(root)
    assert len(train) == 3
    assert str(train) == "DeepMindFlow('cylinder_flow', 'train', 3 trajectories)"
    first = train[0]
    assert isinstance(first, MeshTrajectory)
    assert str(first) == "MeshTrajectory(20 nodes, 6 frames, velocity[2], pressure[1])"
    assert first.frames(["velocity", "pressure"], 1, 3).shape == (20, 2, 3)
    assert [trajectory.num_nodes for trajectory in train] == [20, 24, 28]
    assert [trajectory.name for trajectory in train[1:]] == ["train 1", "train 2"]
    np.testing.assert_array_equal(train[-1].mesh.pos, train[2].mesh.pos)
    with pytest.raises(IndexError):
        train[3]
    assert pickle.loads(pickle.dumps(train))[2].num_nodes == 28


def test_splits_and_names(root):
    for split, name in (("valid", "valid 0"), ("val", "valid 0"), ("test", "test 0")):
        assert [trajectory.name for trajectory in DeepMindFlow(root, split=split)] == [name]
    with pytest.raises(
        ValueError, match="unknown split 'all'; choose from train, valid, val, test"
    ):
        DeepMindFlow(root, split="all")
    with pytest.raises(ValueError, match="unknown name 'flag'; choose from cylinder_flow, airfoil"):
        DeepMindFlow(root, "flag")
    assert DeepMindFlow(root).protocol.state == ("velocity",)
    assert DeepMindFlow(root, "airfoil").protocol.state == ("velocity", "density")


def test_files_may_lie_in_the_root_itself(root):
    assert len(DeepMindFlow(root / "raw")) == 3


def test_transform(root):
    flow = DeepMindFlow(root, transform=lambda trajectory: trajectory.num_nodes)
    assert list(flow) == [20, 24, 28]


def test_places_are_kept(root, monkeypatch):
    DeepMindFlow(root)
    assert (root / "processed" / "train_places.npz").exists()
    with monkeypatch.context() as patch:
        patch.setattr("pyg_stmamba.data.mesh_files.tfrecord._record_places", None)
        assert DeepMindFlow(root)[2].num_nodes == 28


@pytest.mark.parametrize("content", [b"", b"no npz file", None])
def test_places_that_are_damaged_or_outdated_are_made_anew(root, content):
    DeepMindFlow(root)
    kept = root / "processed" / "train_places.npz"
    if content is None:
        # Another file with the same name: fewer trajectories.
        os.replace(root / "raw" / "test.tfrecord", root / "raw" / "train.tfrecord")
        assert len(DeepMindFlow(root)) == 1
    else:
        kept.write_bytes(content)
        assert len(DeepMindFlow(root)) == 3
    before = kept.stat().st_mtime_ns
    DeepMindFlow(root)
    assert kept.stat().st_mtime_ns == before


def test_nothing_need_be_written(root, monkeypatch):
    def full(path, arrays):
        raise OSError("Read-only file system")

    monkeypatch.setattr("pyg_stmamba.datasets.deep_mind_flow.write_npz", full)
    assert len(DeepMindFlow(root)) == 3


def test_absent_files_say_where_they_are(root):
    (root / "raw" / "test.tfrecord").unlink()
    url = "https://storage.googleapis.com/dm-meshgraphnets/airfoil/test.tfrecord"
    with pytest.raises(FileNotFoundError, match=rf"no file .*raw/test.tfrecord; fetch {url}"):
        DeepMindFlow(root, "airfoil", "test")
    with pytest.raises(FileNotFoundError, match=r"no file .*absent/raw/meta\.json; fetch "):
        DeepMindFlow(root / "absent")
    assert not (root / "absent").exists()


def test_damaged_files(root):
    path = root / "raw" / "train.tfrecord"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000])
    with pytest.raises(ValueError, match="is cut off: record 2"):
        DeepMindFlow(root)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"train\.tfrecord is empty; fetch it again"):
        DeepMindFlow(root)
    broken = bytearray(whole)
    broken[500] ^= 1
    path.write_bytes(broken)
    with pytest.raises(ValueError, match="record 0 is damaged"):
        DeepMindFlow(root)[0]
    assert DeepMindFlow(root, check=False)[0].num_nodes == 20


def test_the_card_says_what_the_sample_holds(root):
    text = (CARD / "README.md").read_text(encoding="utf-8")
    meta = json.loads((root / "raw" / "meta.json").read_text())
    splits = [DeepMindFlow(root, split=split) for split in ("train", "valid", "test")]
    nodes = [trajectory.num_nodes for split in splits for trajectory in split]
    row = [
        "cylinder_flow",
        "sample",
        " / ".join(str(len(split)) for split in splits),
        str(meta["trajectory_length"]),
        str(meta["dt"]),
        f"{min(nodes)} to {max(nodes)}",
        ", ".join(splits[0][0].fields),
    ]
    assert f"| {' | '.join(row)} |" in text
    size = sum(path.stat().st_size for path in (root / "raw").iterdir())
    assert f"an invented flow, {size / 1000:.0f} kB" in text
    assert "## Citation" in text
