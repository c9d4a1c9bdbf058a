import csv
import shutil

import numpy as np
import pytest
import torch
from torch_geometric.utils import contains_self_loops, is_undirected, to_dense_adj

from pyg_stmamba.datasets import PEMS

NAMES = ["PEMS03", "PEMS04", "PEMS07", "PEMS08"]
FIRST = dict(zip(NAMES, ["2018-09-01", "2018-01-01", "2017-05-01", "2016-07-01"], strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_sample(sample, name):
    root = sample("pems")
    graph = PEMS(root, name)[0]
    with np.load(root / "raw" / f"{name}.npz") as content:
        values = content["data"]
    np.testing.assert_array_equal(graph.x.numpy().transpose(1, 0, 2), values.astype(np.float32))
    np.testing.assert_array_equal(graph.x_mask[..., 0].numpy().T, values[..., 0] != 0)
    assert bool(graph.x_mask[..., 1:].all())
    assert graph.channel_names == ["flow", "occupancy", "speed"][: values.shape[2]]
    assert np.datetime64(int(graph.timestamps[0, 0]), "s") == np.datetime64(FIRST[name])
    assert graph.timestamps[0].diff().unique().tolist() == [300]
    assert graph.name == name
    cost = np.array([0.9, 1.4, 2.1])
    weight = np.exp(-((cost / cost.std()) ** 2))
    expected = np.zeros((4, 4))
    for (a, b), w in zip([(0, 1), (1, 2), (3, 2)], weight, strict=True):
        expected[a, b] = expected[b, a] = w
    dense = to_dense_adj(graph.edge_index, edge_attr=graph.edge_attr[:, 0], max_num_nodes=4)[0]
    np.testing.assert_allclose(dense, expected, rtol=1e-5)
    assert graph.node_id[0] == ("700101" if name == "PEMS03" else "0")


def test_the_four_share_a_folder(sample):
    root = sample("pems")
    files = {PEMS(root, name).processed_file_names[0] for name in NAMES}
    assert files == {"pems03.pt", "pems04.pt", "pems07.pt", "pems08.pt"}
    assert PEMS(root).name == "PEMS08"


@pytest.mark.parametrize(
    ("name", "nodes", "edges"),
    [("PEMS03", 358, 1092), ("PEMS04", 307, 680), ("PEMS07", 883, 1732), ("PEMS08", 170, 548)],
)
def test_the_published_neighbours(shared_data, tmp_path, name, nodes, edges):
    raw = tmp_path / "raw"
    raw.mkdir()
    for path in (shared_data / "graphs").glob(f"{name}.*"):
        shutil.copy(path, raw / path.name)
    np.savez(raw / f"{name}.npz", data=np.ones((30, nodes, 1)))
    graph = PEMS(tmp_path, name)[0]
    assert (graph.num_nodes, graph.num_edges) == (nodes, edges)
    assert is_undirected(graph.edge_index, graph.edge_attr)
    assert not contains_self_loops(graph.edge_index)
    with open(raw / f"{name}.csv", newline="") as file:
        rows = [row for row in csv.reader(file) if row][1:]
    pairs = {frozenset(row[:2]) for row in rows if row[0] != row[1]}
    ids = graph.node_id
    assert {frozenset((ids[a], ids[b])) for a, b in graph.edge_index.T.tolist()} == pairs


def test_sensors_without_flow_are_left_out(sample):
    root = sample("pems")
    path = root / "raw" / "PEMS03.npz"
    whole = PEMS(root, "PEMS03")[0]
    with np.load(path) as content:
        values = content["data"]
    values[:, 1] = 0
    np.savez(path, data=values)
    with pytest.warns(UserWarning, match="PEMS03: left out 1 of 4 sensors .*: 700105"):
        graph = PEMS(root, "PEMS03", force_reload=True)[0]
    assert graph.node_id == ["700101", "700109", "700113"]
    torch.testing.assert_close(graph.x, whole.x[[0, 2, 3]])
    assert graph.edge_index.tolist() == [[2, 1], [1, 2]]


def test_nan_is_missing(sample):
    root = sample("pems")
    path = root / "raw" / "PEMS04.npz"
    with np.load(path) as content:
        values = content["data"]
    values[5, 2, 1] = np.nan
    np.savez(path, data=values)
    graph = PEMS(root, "PEMS04")[0]
    assert not bool(graph.x_mask[2, 5, 1])
    assert float(graph.x[2, 5, 1]) == 0


def test_unknown_names_list_the_choices(tmp_path):
    with pytest.raises(ValueError, match="'PEMS05'; choose one of PEMS03, PEMS04, PEMS07, PEMS08"):
        PEMS(tmp_path, "PEMS05")


def damaged(content):
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("PEMS08.npz", lambda p: p.write_bytes(p.read_bytes()[:500]), "truncated or corrupted"),
        ("PEMS08.npz", lambda p: np.savez(p, other=np.ones(3)), "array named data"),
        ("PEMS08.npz", lambda p: np.savez(p, data=np.ones((30, 4))), r"shape \(30, 4\)"),
        ("PEMS08.npz", lambda p: np.savez(p, data=np.array([{}])), "truncated or corrupted"),
        ("PEMS08.csv", damaged(b"from,to,cost\n0,1\n"), "truncated, or no table"),
        ("PEMS08.csv", damaged(b""), "truncated, or no table"),
        ("PEMS08.csv", damaged(b"from,to,cost\n0,1,far\n"), "has to be a distance"),
        ("PEMS08.csv", damaged(b"from,to,cost\n0,4,1.0\n"), "knows nothing of|4"),
    ],
)
def test_damaged_files_are_named(sample, name, change, message):
    root = sample("pems")
    change(root / "raw" / name)
    with pytest.raises(ValueError, match=message) as caught:
        PEMS(root)
    assert name in str(caught.value)


def test_the_list_of_sensors_has_to_fit(sample):
    root = sample("pems")
    (root / "raw" / "PEMS03.txt").write_text("700101\n")
    with pytest.raises(ValueError, match=r"PEMS03\.txt names 1 sensors, PEMS03\.npz has 4"):
        PEMS(root, "PEMS03")
