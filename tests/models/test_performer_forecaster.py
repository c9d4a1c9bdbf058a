import inspect
import math

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from pyg_stmamba.data import Protocol, TemporalGraph, Windows, collate_shared
from pyg_stmamba.models import (
    MODELS,
    PerformerForecaster,
    SpatioTemporalPerformer,
    performer_forecaster,
)
from tests.laws import close, copies_are_equal, same

W, H = 8, 4
PROTOCOL = Protocol(window=W, horizon=H, target_channels=(1,))
SMALL = {"d_model": 8, "n_heads": 2, "n_encoder_layers": 1}


def model(graph, **options) -> PerformerForecaster:
    arguments = PerformerForecaster.data_arguments(graph, PROTOCOL)
    made = PerformerForecaster(**{**arguments, **SMALL, **options})
    made.scaler.fit(graph.values, graph.mask)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


@pytest.fixture
def windows(graph) -> Windows:
    return Windows(graph, W, H, target_channels=(1,))


OPTIONS = [
    {},
    {"start_len": 3},
    {"autoregressive": True, "start_len": 2},
    {"linear_window": 4, "use_seasonal_decomp": True, "decomposition_kernel": 3, "use_revin": True},
    {"time_embedding": "none", "downsample_convs": 1, "windows": 2},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_windows_one_by_one_and_together(graph, windows, options):
    op = model(graph, **options)
    chosen = [windows[i] for i in (0, 5, 9)]
    together = op(collate_shared(chosen))
    assert together.shape == (5, 3, H, 1)
    union = op(Batch.from_data_list(chosen))
    for i, window in enumerate(chosen):
        y = op(window)
        assert y.shape == window.y.shape
        close(y, together[:, i], 1e-3)  # in units of hundreds
        close(union[5 * i : 5 * i + 5], y, 1e-3)


@pytest.mark.parametrize("options", OPTIONS)
def test_evaluation_does_not_look_ahead(graph, windows, options):
    op, data = model(graph, **options), collate_shared([windows[0], windows[5]])
    y = op(data)
    for junk in (0.0, 1e5, torch.nan):
        other = data.clone()
        other.y = torch.full_like(data.y, junk)
        same(op(other), y)
    ahead = Windows(graph, W, H, target_channels=(1,), targets=False)
    same(op(collate_shared([ahead[0], ahead[5]])), y)
    del other.y, other.y_mask
    same(op(other), y)


def test_training_without_a_teacher_is_autoregressive(graph, windows):
    op = model(graph, autoregressive=True, input_dropout=0.0, dropout=0.0)
    data = collate_shared([windows[0], windows[5]])
    y = op(data)
    del data.y, data.y_mask
    same(op.train()(data), y)


def test_training_with_a_teacher_looks_at_earlier_steps(graph, windows):
    op = model(graph, autoregressive=True, input_dropout=0.0, dropout=0.0).train()
    data = collate_shared([windows[0], windows[5]])
    y = op(data)
    other = data.clone()
    other.y = data.y.clone()
    other.y[..., 2, :] += 100.0
    other.y_mask = torch.ones_like(data.y_mask)
    data.y_mask = torch.ones_like(data.y_mask)
    y, after = op(data), op(other)
    same(after[..., :3, :], y[..., :3, :])
    assert not torch.equal(after[..., 3, :], y[..., 3, :])


def test_units_are_those_of_the_data(graph, windows):
    """What the transformer says is zero means the mean of the channel."""
    op = model(graph)
    with torch.no_grad():
        op.performer.transformer.head.weight.zero_()
        op.performer.transformer.head.bias.zero_()
    y = op(windows[3])
    close(y, op.scaler.mean[1].expand_as(y), 1e-4)


def test_the_linear_model_forecasts_the_target_channel(graph, windows):
    op = model(graph, linear_window=1)
    with torch.no_grad():
        op.performer.transformer.head.weight.zero_()
        op.performer.transformer.head.bias.zero_()
        op.performer.frame.linear.weight.fill_(1.0)
        op.performer.frame.linear.bias.zero_()
    window = windows[3]
    window.x_mask = torch.ones_like(window.x_mask)
    last = window.x[:, -1:, 1:].expand(-1, H, -1)
    close(op(window), last, 1e-2)


def test_missing_values_have_no_influence(graph, windows):
    op, data = model(graph, linear_window=2, start_len=2), collate_shared([windows[0], windows[5]])
    y = op(data)
    other = data.clone()
    other.x = data.x.masked_fill(~data.x_mask, -1e4)
    same(op(other), y)
    other.x = data.x.masked_fill(~data.x_mask, torch.nan)
    same(op(other), y)


@pytest.mark.parametrize("lost", [("x_mask",), ("y_mask",), ("x_mask", "y", "y_mask")])
def test_a_start_without_masks_is_one_with_all_true(graph, windows, lost):
    op, data = model(graph, start_len=3), windows[3]
    for name in lost:
        if name.endswith("mask"):
            data[name] = torch.ones_like(data[name])
    y = op(data)
    for name in lost:
        del data[name]
    same(op(data), y)


def test_missing_values_at_the_start_stay_missing_where_all_targets_are_there(graph, windows):
    op, data = model(graph, start_len=3), windows[3]
    data.x_mask = data.x_mask.clone()
    data.x_mask[:2, -2:] = False
    del data.y_mask
    y = op(data)
    data.x = data.x.masked_fill(~data.x_mask, 1e4)
    same(op(data), y)


def test_a_start_of_the_whole_window(graph, windows):
    op = model(graph, start_len=W)
    y = op(windows[3])
    assert y.shape == (5, H, 1)
    assert y.isfinite().all()


def test_the_start_is_the_end_of_the_window(graph, windows, monkeypatch):
    """What the decoder gets: times, scaled values of the target channel, and flags."""
    op, data = model(graph, start_len=3), collate_shared([windows[0], windows[5]])
    given = {}

    def spy(enc_x, enc_y, dec_x, dec_y, **options):
        given.update(options, dec_x=dec_x, dec_y=dec_y)
        return torch.zeros(2, H, 5)

    monkeypatch.setattr(op.performer, "forward", spy)
    op(data)
    time = torch.cat([data.time_of_day[:, -3:], data.y_time_of_day], 1)
    close(given["dec_x"][..., 0], 2 * math.pi * time, 1e-6)
    values = torch.cat([data.x[..., -3:, 1:], data.y], 2)
    expected = (values - op.scaler.mean[1]) / op.scaler.std[1]
    close(given["dec_y"], expected[..., 0].permute(1, 2, 0), 1e-5)
    mask = torch.cat([data.x_mask[..., -3:, 1:], data.y_mask], 2)
    same(given["target_mask"], mask[..., 0].permute(1, 2, 0))


def test_options_reach_the_performer(monkeypatch):
    found = {}

    def spy(*arguments, **options):
        found.update(
            inspect.signature(SpatioTemporalPerformer).bind(*arguments, **options).arguments
        )
        return SpatioTemporalPerformer(*arguments, **options)

    monkeypatch.setattr(performer_forecaster, "SpatioTemporalPerformer", spy)
    renamed = {
        "downsample_convs": "downsample_convs_block",
        "dropout": "dropout_ff",
        "dropout_attention": "dropout_attn",
        "input_dropout": "data_dropout_embedding",
        "autoregressive": "autoregressive_training",
    }
    options = {
        "d_model": 12, "n_heads": 3, "n_encoder_layers": 3, "n_decoder_layers": 2, "d_ff": 10,
        "time_emb_dim": 4, "attention": "full", "global_self_attention": "performer",
        "global_cross_attention": False, "nb_features": 9, "qk_norm": True, "redraw_interval": 5,
        "start_len": 6, "windows": 2, "downsample_convs": 1, "dropout": 0.3,
        "dropout_attention": 0.2, "input_dropout": 0.4, "use_revin": True,
        "use_seasonal_decomp": True, "decomposition_kernel": 3, "linear_window": 4,
        "linear_shared_weights": False, "autoregressive": True, "scheduled_sampling": 7.0,
    }  # fmt: skip
    others = {"time_embedding": "none", "local_attention": "performer"}
    op = PerformerForecaster(2, W, H, (1,), 3, 24, **options, **others)
    assert {name: found[renamed.get(name, name)] for name in options} == options
    assert found["time_embedding"] is False
    assert found["local_self_attention"] == found["local_cross_attention"] == "performer"
    assert found["max_seq_len"] == 6 + H
    assert op.config() == {
        "in_channels": 2, "window": W, "horizon": H, "target_channels": (1,), "num_nodes": 3,
        "steps_per_day": 24, **options, **others,
    }  # fmt: skip
    assert set(op.config()) == set(inspect.signature(PerformerForecaster).parameters)


def test_time_embedding_by_what_the_data_have(graph):
    assert model(graph).performer.d_x == 2
    assert model(graph).spectral_time is None
    assert model(graph).steps_per_day == 24
    steps = np.arange(300)
    probes = np.stack([np.sin(2 * math.pi * 0.07 * steps + phase) for phase in (0, 1, 2)], 1)
    wake = TemporalGraph.from_arrays(probes, edge_index=[[0, 1], [1, 2]])
    protocol = Protocol(window=W, horizon=H)
    op = PerformerForecaster(**PerformerForecaster.data_arguments(wake, protocol), **SMALL)
    assert op.performer.d_x == 1
    assert op.steps_per_day is None
    assert model(graph, time_embedding="none").steps_per_day is None
    op.spectral_time.fit(wake.values[..., 0].t())
    assert op.spectral_time.freqs[0].item() == pytest.approx(0.07, abs=1e-3)
    window = Windows(wake, W, H)[17]
    y = op.eval()(window)
    assert y.shape == (3, H, 1)
    ahead = Windows(wake, W, H, targets=False)
    same(op(ahead[17]), y)
    window.start = window.start + 3
    assert not torch.equal(op(window), y)


def test_copies_and_config(graph, windows):
    op = model(graph, start_len=2, linear_window=3)
    copies_are_equal(op, lambda op: op(windows[2]))
    other = PerformerForecaster(**op.config())
    other.load_state_dict(op.state_dict(), strict=True)
    same(other.eval()(windows[2]), op(windows[2]))
    assert MODELS["performer-forecaster"] is PerformerForecaster
    assert repr(op).startswith("PerformerForecaster(num_nodes=5, window=8, horizon=4, Spatio")


def test_errors(graph, windows):
    arguments = PerformerForecaster.data_arguments(graph, PROTOCOL)
    with pytest.raises(ValueError, match=r"time_embedding='fourier'.*calendar"):
        PerformerForecaster(**arguments, time_embedding="fourier")
    with pytest.raises(ValueError, match=r"timestamps.*spectral"):
        PerformerForecaster(**{**arguments, "steps_per_day": None}, time_embedding="calendar")
    with pytest.raises(ValueError, match=r"target_channels=\(2,\) must lie in 0..1"):
        PerformerForecaster(**{**arguments, "target_channels": (2,)})
    with pytest.raises(ValueError, match=r"start_len=9 .* 0..8"):
        PerformerForecaster(**arguments, start_len=9)
    with pytest.raises(ValueError, match=r"scheduled_sampling=5.*autoregressive=True"):
        PerformerForecaster(**arguments, scheduled_sampling=5.0)
    with pytest.raises(ValueError, match=r"window=8.*\[5, 6, 2\]"):
        model(graph)(Windows(graph, 6, H)[0])
