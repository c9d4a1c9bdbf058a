import torch
from torch_geometric.data import Batch, Data
from torch_geometric.nn import global_mean_pool

from pyg_stmamba.nn.blocks.graph_pooling import count_graphs, mean_over_nodes
from tests.laws import close, same

BATCH = torch.tensor([0, 0, 0, 2, 2])


def test_against_pytorch_geometric():
    x = torch.randn(5, 2, 4, 3)
    y = mean_over_nodes(x, None, BATCH, 4)
    close(y, global_mean_pool(x.flatten(1), BATCH, 4).unflatten(1, (2, 4, 3)), 1e-6)
    assert (y[1] == 0).all()
    close(mean_over_nodes(x, None, BATCH, 4, over_time=True), y.mean(-2, keepdim=True), 1e-6)
    close(mean_over_nodes(x), x.mean(0, keepdim=True), 1e-6)
    close(mean_over_nodes(x, over_time=True), x.mean((0, 2))[None, :, None], 1e-6)


def test_only_what_is_observed_counts():
    x, mask = torch.randn(5, 2, 4, 3), torch.rand(5, 2, 4) > 0.4
    mask[3:, 0] = False
    hidden = x.masked_fill(~mask.unsqueeze(-1), torch.nan)
    each, every = (
        mean_over_nodes(hidden, mask, BATCH, 3, over_time=over_time) for over_time in (False, True)
    )
    for graph in (0, 2):
        for window in range(2):
            nodes, seen = (t[graph == BATCH, window] for t in (x, mask))
            if seen.any():
                close(every[graph, window, 0], nodes[seen].mean(0), 1e-6)
            for step in range(4):
                expected = nodes[:, step][seen[:, step]].sum(0) / seen[:, step].sum().clamp(min=1)
                close(each[graph, window, step], expected, 1e-6)
    assert (every[2, 0] == 0).all()
    same(mean_over_nodes(x, torch.ones_like(mask)), mean_over_nodes(x))


def test_counting():
    graphs = [Data(x=torch.zeros(n, 4, 3)) for n in (2, 0, 1, 0)]
    batch = Batch.from_data_list(graphs)
    assert count_graphs(batch, batch.batch) == 4
    assert count_graphs(batch.x, batch.batch) == 3
    assert count_graphs(graphs[0], None) == 1
    assert count_graphs(batch.x[:0], batch.batch[:0]) == 0
