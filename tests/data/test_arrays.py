import numpy as np
import pytest
import scipy.sparse as sp
import torch

from pyg_stmamba.data import TemporalGraph

VALUES = np.arange(12.0).reshape(4, 3) + 1


def build(values=VALUES, **kwargs):
    return TemporalGraph.from_arrays(values, **kwargs)


@pytest.mark.parametrize(
    "values",
    [VALUES, VALUES[:, :, None], VALUES.tolist(), torch.from_numpy(VALUES), VALUES.astype("i2")],
)
def test_values_time_first_to_nodes_first(values):
    graph = build(values)
    assert graph.x.shape == (3, 4, 1)
    assert graph.x.dtype == torch.float32
    assert graph.x.is_contiguous()
    assert np.array_equal(graph.x[:, :, 0].numpy(), VALUES.T)


def test_arguments_are_left_alone():
    values, mask = VALUES.astype(np.float32), np.ones((4, 3), bool)
    edges, weight = torch.tensor([[0], [1]]), torch.ones(1)
    positions, stamps = np.zeros((3, 2), np.float32), np.arange(4)
    graph = build(
        values,
        mask=mask,
        edge_index=edges,
        edge_weight=weight,
        positions=positions,
        timestamps=stamps,
    )
    for tensor in (graph.x, graph.x_mask, graph.edge_index, graph.pos, graph.timestamps):
        tensor.zero_()
    graph.edge_attr.zero_()
    assert np.array_equal(values, VALUES)
    assert mask.all()
    assert edges.tolist() == [[0], [1]]
    assert weight.tolist() == [1]
    assert stamps.tolist() == [0, 1, 2, 3]


def test_read_only_arrays_are_fine():
    values, edges = VALUES.copy(), np.array([[0], [1]])
    values.flags.writeable = edges.flags.writeable = False
    build(values, edge_index=edges, edge_weight=values[:1, 0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(4), r"\[T, N\] or \[T, N, C\] and not empty, got shape \[4\]"),
        (np.zeros((1, 2, 3, 4)), r"got shape \[1, 2, 3, 4\]"),
        (np.zeros((0, 3)), r"got shape \[0, 3\]"),
        (np.array([["a"]]), "real numbers, got <U1"),
        (np.zeros((2, 2), complex), "real numbers, got complex128"),
    ],
)
def test_values_that_are_none(values, message):
    with pytest.raises(ValueError, match=message):
        build(values)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_not_finite_without_a_mask_says_how_to_pass_one(bad):
    values = VALUES.copy()
    values[2, 1] = bad
    with pytest.raises(ValueError, match=r"1 NaN or infinite .* step 2, node 1, .* mask=~np.isnan"):
        build(values)
    with pytest.raises(ValueError, match="not masked"):
        build(values, mask=np.ones((4, 3), bool))
    graph = build(values, mask=np.abs(values) < 1e30)
    assert graph.x[1, 2, 0] == 0
    assert not graph.x_mask[1, 2, 0]
    assert int((~graph.x_mask).sum()) == 1
    assert torch.equal(graph.x[0], torch.tensor([[1.0], [4], [7], [10]]))


def test_mask_of_steps_and_nodes_holds_for_all_channels():
    mask = np.array([[True, False], [True, True]])
    graph = build(np.ones((2, 2, 3)), mask=mask)
    assert torch.equal(graph.x_mask, torch.tensor(mask.T)[:, :, None].expand(2, 2, 3))
    assert torch.equal(graph.x, graph.x_mask.float())


def test_bad_masks():
    with pytest.raises(ValueError, match=r"boolean, True = observed, got int64; .*astype\(bool\)"):
        build(mask=np.ones((4, 3), int))
    for shape in [(3, 4), (4, 3, 2), (4,)]:
        with pytest.raises(ValueError, match=r"as the values \[4, 3, 1\], got"):
            build(mask=np.ones(shape, bool))


@pytest.mark.parametrize(("null", "stored"), [(0.0, 0.0), (-99.0, 0.0), (float("nan"), 0.0)])
def test_null_value_means_missing(null, stored):
    values = VALUES.copy()
    values[1, 2] = null
    graph = build(values, null_value=null)
    assert not graph.x_mask[2, 1, 0]
    assert int((~graph.x_mask).sum()) == 1
    assert graph.x[2, 1, 0] == stored
    assert graph.null_value == pytest.approx(null, nan_ok=True)


def test_zero_is_a_value_unless_said_otherwise():
    values = VALUES - 1
    assert bool(build(values).x_mask.all())
    assert build(values).null_value is None


def test_null_value_and_mask_add_up():
    mask = np.ones((4, 3), bool)
    mask[3, 0] = False
    values = VALUES.copy()
    values[0, 0] = 0
    assert build(values, mask=mask, null_value=0.0).x_mask[0, :, 0].tolist() == [
        False,
        True,
        True,
        False,
    ]


def test_gaps_are_filled_with_missing_steps():
    stamps = np.array(
        ["2020-01-01T00:00", "2020-01-01T00:05", "2020-01-01T00:10", "2020-01-01T00:25"],
        "datetime64[s]",
    )
    graph = build(timestamps=stamps)
    assert graph.num_steps == 6
    assert graph.x_mask[:, :, 0].tolist() == [[True, True, True, False, False, True]] * 3
    assert graph.x[1, :, 0].tolist() == [2, 5, 8, 0, 0, 11]
    assert graph.timestamps.diff().tolist() == [[300] * 5]
    assert graph.step_seconds == 300


def test_gaps_kept():
    stamps = np.array([0, 300, 600, 1501])
    graph = build(timestamps=stamps, gaps="keep")
    assert graph.timestamps.tolist() == [stamps.tolist()]
    assert graph.num_steps == 4
    assert graph.step_seconds == 300
    with pytest.raises(ValueError, match="regular grid"):
        build(timestamps=stamps)
    with pytest.raises(ValueError, match=r"unknown gaps 'drop', choose from \['fill', 'keep'\]"):
        build(gaps="drop")


def test_timestamps_that_do_not_fit():
    with pytest.raises(ValueError, match="must increase strictly, but step 2"):
        build(timestamps=[0, 300, 200, 900])
    with pytest.raises(ValueError, match="3 timestamps for values of 4 steps"):
        build(timestamps=[0, 300, 600])


@pytest.mark.parametrize("form", [np.array, torch.tensor, sp.csr_matrix, sp.coo_array, list])
def test_adjacency_is_target_by_source(form):
    adjacency = [[0.0, 0.5, 0.0], [0.0, 0.0, 0.0], [0.25, 0.0, 1.0]]
    graph = build(adjacency=form(adjacency))
    assert graph.edge_index.tolist() == [[1, 0, 2], [0, 2, 2]]
    assert graph.edge_attr.tolist() == [[0.5], [0.25], [1.0]]
    assert (
        torch.tensor(adjacency)
        .matmul(graph.x[:, 0])
        .allclose(
            torch.zeros(3, 1).index_add(
                0, graph.edge_index[1], graph.edge_attr * graph.x[graph.edge_index[0], 0]
            )
        )
    )


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (
            {"edge_index": np.array([[0], [3]])},
            r"from 0 to 2 for 3 nodes, .* \[0, 3\] at position 0",
        ),
        ({"edge_index": np.array([[0, 0], [1, -1]])}, r"1 edge\(s\) .* \[0, -1\] at position 1"),
        ({"edge_index": np.array([[0.0], [1.0]])}, "integers .int64., got torch.float64"),
        ({"edge_index": torch.tensor([[True], [False]])}, "got torch.bool"),
        ({"edge_index": np.array([["a"], ["b"]])}, "integers .* got <U1"),
        ({"edge_index": np.zeros((5, 2), int)}, r"\[2, E\], got \[5, 2\]; transpose it"),
        ({"edge_index": np.zeros(4, int)}, r"\[2, E\], got \[4\]"),
        ({"adjacency": np.zeros((3, 4))}, r"square \[N, N\], got shape \[3, 4\]"),
        ({"adjacency": np.eye(4)}, r"adjacency is \[4, 4\] but values have 3 nodes"),
        ({"adjacency": np.full((3, 3), np.nan)}, "9 NaN or infinite"),
        ({"adjacency": np.eye(3), "edge_index": np.zeros((2, 1), int)}, "not both"),
        ({"edge_weight": [1.0]}, "edge_weight needs edge_index"),
        ({"edge_index": [[0], [1]], "edge_weight": [1.0, 2.0]}, r"E = 1 edges, got \[2\]"),
        ({"edge_index": [[0], [1]], "edge_weight": [np.nan]}, "edge_weight.* NaN"),
        ({"edge_index": [[0], [1]], "edge_weight": ["far"]}, "edge_weight must hold real numbers"),
        ({"positions": np.zeros((2, 2))}, r"N = 3 nodes, got \[2, 2\]"),
        ({"positions": np.full((3, 2), np.nan)}, "positions hold NaN"),
        ({"node_ids": ["a", "b"]}, r"node_ids must be 3 name\(s\), got 2: a, b"),
        ({"node_ids": ["a", "b", "a"]}, "3 different names, got 3 with 2 different"),
        ({"channels": ["speed", "flow"]}, r"channels must be 1 name\(s\), got 2"),
        ({"units": ["mph", "veh/h"]}, r"units must be 1 name\(s\), got 2"),
    ],
)
def test_graphs_that_do_not_fit(graph, message):
    with pytest.raises(ValueError, match=message):
        build(**graph)


def test_small_integers_and_empty_lists_are_edges():
    assert build(edge_index=np.array([[0], [2]], np.int16)).edge_index.dtype == torch.int64
    assert build(edge_index=[[], []]).num_edges == 0
    assert build().edge_index.shape == (2, 0)


def test_edge_features_of_any_width():
    graph = build(edge_index=[[0, 1], [1, 2]], edge_weight=np.ones((2, 3)))
    assert graph.edge_attr.shape == (2, 3)


def test_one_name_may_be_a_plain_string():
    graph = build(channels="speed", units="mph", node_ids=[773869, 767541, 767542])
    assert (graph.channel_names, graph.units) == (["speed"], ["mph"])
    assert graph.node_id == ["773869", "767541", "767542"]
