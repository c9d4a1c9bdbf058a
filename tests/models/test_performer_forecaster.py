import math

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from pyg_stmamba.data import Protocol, TemporalGraph, Windows, collate_shared
from pyg_stmamba.models import MODELS, PerformerForecaster
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
    op.train()(other)  # without a teacher


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
    op.spectral_time.fit(wake.values[..., 0].t())
    assert op.spectral_time.freqs[0].item() == pytest.approx(0.07, abs=1e-3)
    window = Windows(wake, W, H)[17]
    y = op.eval()(window)
    assert y.shape == (3, H, 1)
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
    with pytest.raises(ValueError, match=r"window=8.*\[5, 6, 2\]"):
        model(graph)(Windows(graph, 6, H)[0])
