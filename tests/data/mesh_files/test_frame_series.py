import pickle

import numpy as np
import pytest

from pyg_stmamba.data.mesh_files import frame_series
from pyg_stmamba.data.mesh_files.frame_series import (
    FileFrames,
    FrameSeries,
    SharedMeshReader,
    is_planar,
)
from pyg_stmamba.data.mesh_files.snapshot import Snapshot

POINTS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.0]])
CELLS = np.array([[0, 1, 2]])


class Counted(FrameSeries):
    """Snapshots in memory, and which were read."""

    def __init__(self, snapshots):
        super().__init__(np.arange(len(snapshots)), "counted")
        self.snapshots, self.seen = snapshots, []

    def read(self, frame):
        self.seen.append(frame)
        return self.snapshots[frame]

    def where(self, frame):
        return f"part {frame}"


@pytest.fixture
def snapshots():
    generator = np.random.default_rng(0)
    return [
        Snapshot(
            POINTS,
            {"triangle": CELLS},
            {
                "u": np.pad(generator.normal(size=(3, 2)), ((0, 0), (0, 1))),
                "p": generator.normal(size=3),
            },
        )
        for _ in range(6)
    ]


def test_frames_are_those_of_the_files(snapshots):
    reader = SharedMeshReader(Counted(snapshots))
    expected = np.stack([snapshot.fields["u"] for snapshot in snapshots]).astype(np.float32)
    whole = FileFrames(reader, "u", 3, np.arange(6))
    assert whole.shape == (6, 3, 3)
    assert whole[:].dtype == np.float32
    for part in (slice(None), slice(2, 5), slice(5, None), slice(0, 6, 2), slice(3, 3)):
        np.testing.assert_array_equal(whole[part], expected[part])
    some = FileFrames(reader, "u", 2, np.array([1, 3, 5]), np.array([2, 0]))
    assert some.shape == (3, 2, 2)
    np.testing.assert_array_equal(some[1:3], expected[[3, 5]][:, [2, 0], :2])
    pressure = FileFrames(reader, "p", 1, np.arange(6))
    assert pressure[2:4].shape == (2, 3, 1)
    np.testing.assert_array_equal(pressure[2:3][0, :, 0], snapshots[2].fields["p"].astype("f4"))


def test_frames_are_read_when_asked_for_and_once_for_all_fields(snapshots):
    series = Counted(snapshots)
    reader = SharedMeshReader(series)
    velocity = FileFrames(reader, "u", 2, np.arange(6))
    pressure = FileFrames(reader, "p", 1, np.arange(6))
    series.seen.clear()
    velocity[2:4], pressure[2:4], velocity[3:5]
    assert series.seen == [2, 3, 4]


def test_few_frames_are_remembered(snapshots, monkeypatch):
    # One frame has 3 nodes with 4 numbers of 4 bytes.
    monkeypatch.setattr(frame_series, "REMEMBERED_BYTES", 2 * 48)
    series = Counted(snapshots)
    frames = FileFrames(SharedMeshReader(series), "u", 2, np.arange(6))
    series.seen.clear()
    frames[0:3], frames[1:2], frames[0:1]
    # 1 was asked for after 2, so 2 went.
    assert series.seen == [0, 1, 2, 0]
    frames[1:2], frames[0:1]
    assert series.seen == [0, 1, 2, 0]
    monkeypatch.setattr(frame_series, "REMEMBERED_BYTES", 1)
    frames[4:5], frames[4:5]
    assert series.seen == [0, 1, 2, 0, 4]


def test_what_is_returned_can_be_changed(snapshots):
    frames = FileFrames(SharedMeshReader(Counted(snapshots)), "u", 3, np.arange(6))
    first = frames[0:1].copy()
    frames[0:1][:] = 7
    np.testing.assert_array_equal(frames[0:1], first)


def test_copies_forget_what_was_read(snapshots):
    frames = FileFrames(SharedMeshReader(Counted(snapshots)), "u", 3, np.arange(6))
    before = len(pickle.dumps(frames))
    expected = frames[:]
    # Only the list of what was read has grown.
    assert len(pickle.dumps(frames)) - before < 100
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(frames))[:], expected)


def changed(snapshot, points=POINTS, cells=CELLS, kind="triangle"):
    return Snapshot(points, {kind: cells}, {"u": np.zeros((len(points), 3))})


@pytest.mark.parametrize(
    ("points", "cells", "message"),
    [
        (POINTS + [0, 0.1, 0], CELLS, 'points elsewhere; mesh="first" reads moving points'),
        (POINTS, CELLS[:, ::-1], "other cells"),
        (POINTS, np.repeat(CELLS, 2, axis=0), "other cells"),
        (np.eye(4, 3), CELLS, "4 points instead of 3"),
    ],
)
def test_other_meshes(snapshots, points, cells, message):
    snapshots[4] = changed(snapshots[4], points, cells)
    frames = FileFrames(SharedMeshReader(Counted(snapshots)), "u", 2, np.arange(6))
    frames[0:4]
    with pytest.raises(
        ValueError, match=r"frame 4 \(part 4\) has a different mesh than the fi"
    ) as e:
        frames[3:5]
    assert message in str(e.value)
    loose = FileFrames(SharedMeshReader(Counted(snapshots), same_mesh=False), "u", 2, np.arange(6))
    if len(points) == 3:
        assert not loose[4:5].any()
    else:
        with pytest.raises(ValueError, match="4 points instead of 3"):
            loose[4:5]


def test_other_types_of_cells(snapshots):
    snapshots[1] = changed(snapshots[1], kind="line", cells=CELLS[:, :2])
    with pytest.raises(ValueError, match=r"frame 1 .* other cells"):
        SharedMeshReader(Counted(snapshots)).read(1)


def test_fields_that_go_missing_or_leave_the_plane(snapshots):
    reader = SharedMeshReader(Counted(snapshots))
    with pytest.raises(
        ValueError, match=r"frame 0 \(part 0\) has no field 'w'; its fields are u, p"
    ):
        FileFrames(reader, "w", 1, np.arange(6))[0:1]
    snapshots[3].fields["u"][1, 2] = 0.5
    frames = FileFrames(SharedMeshReader(Counted(snapshots)), "u", 2, np.arange(6))
    frames[0:3]
    with pytest.raises(
        ValueError, match=r"u in frame 3 \(part 3\) has 3 components that are not 0, but only 2"
    ):
        frames[3:4]
    snapshots[5] = changed(snapshots[5])
    snapshots[5].fields["u"] = np.zeros((3, 1))
    with pytest.raises(ValueError, match=r"u in frame 5 .* has 1 components"):
        frames[5:6]


def test_rounding_is_no_third_component():
    values = np.array([[1.0, 2, 1e-7], [0, 0, 0]])
    assert is_planar(values[:, 2:], values)
    assert not is_planar(values[:, 2:] * 100, values)
    assert is_planar(np.zeros((3, 1)), np.zeros((3, 3)))
    # NaN is left to the trajectory, which names it.
    assert is_planar(np.zeros((1, 1)), np.array([[np.nan, 0, 0]]))
