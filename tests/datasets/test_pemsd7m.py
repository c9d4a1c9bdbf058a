import numpy as np
import pandas as pd
import pytest
from torch_geometric.utils import to_dense_adj

from pyg_stmamba.datasets import PEMSD7M
from pyg_stmamba.datasets.pemsd7m import working_days


def test_sample(sample):
    root = sample("pemsd7m")
    graph = PEMSD7M(root)[0]
    values = np.loadtxt(root / "raw" / "PeMSD7_V_228.csv", delimiter=",")
    np.testing.assert_array_equal(graph.x[..., 0].numpy().T, values.astype(np.float32))
    assert bool(graph.x_mask.all())
    # The paper's own formula: W / 10000, exp(-W² / 0.1), nothing under 0.5, no diagonal.
    distances = np.loadtxt(root / "raw" / "PeMSD7_W_228.csv", delimiter=",") / 10000
    weights = np.exp(-(distances**2) / 0.1)
    weights *= (weights >= 0.5) * (1 - np.eye(3))
    assert np.count_nonzero(weights) == 4
    dense = to_dense_adj(graph.edge_index, edge_attr=graph.edge_attr[:, 0], max_num_nodes=3)[0]
    np.testing.assert_allclose(dense, weights, rtol=1e-6)


def test_rows_are_sources(sample):
    root = sample("pemsd7m")
    path = root / "raw" / "PeMSD7_W_228.csv"
    path.write_text("0,1000,99999\n99999,0,99999\n99999,99999,0\n")
    assert PEMSD7M(root)[0].edge_index.tolist() == [[0], [1]]


def test_weekends_are_absent(sample):
    graph = PEMSD7M(sample("pemsd7m"))[0]
    expected = pd.date_range("2012-05-01", "2012-07-15", freq="5min")
    expected = expected[expected.day_of_week < 5]
    seconds = expected.as_unit("s").asi8
    np.testing.assert_array_equal(graph.timestamps[0], seconds[: graph.num_steps])
    np.testing.assert_array_equal(working_days(12672).astype(np.int64), seconds[:12672])
    assert str(working_days(12672)[-1]) == "2012-06-29T23:55:00"
    assert graph.step_seconds == 300


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("PeMSD7_V_228.csv", "1,2,3\n4,5", "truncated, or no table"),
        ("PeMSD7_V_228.csv", "", "is empty"),
        ("PeMSD7_V_228.csv", "1,2,x\n", "truncated, or no table"),
        ("PeMSD7_V_228.csv", "1,2,nan\n", "NaN or infinity"),
        ("PeMSD7_W_228.csv", "0,1\n1,0\n", r"\(2, 2\).*need \(3, 3\)"),
    ],
)
def test_damaged_files_are_named(sample, name, content, message):
    root = sample("pemsd7m")
    (root / "raw" / name).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        PEMSD7M(root)
    assert name in str(caught.value)
