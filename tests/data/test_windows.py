import copy
import pickle
import time
from datetime import datetime, timezone

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader as TorchLoader
from torch.utils.data import Subset
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

from pyg_stmamba.data import TemporalGraph, Windows, collate_shared


def series(num_nodes=3, num_steps=30, channels=2, start="2024-02-29T22:00", **kwargs):
    generator = np.random.default_rng(0)
    stamps = np.datetime64(start, "s") + 1800 * np.arange(num_steps)
    return TemporalGraph.from_arrays(
        generator.normal(size=(num_steps, num_nodes, channels)),
        mask=generator.random((num_steps, num_nodes, channels)) > 0.1,
        edge_index=[[0, 0, min(1, num_nodes - 1)], [0, num_nodes - 1, 0]],
        edge_weight=[1.0, 2.0, 3.0],
        **{"timestamps": stamps, **kwargs},
    )


def inside(view, storage):
    first = storage.data_ptr()
    last = first + storage.numel() * storage.element_size()
    same = view.untyped_storage().data_ptr() == storage.untyped_storage().data_ptr()
    return same and first <= view.data_ptr() < last


def test_the_window_in_numbers():
    graph = series()
    windows = Windows(graph, window=4, horizon=3, target_channels=(1,))
    assert len(windows) == 30 - 7 + 1
    assert torch.equal(windows.starts, torch.arange(24))
    for i in (0, 5, 23, -1):
        window = windows[i]
        s = i % 24
        assert torch.equal(window.x, graph.x[:, s : s + 4])
        assert torch.equal(window.x_mask, graph.x_mask[:, s : s + 4])
        assert torch.equal(window.y, graph.x[:, s + 4 : s + 7, 1:])
        assert torch.equal(window.y_mask, graph.x_mask[:, s + 4 : s + 7, 1:])
        assert window.start.tolist() == [s]
        moments = [datetime.fromtimestamp(t, timezone.utc) for t in graph.timestamps[0].tolist()]
        tod = torch.tensor([(m.hour * 60 + m.minute) / 1440 for m in moments])
        dow = torch.tensor([m.weekday() for m in moments])
        assert torch.allclose(window.time_of_day, tod[None, s : s + 4])
        assert torch.equal(window.day_of_week, dow[None, s : s + 4])
        assert torch.allclose(window.y_time_of_day, tod[None, s + 4 : s + 7])
        assert torch.equal(window.y_day_of_week, dow[None, s + 4 : s + 7])
    assert window.num_nodes == 3
    with pytest.raises(IndexError, match="window 24 of 24"):
        windows[24]
    assert len(list(windows)) == 24


@pytest.mark.parametrize("channels", [(0,), (1,), (0, 1), (0, 2), (2,), (1, 2, 3)])
def test_windows_are_views(channels):
    graph = series(channels=4)
    window = Windows(graph, 4, 3, target_channels=channels)[7]
    assert inside(window.x, graph.x)
    assert inside(window.x_mask, graph.x_mask)
    assert inside(window.y, graph.x)
    assert inside(window.y_mask, graph.x_mask)
    assert window.edge_index is graph.edge_index
    assert window.edge_attr is graph.edge_attr
    assert torch.equal(window.y, graph.x[:, 11:14, list(channels)])


def test_channels_that_are_not_evenly_spaced_are_copied_once():
    graph = series(channels=4)
    windows = Windows(graph, 4, 3, target_channels=(3, 0, 1))
    assert torch.equal(windows[2].y, graph.x[:, 6:9, [3, 0, 1]])
    assert windows[1].y.untyped_storage().data_ptr() == windows[2].y.untyped_storage().data_ptr()
    assert inside(windows[2].x, graph.x)


def test_starts_and_stride():
    graph = series()
    starts = torch.tensor([9, 0, 4, 23])
    windows = Windows(graph, 4, 3, starts=starts)
    assert [int(w.start) for w in windows] == [9, 0, 4, 23]
    assert [int(w.start) for w in Windows(graph, 4, 3, starts=starts, stride=2)] == [9, 4]
    assert Windows(graph, 4, 3, stride=10).starts.tolist() == [0, 10, 20]
    assert len(Windows(graph, 4, 3, starts=starts[:0])) == 0


def test_without_timestamps():
    window = Windows(series(timestamps=None), 4, 3)[0]
    assert "time_of_day" not in window
    assert "y_day_of_week" not in window
    batch = Windows(series(timestamps=None), 4, 3).batch([0, 1])
    assert set(batch.keys()) == set(window.keys())


def test_without_targets_windows_reach_the_end():
    graph = series(num_steps=10, start="2024-01-01T00:00")
    windows = Windows(graph, 4, 3, targets=False)
    assert len(windows) == 7
    window = windows[-1]
    assert window.y is None
    assert torch.equal(window.x, graph.x[:, 6:])
    assert window.y_time_of_day.tolist() == [pytest.approx([5 / 24, 5.5 / 24, 6 / 24])]
    batch = collate_shared(windows.__getitems__([0, 6]))
    assert "y" not in batch
    assert torch.equal(batch.y_time_of_day[1:], window.y_time_of_day)
    assert len(Windows(series(num_steps=4), 4, 100, targets=False)) == 1


def same(a, b):
    assert set(a.keys()) == set(b.keys())
    for key in a.keys():  # noqa: SIM118
        assert a[key].shape == b[key].shape, key
        assert a[key].dtype == b[key].dtype, key
        assert torch.equal(a[key], b[key]), key


@settings(deadline=None, max_examples=30)
@given(
    num_nodes=st.integers(1, 4),
    channels=st.integers(1, 3),
    window=st.integers(1, 5),
    horizon=st.integers(0, 4),
    chosen=st.lists(st.integers(0, 10), min_size=1, max_size=6),
    stamped=st.booleans(),
)
def test_batches_on_one_shared_graph(num_nodes, channels, window, horizon, chosen, stamped):
    graph = series(num_nodes, 20, channels, **({} if stamped else {"timestamps": None}))
    windows = Windows(graph, window, horizon)
    batch = windows.batch(chosen)
    same(batch, collate_shared([windows[i] for i in chosen]))
    same(batch, collate_shared(windows.__getitems__(chosen)))
    same(batch, windows.batch(torch.tensor(chosen)))
    assert batch.x.shape == (num_nodes, len(chosen), window, channels)
    assert batch.y.shape == (num_nodes, len(chosen), horizon, 1)
    assert batch.num_nodes == num_nodes
    assert batch.edge_index is graph.edge_index
    assert batch.start.tolist() == chosen
    if stamped:
        assert batch.time_of_day.shape == (len(chosen), window)
        assert batch.y_day_of_week.shape == (len(chosen), horizon)
    for b, i in enumerate(chosen):
        assert torch.equal(batch.x[:, b], graph.x[:, i : i + window])
        assert torch.equal(batch.y[:, b], graph.x[:, i + window : i + window + horizon, :1])


@pytest.mark.parametrize("num_nodes", [1, 3, 4])
def test_pyg_loader(num_nodes):
    windows = Windows(series(num_nodes), 4, 3)
    batches = list(DataLoader(windows, batch_size=10))
    assert [b.num_graphs for b in batches] == [10, 10, 4]
    batch = batches[1]
    assert batch.x.shape == (10 * num_nodes, 4, 2)
    assert batch.time_of_day.shape == (10, 4)
    assert batch.start.tolist() == list(range(10, 20))
    assert batch.edge_index.shape == (2, 30)
    assert int(batch.edge_index.max()) == 10 * num_nodes - 1
    same(Batch.from_data_list([windows[i] for i in range(10, 20)]), batch)
    same(batch[3], windows[13])
    shared = windows.batch(range(10, 20))
    assert torch.equal(batch.x.unflatten(0, (10, num_nodes)).transpose(0, 1), shared.x)


def test_loaders_with_workers():
    windows = Windows(series(), 4, 3)
    options = {"batch_size": 9, "num_workers": 1, "multiprocessing_context": "fork"}
    shared = list(TorchLoader(windows, collate_fn=collate_shared, **options))
    assert [b.x.size(1) for b in shared] == [9, 9, 6]
    same(shared[1], windows.batch(range(9, 18)))
    disjoint = list(DataLoader(windows, **options))
    same(disjoint[2], Batch.from_data_list([windows[i] for i in range(18, 24)]))


def test_subset_and_shuffle_take_the_fast_path(monkeypatch):
    windows = Windows(series(), 4, 3)
    monkeypatch.setattr(Windows, "__getitem__", None)
    loader = TorchLoader(Subset(windows, range(5, 15)), 4, shuffle=True, collate_fn=collate_shared)
    starts = torch.cat([batch.start for batch in loader])
    assert sorted(starts.tolist()) == list(range(5, 15))


def test_selection_is_a_sequence():
    windows = Windows(series(), 4, 3)
    some = windows.__getitems__([4, 2, 9])
    assert len(some) == 3
    assert int(some[1].start) == 2
    assert [int(w.start) for w in some] == [4, 2, 9]
    assert [int(w.start) for w in some[1:]] == [2, 9]


def test_windows_of_different_graphs_are_not_shared():
    one, other = Windows(series(), 4, 3)[0], Windows(series(num_nodes=4), 4, 3)[0]
    with pytest.raises(ValueError, match="one graph, but their edge_index or edge_attr differ"):
        collate_shared([one, other])
    heavier = copy.copy(one)
    heavier.edge_attr = one.edge_attr * 2
    with pytest.raises(ValueError, match="edge_attr differ"):
        collate_shared([one, heavier])
    equal = copy.copy(one)
    equal.edge_index = one.edge_index.clone()
    assert collate_shared([one, equal]).x.shape == (3, 2, 4, 2)


@settings(deadline=None)
@given(window=st.integers(1, 6), starts=st.lists(st.integers(0, 20), max_size=30))
def test_step_counts(window, starts):
    windows = Windows(series(), window, 3, starts=torch.tensor(starts, dtype=torch.long))
    expected = np.zeros(30, dtype=int)
    for s in starts:
        expected[s : s + window] += 1
    assert windows.step_counts().tolist() == expected.tolist()


def test_gaps_carry_their_own_time():
    stamps = 3600 * np.array([0, 1, 2, 5, 6, 7, 8])
    graph = TemporalGraph.from_arrays(np.ones((7, 2)), timestamps=stamps, gaps="keep")
    window = Windows(graph, 3, 2)[1]
    assert window.time_of_day[0].tolist() == pytest.approx([1 / 24, 2 / 24, 5 / 24])
    filled = TemporalGraph.from_arrays(np.ones((7, 2)), timestamps=stamps)
    window = Windows(filled, 3, 2)[2]
    assert window.time_of_day[0].tolist() == pytest.approx([2 / 24, 3 / 24, 4 / 24])
    assert window.x_mask[0, :, 0].tolist() == [True, False, False]
    assert window.y_mask[0, :, 0].tolist() == [True, True]


def test_a_batch_is_cheap():
    graph = TemporalGraph.from_arrays(
        np.ones((3000, 207), np.float32), timestamps=300 * np.arange(3000)
    )
    windows = Windows(graph, 12, 12)
    chosen = torch.randint(len(windows), (64,)).tolist()
    durations = []
    for _ in range(20):
        begin = time.process_time()
        collate_shared(windows.__getitems__(chosen))
        durations.append(time.process_time() - begin)
    assert min(durations) < 5e-3


def test_pickles_and_shows_itself():
    windows = Windows(series(), 4, 3)
    same(pickle.loads(pickle.dumps(windows))[3], windows[3])
    same(copy.deepcopy(windows)[3], windows[3])
    assert str(windows) == "Windows(24, window=4, horizon=3)"


def test_bad_input():
    graph = series(num_steps=10)
    with pytest.raises(
        ValueError, match=r"10 steps, fewer than one window of 8 input \+ 3 target = 11"
    ):
        Windows(graph, 8, 3)
    with pytest.raises(ValueError, match=r"among 0 to 1 for 2 channel\(s\), got \(2,\)"):
        Windows(graph, 4, 3, target_channels=(2,))
    with pytest.raises(ValueError, match=r"got \(\)"):
        Windows(graph, 4, 3, target_channels=())
    with pytest.raises(ValueError, match=r"profile must be \[N, T, C_y\] = .*, 10, 1\], got .*, 9"):
        Windows(graph, 4, 3, profile=graph.x[:, :9, :1])
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        Windows(graph, 4, 3, stride=0)
    with pytest.raises(ValueError, match=r"from 0 to 3 for 10 steps .* got 0 to 4"):
        Windows(graph, 4, 3, starts=torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="got -1 to 0"):
        Windows(graph, 4, 3, starts=torch.tensor([0, -1]))
    with pytest.raises(ValueError, match=r"int64 tensor, got torch\.float32"):
        Windows(graph, 4, 3, starts=torch.zeros(2))
