import pytest
import torch

from pyg_stmamba.nn.blocks.padded_graphs import pad_graphs
from pyg_stmamba.nn.blocks.space_time_input import read_space_time
from tests.laws import same

T, C = 3, 2
BATCH = torch.tensor([0, 0, 2, 2, 2])  # graph 1 has no nodes


@pytest.mark.parametrize("windows", [None, 1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_against_a_loop(windows, masked):
    x = torch.randn(5, *(() if windows is None else (windows,)), T, C)
    mask = torch.rand(x.shape[:-1]) > 0.4 if masked else None
    inputs = read_space_time(x, mask=mask, batch=BATCH, channels=C, nodes_first=True)
    graphs = pad_graphs(inputs)
    each = windows or 1
    assert graphs.x.shape == (3 * each, T, 3, C)
    assert graphs.hidden.shape == (3 * each, T, 3)
    full = inputs.x if windows else inputs.x.unsqueeze(1)
    observed = torch.ones(full.shape[:-1], dtype=torch.bool)
    if masked:
        observed = mask if windows else mask.unsqueeze(1)
    for video in range(3 * each):
        graph, window = divmod(video, each)
        nodes = BATCH.eq(graph).nonzero().flatten().tolist()
        for place in range(3):
            for t in range(T):
                there = place < len(nodes) and bool(observed[nodes[place], window, t])
                assert graphs.hidden[video, t, place] == (not there)
                expected = full[nodes[place], window, t] if there else torch.zeros(C)
                same(graphs.x[video, t, place], expected)
    same(graphs.restore(graphs.x), inputs.x)


@pytest.mark.parametrize("windows", [None, 2])
def test_one_graph(windows):
    x = torch.randn(5, *(() if windows is None else (windows,)), T, C)
    graphs = pad_graphs(read_space_time(x, channels=C, nodes_first=True))
    assert graphs.hidden is None
    assert graphs.nodes is None
    assert graphs.x.shape == (windows or 1, T, 5, C)
    same(graphs.restore(graphs.x), x)
    # Without a batch nothing was copied either.
    assert graphs.x.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


def test_nodes_must_follow_each_other():
    inputs = read_space_time(torch.randn(5, T, C), batch=BATCH.flip(0), channels=C)
    with pytest.raises(ValueError, match="ascending"):
        pad_graphs(inputs)
