import csv
import os
import shutil

import numpy as np
import pytest
import torch
from torch_geometric.utils import to_dense_adj

from pyg_stmamba.data import split_windows
from pyg_stmamba.datasets import METRLA
from pyg_stmamba.datasets.pandas_hdf5 import read_frame, write_frame
from pyg_stmamba.datasets.restricted_pickle import load_pickle


@pytest.fixture(scope="module")
def metr_la_29(shared_data, tmp_path_factory):
    root = tmp_path_factory.mktemp("metr_la")
    shutil.copytree(shared_data / "metr_la" / "raw", root / "raw")
    return METRLA(root)


def test_real_sizes(metr_la_29):
    graph = metr_la_29[0]
    assert (graph.num_nodes, graph.num_steps, graph.x.size(-1)) == (29, 34272, 1)
    assert graph.x.dtype == torch.float32
    assert float((graph.x == 0).double().mean()) == pytest.approx(0.0775, abs=5e-5)
    assert torch.equal(graph.x_mask, graph.x != 0)
    first = np.datetime64(int(graph.timestamps[0, 0]), "s")
    last = np.datetime64(int(graph.timestamps[0, -1]), "s")
    assert (first, last) == (np.datetime64("2012-03-01T00:00"), np.datetime64("2012-06-27T23:55"))
    assert graph.step_seconds == 300
    assert graph.units == ["mi/h"]
    assert graph.null_value == 0


def test_real_values_and_graph(metr_la_29, shared_data):
    graph, raw = metr_la_29[0], shared_data / "metr_la" / "raw"
    frame = read_frame(raw / "metr-la.h5")
    assert graph.node_id == frame.columns
    np.testing.assert_array_equal(graph.x[..., 0].numpy().T, frame.values.astype(np.float32))
    ids, _, weights = load_pickle(raw / "adj_mx.pkl")
    rows = [ids.index(name) for name in graph.node_id]
    expected = weights[np.ix_(rows, rows)].copy()
    np.fill_diagonal(expected, 0)
    dense = to_dense_adj(graph.edge_index, edge_attr=graph.edge_attr[:, 0], max_num_nodes=29)[0]
    np.testing.assert_array_equal(dense.numpy(), expected)
    with open(raw / "graph_sensor_locations.csv", newline="") as file:
        places = {row["sensor_id"]: row for row in csv.DictReader(file)}
    for name, (lat, lon) in zip(graph.node_id, graph.pos.tolist(), strict=True):
        assert lat == pytest.approx(float(places[name]["latitude"]), abs=1e-5)
        assert lon == pytest.approx(float(places[name]["longitude"]), abs=1e-4)


def test_real_values_agree_with_an_independent_week(metr_la_29, shared_data):
    graph = metr_la_29[0]
    with open(shared_data / "los_loop" / "los_speed.csv", newline="") as file:
        header, *rows = csv.reader(file)
    week = np.array(rows, dtype=np.float64)
    places = [header.index(name) for name in graph.node_id]
    ours, mask = graph.x[:, : len(week), 0].numpy().T, graph.x_mask[:, : len(week), 0].numpy().T
    assert mask.mean() > 0.8
    np.testing.assert_allclose(ours[mask], week[:, places][mask], rtol=1e-6)


def test_published_windows(metr_la_29):
    protocol, graph = metr_la_29.protocol, metr_la_29[0]
    windows = split_windows(
        graph.num_steps, protocol.window, protocol.horizon, protocol.split, protocol.order
    )
    assert [len(windows[part]) for part in ("train", "val", "test")] == [23974, 3425, 6850]


def test_sample(sample):
    root = sample("metr_la")
    graph = METRLA(root)[0]
    assert graph.node_id == ["900001", "900002", "900003", "900004"]
    # Nearest neighbours, driven upwards at half the weight; the fifth sensor is cut off.
    dense = to_dense_adj(graph.edge_index, edge_attr=graph.edge_attr[:, 0], max_num_nodes=4)[0]
    road = np.abs(np.subtract.outer(np.arange(4), np.arange(4))) * 1500.0
    expected = np.exp(-((road / 2500) ** 2)) * np.where(np.triu(np.ones((4, 4)), 1), 0.5, 1.0)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(dense, np.where(expected >= 0.1, expected, 0), rtol=1e-6)
    assert METRLA(root).processed_file_names == ["metr_la.pt"]


def test_any_order_and_subset_of_columns(sample):
    root = sample("metr_la")
    whole = METRLA(root)[0]
    frame = read_frame(root / "raw" / "metr-la.h5")
    write_frame(
        root / "raw" / "metr-la.h5", frame.values[:, [3, 1]], frame.times, ["900004", "900002"]
    )
    part = METRLA(root, force_reload=True)[0]
    assert part.node_id == ["900004", "900002"]
    torch.testing.assert_close(part.x, whole.x[[3, 1]])
    torch.testing.assert_close(part.pos, whole.pos[[3, 1]])


def test_nan_is_missing_too(sample):
    root = sample("metr_la")
    frame = read_frame(root / "raw" / "metr-la.h5")
    frame.values[7, 2] = np.nan
    write_frame(root / "raw" / "metr-la.h5", frame.values, frame.times, frame.columns)
    graph = METRLA(root)[0]
    assert not bool(graph.x_mask[2, 7])
    assert float(graph.x[2, 7]) == 0


@pytest.mark.parametrize("name", ["metr-la.h5", "adj_mx.pkl", "graph_sensor_locations.csv"])
def test_a_truncated_file_is_named(sample, name):
    root = sample("metr_la")
    path = root / "raw" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=name):
        METRLA(root)
    assert not os.listdir(root / "processed")


def test_files_placed_by_hand_are_not_downloaded(sample, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("asked the network")

    monkeypatch.setattr("urllib.request.urlopen", never)
    root = sample("metr_la")
    METRLA(root)
    (root / "raw" / "adj_mx.pkl").unlink()
    with pytest.raises(AssertionError, match="asked the network"):
        METRLA(root)


def test_a_damaged_graph_file_is_told_by_its_hash(shared_data, sample):
    root = sample("metr_la")
    content = bytearray((shared_data / "metr_la" / "raw" / "adj_mx.pkl").read_bytes())
    content[300_000] ^= 1
    (root / "raw" / "adj_mx.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"adj_mx\.pkl has the size of the upstream file, but SHA"):
        METRLA(root)
