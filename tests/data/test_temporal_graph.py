import copy
import pickle

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, InMemoryDataset
from torch_geometric.loader import ClusterData, ClusterLoader, DataLoader, NodeLoader
from torch_geometric.sampler import BaseSampler, SamplerOutput

from pyg_stmamba.data import TemporalGraph


def ring(num_nodes=6, num_steps=8, channels=1, prefix="s", **kwargs):
    r"""Node n holds the value 100 n + t at step t, and hears n - 1."""
    values = np.arange(num_steps)[:, None, None] + 100 * np.arange(num_nodes)[None, :, None]
    source = np.arange(num_nodes)
    return TemporalGraph.from_arrays(
        np.repeat(values, channels, axis=2).astype(float),
        mask=(values % 7 != 5).repeat(channels, axis=2),
        timestamps=3600 * np.arange(num_steps),
        edge_index=np.stack([source, (source + 1) % num_nodes]),
        edge_weight=10.0 * source + 1,
        positions=np.stack([source, -source], axis=1),
        node_ids=[f"{prefix}{n}" for n in source],
        name="ring",
        **kwargs,
    )


SIZES = [(6, 8), (8, 8), (1, 8), (1, 1), (3, 1), (2, 2)]


def check_part(graph, whole, nodes, num_edges=None):
    r"""A part holds the series, names and edge weights of its nodes, and all of time."""
    nodes = torch.as_tensor(nodes)
    assert torch.equal(graph.x, whole.x[nodes])
    assert torch.equal(graph.x_mask, whole.x_mask[nodes])
    assert torch.equal(graph.pos, whole.pos[nodes])
    assert graph.node_id == [whole.node_id[n] for n in nodes.tolist()]
    assert torch.equal(graph.timestamps, whole.timestamps)
    assert (graph.channel_names, graph.units, graph.name) == (["value"], [""], "ring")
    sources = nodes[graph.edge_index[0]]
    assert torch.equal(graph.edge_attr[:, 0], 10.0 * sources + 1)
    assert torch.equal(nodes[graph.edge_index[1]], (sources + 1) % whole.num_nodes)
    if num_edges is not None:
        assert graph.num_edges == num_edges


@pytest.mark.parametrize(("num_nodes", "num_steps"), SIZES)
def test_shapes_and_properties(num_nodes, num_steps):
    graph = ring(num_nodes, num_steps)
    assert graph.num_nodes == num_nodes
    assert graph.num_steps == num_steps
    assert graph.num_channels == graph.num_node_features == 1
    assert graph.timestamps.shape == (1, num_steps)
    assert graph.timestamps.dtype == torch.int64
    assert graph.values is graph.x
    assert graph.step_seconds == (3600 if num_steps > 1 else None)
    assert graph.steps_per_day == (24 if num_steps > 1 else None)
    assert graph.validate()
    assert graph.x[0, 0, 0] == 0
    assert set(graph.node_attrs()) == {"x", "x_mask", "pos", "node_row"}
    assert set(graph.edge_attrs()) == {"edge_index", "edge_attr"}


def test_optional_parts_are_none():
    graph = TemporalGraph.from_arrays(np.ones((3, 2)))
    assert (graph.timestamps, graph.edge_attr, graph.pos) == (None, None, None)
    assert (graph.null_value, graph.step_seconds, graph.steps_per_day) == (None, None, None)
    assert graph.node_id == ["0", "1"]
    assert graph.channel_names == ["value"]
    assert TemporalGraph.from_arrays(np.ones((3, 2, 2))).channel_names == ["channel 0", "channel 1"]
    assert TemporalGraph(x=torch.ones(2, 3, 1)).node_id == ["0", "1"]
    assert bool(TemporalGraph(x=torch.ones(2, 3, 1)).mask.all())
    with pytest.raises(ValueError, match="carries no series"):
        _ = TemporalGraph().values


def test_a_day_of_no_whole_number_of_steps():
    graph = TemporalGraph.from_arrays(np.ones((3, 2)), timestamps=[0, 7000, 14000])
    assert graph.step_seconds == 7000
    assert graph.steps_per_day is None


@pytest.mark.parametrize(("num_nodes", "num_steps"), SIZES)
def test_subgraph(num_nodes, num_steps):
    graph = ring(num_nodes, num_steps)
    subset = torch.arange(num_nodes)[::2]
    check_part(graph.subgraph(subset), graph, subset)
    keep = torch.zeros(num_nodes, dtype=torch.bool)
    keep[-1] = True
    check_part(graph.subgraph(keep), graph, [num_nodes - 1], num_edges=int(num_nodes == 1))


def test_select_keeps_the_order_asked_for():
    graph = ring()
    part = graph.select(["s4", "s3", "s0"])
    check_part(part, graph, [4, 3, 0], num_edges=1)
    assert part.edge_index.tolist() == [[1], [0]]
    check_part(part.select(["s0"]), graph, [0], num_edges=0)
    assert part.validate()
    assert graph.num_nodes == 6
    with pytest.raises(ValueError, match=r"unknown node id\(s\) s9; the graph has s0, s1"):
        graph.select(["s1", "s9"])
    with pytest.raises(ValueError, match="must differ, got s1, s1"):
        graph.select(["s1", "s1"])


class OneHop(BaseSampler):
    r"""Draws nodes and all they hear: PyG's own needs a compiled library."""

    def __init__(self, graph):
        self.edge_index = graph.edge_index

    def sample_from_nodes(self, index, **kwargs):
        seeds = index.node
        sources, targets = self.edge_index
        edge = torch.isin(targets, seeds).nonzero().flatten()
        extra = sources[edge][~torch.isin(sources[edge], seeds)].unique()
        node = torch.cat([seeds, extra])
        local = torch.full((int(self.edge_index.max()) + 1,), -1)
        local[node] = torch.arange(len(node))
        return SamplerOutput(
            node,
            local[sources[edge]],
            local[targets[edge]],
            edge,
            metadata=(index.input_id, index.time),
        )

    def sample_from_edges(self, index, **kwargs):
        raise NotImplementedError


@pytest.mark.parametrize(("num_nodes", "num_steps"), [(6, 8), (8, 8), (1, 8), (2, 2)])
def test_neighbor_loading(num_nodes, num_steps):
    graph = ring(num_nodes, num_steps)
    loader = NodeLoader(graph, OneHop(graph), input_nodes=None, batch_size=2)
    seen = []
    for part in loader:
        check_part(part, graph, part.n_id, num_edges=part.batch_size)
        seen += part.node_id[: part.batch_size]
    assert seen == graph.node_id


@pytest.fixture
def halves(monkeypatch):
    # METIS needs a compiled library; any partition serves.
    monkeypatch.setattr(
        ClusterData, "_metis", lambda self, edges, n: torch.arange(n) % self.num_parts
    )


@pytest.mark.parametrize(("num_nodes", "num_steps"), [(6, 8), (8, 8), (2, 2)])
def test_cluster_data(halves, num_nodes, num_steps):
    graph = ring(num_nodes, num_steps)
    clusters = ClusterData(graph, num_parts=2, log=False)
    for i, part in enumerate(clusters):
        check_part(part, graph, torch.arange(num_nodes)[i::2], num_edges=0)
    (whole,) = ClusterLoader(clusters, batch_size=2)
    order = torch.cat([torch.arange(num_nodes)[::2], torch.arange(num_nodes)[1::2]])
    check_part(whole, graph, order, num_edges=num_nodes)


def test_batch_of_graphs_of_different_sizes():
    graphs = [ring(6), ring(1, prefix="one"), ring(2, prefix="t")]
    batch = Batch.from_data_list(graphs)
    assert isinstance(batch, TemporalGraph)
    assert batch.x.shape == (9, 8, 1)
    assert batch.timestamps.shape == (3, 8)
    assert batch.batch.tolist() == [0] * 6 + [1] + [2] * 2
    assert batch.node_id == ["s0", "s1", "s2", "s3", "s4", "s5", "one0", "t0", "t1"]
    assert batch.edge_index[:, 6].tolist() == [6, 6]
    assert batch.step_seconds == 3600
    for graph, again in zip(graphs, batch.to_data_list()):
        check_part(again, graph, torch.arange(graph.num_nodes), graph.num_edges)


def test_data_loader():
    batches = list(DataLoader([ring(3), ring(4), ring(5)], batch_size=2))
    assert [b.num_graphs for b in batches] == [2, 1]
    assert batches[0].x.shape == (7, 8, 1)


def test_to_moves_all_tensors():
    moved = ring().to("meta")
    assert all(value.is_meta for _, value in moved if isinstance(value, torch.Tensor))
    assert ring().to(torch.device("cpu")).node_id == ring().node_id


def test_copies_pickles_and_dictionaries():
    graph = ring(null_value=0.0)
    twins = [copy.copy(graph), copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))]
    twins.append(TemporalGraph.from_dict(graph.to_dict()))
    for twin in twins:
        assert type(twin) is TemporalGraph
        check_part(twin, graph, torch.arange(6), 6)
        assert twin.null_value == 0


def test_in_memory_dataset_loads_weights_only(tmp_path):
    path = str(tmp_path / "data.pt")
    graph = ring()
    InMemoryDataset.save([graph], path)
    torch.load(path, weights_only=True)
    dataset = InMemoryDataset(None)
    dataset.load(path)
    assert type(dataset[0]) is TemporalGraph
    check_part(dataset[0], graph, torch.arange(6), 6)


def test_node_with_no_value_is_named():
    mask = np.ones((4, 3), bool)
    mask[:, 1] = False
    with pytest.raises(ValueError, match=r"all values are missing at 1 of 3 node\(s\): b\. Drop"):
        TemporalGraph.from_arrays(np.ones((4, 3)), mask=mask, node_ids=["a", "b", "c"])
    values = np.ones((4, 20))
    values[:, 3:] = 0
    with pytest.raises(ValueError, match=r"17 of 20 node\(s\): 3, 4, .* \.\.\. \(17 in all\)"):
        TemporalGraph.from_arrays(values, null_value=0.0)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("x", torch.ones(6, 8), r"floating point tensor \[N, T, C\], got torch.float32 \[6, 8\]"),
        ("x", torch.ones(6, 8, 1, dtype=torch.long), "got torch.int64"),
        ("x", None, "got NoneType"),
        ("x", torch.full((6, 8, 1), torch.nan), "48 NaN or infinite"),
        ("x_mask", None, "got none"),
        ("x_mask", torch.ones(6, 8, 1), "x_mask must be boolean .* got torch.float32"),
        ("x_mask", torch.ones(6, 7, 1, dtype=torch.bool), r"shape of x \[6, 8, 1\], got"),
        ("edge_index", torch.zeros(2, 6, dtype=torch.int32), "int64, got torch.int32"),
        ("edge_index", torch.full((2, 6), 6), "from 0 to 5"),
        ("edge_attr", torch.ones(5, 1), "5 rows for 6 edges"),
        ("edge_attr", torch.full((6, 1), torch.inf), "NaN or infinity"),
        ("pos", torch.ones(6), r"\[N, P\] with N = 6"),
        ("node_id", ["a"] * 6, "6 different names"),
        ("node_id", ["a", "b"], "got 2"),
        ("channel_names", ["a", "b"], r"2 channel_names for 1 channel"),
        ("timestamps", torch.arange(8), r"\[1, T\] = \[1, 8\], got torch.int64 \[8\]"),
        ("timestamps", torch.arange(8.0)[None], "got torch.float32"),
        ("timestamps", torch.arange(8).flip(0)[None], "must increase strictly"),
    ],
)
def test_validate(key, value, message):
    graph = ring()
    setattr(graph, key, value)
    with pytest.raises(ValueError, match=message):
        graph.validate()
    assert graph.validate(raise_on_error=False) is False


def test_node_count_disagrees_with_the_graph():
    with pytest.raises(ValueError, match=r"from 0 to 2 for 3 nodes"):
        TemporalGraph.from_arrays(np.ones((9, 3, 2)), edge_index=[[0, 8], [1, 2]])
