import shutil

import numpy as np
import pytest
import torch
from torch_geometric.utils import to_dense_adj

from pyg_stmamba.data import time_of_day
from pyg_stmamba.datasets import PEMSBAY
from pyg_stmamba.datasets.pandas_hdf5 import write_frame
from pyg_stmamba.datasets.restricted_pickle import load_pickle


def test_sample(sample):
    graph = PEMSBAY(sample("pems_bay"))[0]
    assert graph.node_id == ["800001", "800002", "800003", "800004"]
    assert graph.pos[1].tolist() == pytest.approx([37.31, -121.9])
    assert torch.equal(graph.x_mask, graph.x != 0)
    assert int((~graph.x_mask).sum()) == 2
    assert graph.edge_index.tolist() == [[1, 0, 2, 1, 3, 2], [0, 1, 1, 2, 2, 3]]


def test_the_hour_that_summer_time_skips_stays_absent(sample):
    graph = PEMSBAY(sample("pems_bay"))[0]
    steps = graph.timestamps[0].diff()
    assert int((steps != 300).sum()) == 1
    after = int((steps != 300).nonzero()) + 1
    assert int(steps[after - 1]) == 3900
    assert np.datetime64(int(graph.timestamps[0, after]), "s") == np.datetime64("2017-03-12T03:00")
    assert float(time_of_day(graph.timestamps)[0, after]) == pytest.approx(3 / 24)
    assert graph.step_seconds == 300


def test_the_published_graph(shared_data, tmp_path):
    graphs = shared_data / "graphs"
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("adj_mx_bay.pkl", "graph_sensor_locations_bay.csv"):
        shutil.copy(graphs / name, raw / name)
    ids, _, weights = load_pickle(graphs / "adj_mx_bay.pkl")
    index = np.datetime64("2017-01-01", "ns").astype(np.int64) + np.arange(30) * 300 * 10**9
    write_frame(
        raw / "pems-bay.h5", np.full((30, 325), 60.0), index, [int(i) for i in ids], "speed"
    )
    graph = PEMSBAY(tmp_path)[0]
    assert (graph.num_nodes, graph.num_edges) == (325, 2369)
    dense = to_dense_adj(graph.edge_index, edge_attr=graph.edge_attr[:, 0], max_num_nodes=325)[0]
    expected = weights.copy()
    np.fill_diagonal(expected, 0)
    np.testing.assert_array_equal(dense.numpy(), expected)
    places = np.genfromtxt(graphs / "graph_sensor_locations_bay.csv", delimiter=",")
    np.testing.assert_allclose(graph.pos, places[:, 1:], atol=1e-4)
    assert [float(i) for i in graph.node_id] == places[:, 0].tolist()


def test_a_damaged_file_is_named(sample):
    root = sample("pems_bay")
    (root / "raw" / "pems-bay.h5").write_bytes(b"<html>log in</html>")
    with pytest.raises(ValueError, match=r"pems-bay\.h5: truncated, or not an HDF5 file"):
        PEMSBAY(root)
