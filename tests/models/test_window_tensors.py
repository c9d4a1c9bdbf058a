import math

import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_stmamba.data import TemporalGraph, Windows, collate_shared
from pyg_stmamba.models.window_tensors import from_variables, window_tensors
from tests.laws import close, same

W, H, N, C = 6, 4, 5, 2


@pytest.fixture
def windows(graph) -> Windows:
    return Windows(graph, W, H, target_channels=(1,))


def test_windows_on_one_graph(windows):
    chosen = [windows[i] for i in (0, 3, 10)]
    tensors = window_tensors(collate_shared(chosen), d_x=2)
    assert tensors.enc_y.shape == (3, W, N * C)
    assert tensors.dec_y.shape == (3, H, N)
    for b, window in enumerate(chosen):
        for n in range(N):
            for c in range(C):
                same(tensors.enc_y[b, :, n * C + c], window.x[n, :, c])
                same(tensors.observed_mask[b, :, n * C + c], window.x_mask[n, :, c])
            same(tensors.dec_y[b, :, n], window.y[n, :, 0])
            same(tensors.target_mask[b, :, n], window.y_mask[n, :, 0])
        time, day = window.time_of_day[0], window.day_of_week[0]
        close(tensors.enc_x[b, :, 0], 2 * math.pi * time, 1e-6)
        close(tensors.enc_x[b, :, 1], 2 * math.pi * (day + time) / 7, 1e-6)
        time, day = window.y_time_of_day[0], window.y_day_of_week[0]
        close(tensors.dec_x[b, :, 0], 2 * math.pi * time, 1e-6)
        close(tensors.dec_x[b, :, 1], 2 * math.pi * (day + time) / 7, 1e-6)


def test_one_window_many_windows_and_a_batch_of_graphs_agree(windows):
    chosen = [windows[i] for i in (0, 3, 10)]
    shared = window_tensors(collate_shared(chosen), d_x=2)
    for b, window in enumerate(chosen):
        for given, expected in zip(window_tensors(window, d_x=2), shared):
            same(given[0], expected[b])
    union = Batch.from_data_list(chosen)
    for given, expected in zip(window_tensors(union, d_x=2), shared):
        same(given, expected)


@pytest.mark.parametrize("channels", [(1,), (0, 1), (1, 0)])
def test_forecasts_go_back_to_the_nodes(graph, channels):
    windows = Windows(graph, W, H, target_channels=channels)
    chosen = [windows[i] for i in (0, 3, 10)]
    for data in (collate_shared(chosen), chosen[0], Batch.from_data_list(chosen)):
        tensors = window_tensors(data, d_x=2)
        same(from_variables(tensors.dec_y, data), data.y)
        both = torch.stack([tensors.dec_y, -tensors.dec_y])
        same(from_variables(both, data), torch.stack([data.y, -data.y]))


def test_without_a_calendar_time_is_the_number_of_the_step():
    graph = TemporalGraph.from_arrays(torch.randn(30, 3).numpy(), edge_index=[[0], [1]])
    windows = Windows(graph, W, H)
    tensors = window_tensors(collate_shared([windows[2], windows[7]]), d_x=1)
    assert tensors.enc_x[..., 0].tolist() == [[*range(2, 8)], [*range(7, 13)]]
    assert tensors.dec_x[..., 0].tolist() == [[*range(8, 12)], [*range(13, 17)]]
    with pytest.raises(ValueError, match=r"timestamps.*d_x=1"):
        window_tensors(windows[0], d_x=2)
    with pytest.raises(ValueError, match="d_x=3"):
        window_tensors(windows[0], d_x=3)


def test_late_steps_are_told_apart():
    data = Data(x=torch.randn(3, W, 1), start=torch.tensor([2**24 + 1]))
    tensors = window_tensors(data, d_x=1, horizon=2)
    assert tensors.dec_x.flatten().tolist() == [2**24 + 1 + W, 2**24 + 2 + W]


def test_the_horizon_comes_from_targets_times_or_the_caller(graph):
    data = Data(x=torch.randn(3, W, 1), edge_index=torch.zeros(2, 0, dtype=torch.long))
    with pytest.raises(ValueError, match="how many steps"):
        window_tensors(data, d_x=1)
    ahead = Windows(graph, W, H, targets=False)[0]
    for d_x in (1, 2):
        assert window_tensors(ahead, d_x).dec_x.shape == (1, H, d_x)
    tensors = window_tensors(data, d_x=1, horizon=H)
    assert tensors.dec_x.shape == (1, H, 1)
    assert tensors.dec_y is None
    assert tensors.observed_mask is None


def test_graphs_of_different_sizes_have_no_variables_in_common():
    graphs = [Data(x=torch.randn(n, W, 1), y=torch.randn(n, H, 1)) for n in (3, 4)]
    with pytest.raises(ValueError, match=r"\[3, 4\] nodes"):
        window_tensors(Batch.from_data_list(graphs), d_x=1)
