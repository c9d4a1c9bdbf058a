import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.utils import to_dense_adj

from pyg_stmamba.datasets import AQI36


def table(path):
    return pd.read_csv(path, index_col=0, parse_dates=True)


@pytest.fixture(scope="module")
def real(shared_data, tmp_path_factory):
    root = tmp_path_factory.mktemp("aqi36")
    shutil.copytree(shared_data / "aqi36", root / "raw")
    return root


def test_real_values(real):
    graph = AQI36(real)[0]
    expected = table(real / "raw" / "pm25_ground.txt")
    assert (graph.num_nodes, graph.num_steps) == (36, 8759)
    assert float((~graph.x_mask).double().mean()) == pytest.approx(0.132, abs=5e-4)
    np.testing.assert_array_equal(graph.x_mask[..., 0].numpy().T, expected.notna().to_numpy())
    np.testing.assert_array_equal(graph.x[..., 0].numpy().T, expected.fillna(0).to_numpy())
    np.testing.assert_array_equal(graph.timestamps[0], expected.index.as_unit("s").asi8)
    assert graph.node_id == list(expected.columns)
    assert graph.step_seconds == 3600
    assert graph.null_value is None


def test_real_masked_copy(real):
    graph = AQI36(real, masked=True)[0]
    ground = table(real / "raw" / "pm25_ground.txt")
    shown = table(real / "raw" / "pm25_missing.txt")
    np.testing.assert_array_equal(graph.x_mask[..., 0].numpy().T, shown.notna().to_numpy())
    np.testing.assert_array_equal(graph.x[..., 0].numpy().T, shown.fillna(0).to_numpy())
    hidden = (shown.isna() & ground.notna()).to_numpy()
    assert hidden.mean() > 0.1
    np.testing.assert_array_equal(graph.target_mask[..., 0].numpy().T, hidden)
    np.testing.assert_array_equal(
        graph.target[..., 0].numpy().T, np.where(hidden, ground.fillna(0), 0)
    )
    assert not bool((graph.target_mask & graph.x_mask).any())


def test_real_graph(real):
    graph = AQI36(real)[0]
    assert graph.num_edges == 654
    places = np.genfromtxt(real / "raw/pm25_latlng.txt", delimiter=",", skip_header=1)
    # The law of cosines on the sphere, where the class uses the haversine formula.
    lat, lon = np.radians(places[:, 1:]).T
    cosine = np.outer(np.sin(lat), np.sin(lat)) + np.outer(np.cos(lat), np.cos(lat)) * np.cos(
        np.subtract.outer(lon, lon)
    )
    distance = np.arccos(np.clip(cosine, -1, 1))
    weights = np.exp(-((distance / distance.std()) ** 2))
    weights = np.where((weights >= 0.1) & ~np.eye(36, dtype=bool), weights, 0)
    dense = to_dense_adj(graph.edge_index, edge_attr=graph.edge_attr[:, 0], max_num_nodes=36)[0]
    np.testing.assert_allclose(dense, weights, atol=1e-4)


def test_sample(sample):
    root = sample("aqi36")
    plain, masked = AQI36(root), AQI36(root, masked=True)
    assert plain.processed_file_names != masked.processed_file_names
    assert int(masked[0].x_mask.sum()) < int(plain[0].x_mask.sum())
    assert plain.protocol.horizon == 24
    assert "target" not in plain[0]
    whole = masked[0].x + masked[0].target
    torch.testing.assert_close(whole, plain[0].x)


def test_a_subset_of_the_stations(sample):
    root = sample("aqi36")
    whole = AQI36(root)[0]
    part = table(root / "raw" / "pm25_ground.txt")[["009004", "009002"]]
    part.index.name = "datetime"
    part.to_csv(root / "raw" / "pm25_ground.txt", date_format="%Y/%m/%d %H:%M:%S")
    graph = AQI36(root, force_reload=True)[0]
    assert graph.node_id == ["009004", "009002"]
    torch.testing.assert_close(graph.x, whole.x[[3, 1]])
    torch.testing.assert_close(graph.pos, whole.pos[[3, 1]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-8], "line 241 has"),
        (lambda text: text.replace("datetime", "when", 1), "starts with"),
        (lambda text: text.replace(",6", ",six", 1), "not a table of hours and numbers"),
        (lambda text: text.replace("2014/05/01 01", "2014/55/01 01", 1), "not a table of hours"),
        (lambda text: "", "starts with"),
    ],
)
def test_damaged_files_are_named(sample, change, message):
    root = sample("aqi36")
    path = root / "raw" / "pm25_ground.txt"
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=message) as caught:
        AQI36(root)
    assert "pm25_ground.txt" in str(caught.value)


def test_the_masked_copy_has_to_fit(sample):
    root = sample("aqi36")
    path = root / "raw" / "pm25_missing.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(ValueError, match=r"pm25_missing\.txt has other stations or hours"):
        AQI36(root, masked=True)
