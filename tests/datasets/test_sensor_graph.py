import csv
import pickle

import numpy as np
import pytest
import torch
from torch_geometric.utils import to_dense_adj

from pyg_stmamba.datasets.restricted_pickle import load_pickle
from pyg_stmamba.datasets.sensor_graph import (
    heard_nodes,
    positions_of,
    read_locations,
    read_sensor_graph,
)

WEIGHTS = np.array([[1, 0.5, 0], [0, 1, 0.25], [0.75, 0, 1]], dtype=np.float32)


def write(path, ids=("a", "b", "c"), weights=WEIGHTS):
    ids = list(ids)
    path.write_bytes(pickle.dumps([ids, {n: i for i, n in enumerate(ids)}, weights], protocol=2))
    return path


def as_dict(edges, weights):
    return {tuple(e): w for e, w in zip(edges.T.tolist(), weights.tolist(), strict=True)}


def test_rows_are_sources(tmp_path):
    edges, weights = read_sensor_graph(write(tmp_path / "a.pkl"), ["a", "b", "c"])
    assert as_dict(edges, weights) == {(0, 1): 0.5, (1, 2): 0.25, (2, 0): 0.75}


def test_is_cut_to_the_sensors_in_their_order(tmp_path):
    edges, weights = read_sensor_graph(write(tmp_path / "a.pkl"), ["c", "a"])
    assert as_dict(edges, weights) == {(0, 1): 0.75}


def test_names_sensors_it_lacks(tmp_path):
    with pytest.raises(ValueError, match=r"a\.pkl knows nothing of 2 of 3 sensors, such as x, y"):
        read_sensor_graph(write(tmp_path / "a.pkl"), ["a", "x", "y"])


@pytest.mark.parametrize(
    "content",
    [
        ["a"],
        {"a": 1},
        [["a", "b"], {}, WEIGHTS],
        [["a", "b", "c"], {}, WEIGHTS * np.nan],
        [["a", "b", "c"], {}, WEIGHTS.tolist()],
        [["a", "b", "c"], {}, WEIGHTS.astype(str)],
    ],
)
def test_says_what_it_expected(tmp_path, content):
    (tmp_path / "odd.pkl").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match=r"odd\.pkl: expected"):
        read_sensor_graph(tmp_path / "odd.pkl", ["a"])


def test_the_published_weights_run_from_the_first_to_the_second(shared_data):
    # The published distances are driven from the first to the second sensor; DCRNN makes weights
    # of them with their standard deviation as scale.
    graphs = shared_data / "graphs"
    with open(graphs / "distances_bay_2017.csv", newline="") as file:
        road = {(a, b): float(d) for a, b, d in csv.reader(file)}
    ids = load_pickle(graphs / "adj_mx_bay.pkl")[0]
    edges, weights = read_sensor_graph(graphs / "adj_mx_bay.pkl", ids)
    assert edges.shape == (2, 2369)
    scale = np.std(list(road.values()))
    for (a, b), weight in as_dict(edges, weights).items():
        distance = road[ids[a], ids[b]]
        assert weight == pytest.approx(np.exp(-((distance / scale) ** 2)), abs=1e-4)


def test_a_subset_of_the_published_graph(shared_data):
    path = shared_data / "metr_la" / "raw" / "adj_mx.pkl"
    ids, _, weights = load_pickle(path)
    some = ids[5:80:3]
    dense = to_dense_adj(*(read_sensor_graph(path, some)[:1]), max_num_nodes=len(some))[0]
    expected = weights[5:80:3, 5:80:3].copy()
    np.fill_diagonal(expected, 0)
    np.testing.assert_array_equal(dense.numpy() > 0, expected > 0)


def test_locations(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("index,sensor_id,latitude,longitude\n0,a,1,2\n1,b,3,4\n")
    np.testing.assert_array_equal(read_locations(path, ["b", "a"]), [[3, 4], [1, 2]])
    path.write_text("a,1,2\nb,3,4\n")
    header = ("sensor_id", "latitude", "longitude")
    np.testing.assert_array_equal(read_locations(path, ["b"], header), [[3, 4]])


@pytest.mark.parametrize("header", ["", "sensor_id,latitude\n", "sensor_id,latitude,longitude\n"])
def test_damaged_locations(tmp_path, header):
    (tmp_path / "odd.csv").write_text(header + "a,1\n")
    with pytest.raises(ValueError, match=r"odd\.csv"):
        read_locations(tmp_path / "odd.csv", ["a"])


def test_positions_keep_the_order_asked_for():
    assert positions_of(["c", "a"], ["a", "b", "c"], "x").tolist() == [2, 0]


def test_heard_nodes_warns_of_the_silent_ones():
    mask = np.zeros((5, 3, 2), dtype=bool)
    mask[4, 0, 1] = mask[0, 2, 0] = True
    with pytest.warns(UserWarning, match="SD: left out 1 of 3 sensors without any value: b"):
        assert heard_nodes(mask, ["a", "b", "c"], "SD").tolist() == [0, 2]
    assert heard_nodes(mask[:, [0, 2]], ["a", "c"], "SD").tolist() == [0, 1]
    assert torch.from_numpy(heard_nodes(mask[..., :, :1][:, 2:], ["c"], "x")).tolist() == [0]
