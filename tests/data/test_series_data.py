import copy
import pickle

import pytest
import torch
from torch_geometric.data import Batch

from pyg_stmamba.data.series_data import SeriesData


def series(num_nodes=3, num_steps=5, num_edges=4, channels=2):
    return SeriesData(
        x=torch.randn(num_nodes, num_steps, channels),
        edge_index=torch.randint(0, num_nodes, (2, num_edges)),
        edge_attr=torch.randn(num_edges, 1),
        x_mask=torch.rand(num_nodes, num_steps, channels) > 0.5,
        time_of_day=torch.rand(1, num_steps),
        start=torch.tensor([7]),
        timestamps=torch.arange(num_steps)[None],
        channel_names=["a", "b"],
    )


@pytest.mark.parametrize(
    ("num_nodes", "num_steps", "num_edges"),
    [(3, 5, 4), (4, 4, 4), (1, 1, 1), (1, 5, 3), (5, 5, 1), (3, 1, 3), (2, 4, 2), (2, 4, 1)],
)
def test_attributes_are_told_apart_by_name(num_nodes, num_steps, num_edges):
    data = series(num_nodes, num_steps, num_edges)
    assert set(data.node_attrs()) == {"x", "x_mask"}
    assert set(data.edge_attrs()) == {"edge_index", "edge_attr"}


def test_other_attributes_are_told_apart_by_size_as_in_pyg():
    data = series()
    data.height = torch.zeros(3)
    data.lanes = torch.zeros(4)
    data.total = torch.zeros(9)
    assert data.is_node_attr("height")
    assert data.is_edge_attr("lanes")
    assert not data.is_node_attr("total")
    assert not data.is_edge_attr("total")


def test_subgraph_without_the_only_edge_keeps_time():
    data = series(num_nodes=2, num_edges=1)
    data.edge_index = torch.tensor([[0], [1]])
    part = data.subgraph(torch.tensor([1]))
    assert part.num_edges == 0
    assert torch.equal(part.time_of_day, data.time_of_day)
    assert torch.equal(part.timestamps, data.timestamps)
    assert part.start.tolist() == [7]


def test_batch_makes_one_row_a_graph():
    first, second = series(num_nodes=3), series(num_nodes=2)
    batch = Batch.from_data_list([first, second])
    assert isinstance(batch, SeriesData)
    assert batch.x.shape == (5, 5, 2)
    assert torch.equal(batch.time_of_day, torch.cat([first.time_of_day, second.time_of_day]))
    assert torch.equal(batch[1].x, second.x)
    assert torch.equal(batch[1].edge_index, second.edge_index)
    # Two graphs of one edge: as many rows of time as edges.
    tiny = Batch.from_data_list([series(2, num_edges=1), series(2, num_edges=1)])
    assert tiny.edge_subgraph(torch.tensor([True, False])).time_of_day.size(0) == 2


def test_copies_and_pickles():
    data = series(num_edges=1)
    for twin in (copy.copy(data), copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert type(twin) is SeriesData
        assert torch.equal(twin.x, data.x)
        assert not twin.is_edge_attr("timestamps")


def test_none_is_absent():
    assert "edge_attr" not in SeriesData(x=torch.ones(1, 1, 1), edge_attr=None)
    assert SeriesData().x is None
