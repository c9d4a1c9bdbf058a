import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.utils import to_dense_adj

from pyg_stmamba.datasets import LargeST, largest
from pyg_stmamba.datasets.pandas_hdf5 import open_frame, read_frame, write_frame

MEMBERS = {"SD": [5, 6], "GBA": [1, 2], "GLA": [3, 4, 7], "CA": list(range(8))}


def as_the_benchmark_does(path):
    frame = read_frame(path)
    table = pd.DataFrame(frame.values, pd.DatetimeIndex(frame.times), frame.columns)
    return table.resample("15min").mean().round(0).fillna(0)


@pytest.mark.parametrize("name", MEMBERS)
def test_sample(sample, name):
    root = sample("largest")
    graph = LargeST(root, name)[0]
    expected = as_the_benchmark_does(root / "raw" / "ca_his_raw_2019.h5")
    expected = expected.iloc[:, MEMBERS[name]]
    assert graph.node_id == list(expected.columns)
    np.testing.assert_array_equal(graph.x[..., 0].numpy().T, expected.to_numpy())
    np.testing.assert_array_equal(graph.x_mask[..., 0].numpy().T, expected.to_numpy() != 0)
    np.testing.assert_array_equal(graph.timestamps[0], expected.index.as_unit("s").asi8)
    weights = np.load(root / "raw" / "ca_rn_adj.npy")[np.ix_(MEMBERS[name], MEMBERS[name])]
    np.fill_diagonal(weights, 0)
    num_nodes = len(weights)
    dense = to_dense_adj(graph.edge_index, edge_attr=graph.edge_attr[:, 0], max_num_nodes=num_nodes)
    np.testing.assert_array_equal(dense[0].numpy(), weights)
    assert graph.step_seconds == 900


@pytest.mark.parametrize("rows", [1, 5, 100, 1000])
def test_averaging_does_not_depend_on_the_slabs(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(largest, "ROWS_AT_ONCE", rows)
    random = np.random.default_rng(0)
    values = random.integers(0, 40, (200, 3)).astype(float)
    values[random.random(values.shape) < 0.4] = np.nan
    index = np.datetime64("2020-02-28T23:25", "ns").astype(np.int64) + np.arange(200) * 300 * 10**9
    keep = np.delete(np.arange(200), np.arange(50, 75))
    write_frame(tmp_path / "a.h5", values[keep], index[keep], ["a", "b", "c"], "t")
    with open_frame(tmp_path / "a.h5") as frame:
        means, timestamps = largest.quarter_hours(frame, np.array([2, 0]))
    expected = as_the_benchmark_does(tmp_path / "a.h5")[["c", "a"]]
    np.testing.assert_array_equal(means, expected.to_numpy())
    np.testing.assert_array_equal(timestamps, expected.index.to_numpy())


def test_disorder_in_time_is_refused(tmp_path):
    write_frame(tmp_path / "a.h5", np.ones((3, 1)), np.array([0, 2, 1]) * 10**12, ["a"])
    with (
        open_frame(tmp_path / "a.h5") as frame,
        pytest.raises(ValueError, match="not increasing"),
    ):
        largest.quarter_hours(frame, np.array([0]))


def test_a_subset_of_the_sensors(sample):
    root = sample("largest")
    path = root / "raw" / "ca_his_raw_2019.h5"
    whole = LargeST(root, "CA")[0]
    frame = read_frame(path)
    write_frame(path, frame.values[:, [7, 2]], frame.times, [frame.columns[i] for i in (7, 2)], "t")
    part = LargeST(root, "CA", force_reload=True)[0]
    assert part.node_id == [whole.node_id[2], whole.node_id[7]]
    torch.testing.assert_close(part.x, whole.x[[2, 7]])
    with pytest.raises(ValueError, match=r"ca_his_raw_2019\.h5 has no sensor .* places in SD"):
        LargeST(root, "SD")


def test_sensors_without_a_value_in_the_year_are_left_out(sample):
    root = sample("largest")
    path = root / "raw" / "ca_his_raw_2019.h5"
    frame = read_frame(path)
    frame.values[:, 3] = np.nan
    write_frame(path, frame.values, frame.times, frame.columns, "t")
    with pytest.warns(UserWarning, match="LargeST GLA 2019: left out 1 of 3 sensors"):
        graph = LargeST(root, "GLA")[0]
    assert graph.node_id == [frame.columns[4], frame.columns[7]]
    assert graph.pos[0].tolist() == pytest.approx([33.4, -117.4])


def test_names_years_and_files(sample, tmp_path):
    with pytest.raises(ValueError, match="no 'LA'; choose one of SD, GBA, GLA, CA"):
        LargeST(tmp_path, "LA")
    with pytest.raises(ValueError, match="no year 2016; choose one of"):
        LargeST(tmp_path, "SD", 2016)
    root = sample("largest")
    assert LargeST(root).processed_file_names == ["largest_sd_2019.pt"]
    with pytest.raises(RuntimeError, match=r"ca_his_raw_2020\.h5 could not be downloaded"):
        LargeST(root, year=2020)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ca_meta.csv", b"ID,Lat,Lng\n1,2,3\n", "without the columns"),
        ("ca_meta.csv", b"ID,Lat,Lng,District,ID2\n1,2,3\n", "truncated"),
        ("ca_rn_adj.npy", b"\x93NUMPY", "truncated, or no array"),
        ("ca_his_raw_2019.h5", b"", "truncated, or not an HDF5 file"),
    ],
)
def test_damaged_files_are_named(sample, name, content, message):
    root = sample("largest")
    (root / "raw" / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        LargeST(root)
    assert name in str(caught.value)


def test_weights_too_few_for_the_table(sample):
    root = sample("largest")
    np.save(root / "raw" / "ca_rn_adj.npy", np.eye(5))
    with pytest.raises(ValueError, match=r"ca_rn_adj\.npy has shape \(5, 5\).* up to 6"):
        LargeST(root)
