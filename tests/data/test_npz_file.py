import os

import numpy as np
import pytest
import torch

from pyg_stmamba.data import TemporalGraph, knn_graph, load_npz, save_npz

VALUES = np.arange(24.0).reshape(6, 4) + 1


@pytest.fixture
def write(tmp_path):
    def write(**arrays):
        path = tmp_path / "city.npz"
        np.savez(path, **arrays)
        return path

    return write


def test_values_alone(write):
    graph = load_npz(write(values=VALUES))
    assert np.array_equal(graph.x[..., 0], VALUES.T)
    assert graph.num_edges == 0
    assert graph.name == "city"
    assert graph.node_id == ["0", "1", "2", "3"]


def test_everything(write):
    stamps = np.datetime64("2024-01-01", "s") + 600 * np.arange(6)
    mask = np.ones((6, 4), bool)
    mask[2, 3] = False
    graph = load_npz(
        write(
            values=np.stack([VALUES, -VALUES], axis=2),
            mask=mask,
            timestamps=stamps,
            edge_index=[[0, 1], [2, 3]],
            edge_weight=[0.5, 0.25],
            positions=np.zeros((4, 2)),
            node_ids=["a", "b", "c", "d"],
            channels=["speed", "flow"],
            units=["mph", "veh/h"],
            null_value=-1.0,
            name="town",
        )
    )
    assert graph.x.shape == (4, 6, 2)
    assert graph.x_mask[3, 2].tolist() == [False, False]
    assert graph.x_mask[0, 0].tolist() == [True, False]
    assert graph.timestamps[0, :2].tolist() == [1704067200, 1704067800]
    assert graph.edge_index.tolist() == [[0, 1], [2, 3]]
    assert graph.edge_attr.tolist() == [[0.5], [0.25]]
    assert graph.node_id == ["a", "b", "c", "d"]
    assert (graph.channel_names, graph.units) == (["speed", "flow"], ["mph", "veh/h"])
    assert (graph.name, graph.null_value, graph.pos.shape) == ("town", -1.0, (4, 2))


@pytest.mark.parametrize(
    "stamps",
    [
        np.array(["2024-01-01 00:00", "2024-01-01 00:10", "2024-01-01 00:20"]),
        np.array([1704067200, 1704067800, 1704068400]),
        np.array(["2024-01-01T00:00", "2024-01-01T00:10", "2024-01-01T00:20"], "datetime64[ns]"),
    ],
)
def test_timestamps_of_every_type(write, stamps):
    graph = load_npz(write(values=VALUES[:3], timestamps=stamps))
    assert graph.timestamps.tolist() == [[1704067200, 1704067800, 1704068400]]


def test_adjacency(write):
    adjacency = np.zeros((4, 4))
    adjacency[1, 3] = 0.7
    graph = load_npz(write(values=VALUES, adjacency=adjacency))
    assert graph.edge_index.tolist() == [[3], [1]]
    assert graph.edge_attr[0, 0] == pytest.approx(0.7)


def test_positions_join_the_nearest(write):
    positions = np.array([[34.0, -118.0], [34.1, -118.0], [34.3, -118.0], [34.31, -118.1]])
    path = write(values=VALUES, positions=positions)
    edges, length = knn_graph(positions, 2, metric="great-circle")
    graph = load_npz(path, neighbors=2, metric="great-circle")
    assert torch.equal(graph.edge_index, edges)
    expected = torch.exp(-((length / length.mean()) ** 2))
    assert torch.allclose(graph.edge_attr[:, 0], expected)
    assert load_npz(path).num_edges == 12
    alone = load_npz(write(values=VALUES[:, :1], positions=positions[:1]))
    assert (alone.num_nodes, alone.num_edges) == (1, 0)
    heap = load_npz(write(values=VALUES, positions=np.zeros((4, 2))))
    assert heap.edge_attr.unique().tolist() == [1.0]
    chosen = load_npz(write(values=VALUES, positions=positions, edge_index=[[0], [1]]))
    assert chosen.num_edges == 1


def test_nan_is_missing_without_a_mask_only(write):
    values = VALUES.copy()
    values[1, 2] = np.nan
    graph = load_npz(write(values=values))
    assert graph.x_mask.sum() == 23
    assert not graph.x_mask[2, 1, 0]
    with pytest.raises(ValueError, match=r"city.npz: values hold 1 NaN .* not masked"):
        load_npz(write(values=values, mask=np.ones((6, 4), bool)))
    values[0, 0] = np.inf
    with pytest.raises(ValueError, match="the first inf at step 0, node 0"):
        load_npz(write(values=values))


def test_null_value_of_the_caller_wins(write):
    path = write(values=VALUES - 1, null_value=23.0)
    assert not load_npz(path).x_mask[3, 5, 0]
    assert not load_npz(path, null_value=0.0).x_mask[0, 0, 0]
    assert load_npz(path, null_value=0.0).x_mask[3, 5, 0]


def test_gaps(write):
    path = write(values=VALUES, timestamps=60 * np.array([0, 1, 2, 3, 4, 9]))
    assert load_npz(path).num_steps == 10
    assert load_npz(path, gaps="keep").num_steps == 6


@pytest.mark.parametrize("full", [True, False])
def test_there_and_back(tmp_path, full):
    mask = VALUES != 7
    extra = {
        "timestamps": 300 * np.arange(6),
        "edge_index": [[0, 3], [1, 1]],
        "edge_weight": [[1.0, 2.0], [3.0, 4.0]],
        "positions": np.ones((4, 3)),
        "node_ids": list("wxyz"),
        "units": "mph",
        "null_value": 3.0,
        "name": "there",
    }
    graph = TemporalGraph.from_arrays(VALUES, mask=mask, **(extra if full else {}))
    save_npz(graph, tmp_path / "again.npz")
    again = load_npz(tmp_path / "again.npz")
    for key in ("x", "x_mask", "edge_index", "edge_attr", "pos", "timestamps"):
        ours, theirs = getattr(graph, key), getattr(again, key)
        assert (ours is None) == (theirs is None), key
        assert ours is None or torch.equal(ours, theirs), key
    for key in ("node_id", "channel_names", "units", "null_value"):
        assert getattr(graph, key) == getattr(again, key)
    assert os.listdir(tmp_path) == ["again.npz"]


def test_interrupted_writing_leaves_the_old_file(tmp_path, monkeypatch):
    graph = TemporalGraph.from_arrays(VALUES)
    path = tmp_path / "city.npz"
    save_npz(graph, path)
    before = path.read_bytes()

    def full(file, **arrays):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space left"):
        save_npz(graph, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["city.npz"]


def test_wrong_keys(write):
    with pytest.raises(ValueError, match=r"no key 'values'; the file has \['data'\], possible are"):
        load_npz(write(data=VALUES))
    with pytest.raises(ValueError, match=r"unknown key\(s\) \['weights'\]; .* 'edge_weight'"):
        load_npz(write(values=VALUES, weights=np.ones(3)))


def test_parts_that_do_not_fit_name_the_file(write):
    with pytest.raises(
        ValueError, match=r"city.npz: adjacency is \[3, 3\] but values have 4 nodes"
    ):
        load_npz(write(values=VALUES, adjacency=np.eye(3)))
    with pytest.raises(ValueError, match=r"city.npz: k must be"):
        load_npz(write(values=VALUES, positions=np.zeros((4, 2))), neighbors=0)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*absent.npz"):
        load_npz(tmp_path / "absent.npz")


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("/nonexistent/ran",)


def test_objects_are_refused(write):
    with pytest.raises(ValueError, match=r"city.npz cannot be read .* can run code"):
        load_npz(write(values=np.array([Malicious()], dtype=object)))


def test_damaged_files(write, tmp_path):
    whole = write(values=VALUES).read_bytes()
    path = tmp_path / "damaged.npz"
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0xFF
    np.save(tmp_path / "array.npy", VALUES)
    bare = (tmp_path / "array.npy").read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2], whole[:-5], bytes(flipped), bare):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged.npz cannot be read as an .npz file"):
            load_npz(path)
