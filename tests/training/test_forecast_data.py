import numpy as np
import pytest
import torch
from torch import nn

from pyg_stmamba.data import Scaler, TemporalGraph, split_windows
from pyg_stmamba.models.weekly_profile import WeeklyProfile
from pyg_stmamba.nn import SpectralTimeEmbedding
from pyg_stmamba.training.forecast_data import (
    EpochOrder,
    ForecastData,
    fit_profile,
    fit_scaler,
    fit_spectral_time,
    random_seed,
    windows_of,
)


def starts_of(protocol, graph, split):
    parts = split_windows(
        graph.num_steps, protocol.window, protocol.horizon, protocol.split, protocol.order
    )
    return parts[split].tolist()


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_serves_every_window_once_in_order(graph, protocol, split):
    data = ForecastData(graph, protocol, batch_size=7)
    loader = getattr(data, f"{split}_dataloader")()
    served = [start for batch in loader for start in batch.start.tolist()]
    assert served == starts_of(protocol, graph, split)
    assert len(served) % 7


def test_training_serves_every_window_once_in_another_order(graph, protocol):
    loader = ForecastData(graph, protocol, batch_size=32, seed=4).train_dataloader()
    orders = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        orders.append([start for batch in loader for start in batch.start.tolist()])
    expected = starts_of(protocol, graph, "train")
    assert len(expected) % 32
    assert sorted(orders[0]) == sorted(orders[1]) == expected
    assert orders[0] != orders[1] != expected
    torch.manual_seed(99)
    again = ForecastData(graph, protocol, batch_size=5, seed=4).train_dataloader()
    assert [start for batch in again for start in batch.start.tolist()] == orders[0]


def test_workers_serve_the_same(graph, protocol):
    alone = ForecastData(graph, protocol, batch_size=32)
    helped = ForecastData(graph, protocol, batch_size=32, num_workers=1)
    for one, other in zip(alone.train_dataloader(), helped.train_dataloader()):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.start, other.start)


def test_processes_share_the_epoch():
    shares = [EpochOrder(11, seed=0, rank=rank, world_size=3) for rank in range(3)]
    for share in shares:
        share.set_epoch(5)
    lists = [list(share) for share in shares]
    assert [len(share) for share in shares] == [len(items) for items in lists] == [3, 3, 3]
    together = [item for items in lists for item in items]
    assert len(set(together)) == 9
    alone = EpochOrder(11, seed=0)
    alone.set_epoch(5)
    assert set(together) <= set(range(11))
    assert lists[1] == list(alone)[1::3][:3]


def test_seeds_of_unlike_numbers_are_unlike():
    seeds = {random_seed(a, b) for a in range(20) for b in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("scale_missing", [True, False])
def test_scaler_counts_the_inputs_of_training_windows(graph, protocol, scale_missing):
    protocol = protocol._replace(scale_missing=scale_missing)
    model = nn.Module()
    model.scaler = Scaler(1)
    fit_scaler(model, windows_of(graph, protocol)["train"], protocol)
    values, mask = graph.x[..., 0].numpy().astype(float), graph.x_mask[..., 0].numpy()
    inputs, observed = (
        np.concatenate([a[:, s : s + protocol.window] for s in starts_of(protocol, graph, "train")])
        for a in (values, mask)
    )
    counted = inputs if scale_missing else inputs[observed]
    assert float(model.scaler.mean) == pytest.approx(counted.mean(), rel=1e-5)
    assert float(model.scaler.std) == pytest.approx(counted.std(), rel=1e-4)


def test_a_model_without_a_scaler_is_left_alone(graph, protocol):
    fit_scaler(nn.Linear(1, 1), windows_of(graph, protocol)["train"], protocol)


def test_training_windows_alone_get_the_profile_without_their_week(graph, protocol):
    model = nn.Module()
    model.weekly_profile = WeeklyProfile(smoothing=30)
    data = ForecastData(graph, protocol, batch_size=8)
    fit_profile(model, data.windows["train"])
    profile = WeeklyProfile(smoothing=30).fit(data.windows["train"])
    assert torch.equal(model.weekly_profile.mean, profile.mean)
    batch = next(iter(data.train_dataloader()))
    without = profile.leave_one_week_out(data.windows["train"])
    end = int(batch.start[2]) + protocol.window + protocol.horizon
    assert torch.equal(batch.profile[:, 2], without[:, int(batch.start[2]) : end])
    assert "profile" not in next(iter(data.val_dataloader()))


def tones(frequency_later: float) -> TemporalGraph:
    """A tone of 0.11 in the steps that training reads, another one later, and gaps."""
    steps = np.arange(300)
    early = np.sin(2 * np.pi * 0.11 * steps)[:, None] * [1.0, -2.0, 3.0]
    late = 50 * np.sin(2 * np.pi * frequency_later * steps)[:, None]
    values = np.where(steps[:, None] < 180, early, late)
    mask = np.random.default_rng(0).random(values.shape) > 0.1
    values[~mask] = 1e6
    return TemporalGraph.from_arrays(values, mask=mask, edge_index=[[0, 1], [1, 2]])


def test_spectral_time_is_fitted_on_the_training_steps(protocol, make_performer):
    found = []
    for later in (0.23, 0.37):
        graph = tones(later)
        train = windows_of(graph, protocol)["train"]
        model = make_performer(graph)
        fit_spectral_time(model, train)
        # The last window that is trained on reads up to here, and forecasts what follows.
        stop = int(train.starts.max()) + protocol.window
        assert stop == 180
        expected = SpectralTimeEmbedding(3)
        expected.fit(graph.x[:, :stop, 0].t(), observed_mask=graph.x_mask[:, :stop, 0].t())
        assert torch.equal(model.spectral_time.freqs, expected.freqs)
        found.append(model.spectral_time)
    assert torch.equal(found[0].freqs, found[1].freqs)
    strongest = found[0].freqs[found[0].power.argmax()]
    assert strongest.item() == pytest.approx(0.11, abs=1e-3)


def test_a_series_without_a_frequency_can_do_without(protocol, make_performer):
    flat = TemporalGraph.from_arrays(np.ones((120, 2)), edge_index=[[0], [1]])
    train = windows_of(flat, protocol)["train"]
    with pytest.raises(ValueError, match="time_embedding='none' needs no frequencies"):
        fit_spectral_time(make_performer(flat), train)
    fit_spectral_time(make_performer(flat, time_embedding="none"), train)
    fit_spectral_time(nn.Linear(1, 1), train)


def test_an_empty_batch_is_refused(graph, protocol):
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        ForecastData(graph, protocol, batch_size=0)
