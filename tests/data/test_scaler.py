import copy
import pickle

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_stmamba.data import Scaler, TemporalGraph, Windows, split_windows


@settings(deadline=None)
@given(
    num_nodes=st.integers(1, 4),
    channels=st.integers(1, 3),
    window=st.integers(1, 5),
    masked=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_equals_brute_force_over_training_windows(num_nodes, channels, window, masked, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(40, num_nodes, channels, generator=generator) * 10 + 50
    mask = torch.rand(values.shape, generator=generator) > 0.3
    mask[0] = True
    graph = TemporalGraph.from_arrays(values, mask=mask)
    windows = Windows(graph, window, 3, starts=split_windows(40, window, 3)["train"])
    scaler = Scaler(channels).fit(
        graph.x, graph.x_mask if masked else None, weight=windows.step_counts()
    )
    x = np.stack([w.x.double().numpy() for w in windows]).reshape(-1, channels)
    m = np.stack([w.x_mask.numpy() for w in windows]).reshape(-1, channels)
    for c in range(channels):
        seen = x[m[:, c], c] if masked else x[:, c]
        assert np.isclose(scaler.mean[c], seen.mean(), rtol=1e-6)
        assert np.isclose(scaler.std[c], seen.std() or 1, rtol=1e-6)


def test_published_numbers_of_metr_la(shared_data):
    with h5py.File(shared_data / "metr_la" / "raw" / "metr-la.h5") as file:
        speed = file["df/block0_values"][:]
    graph = TemporalGraph.from_arrays(speed, null_value=0.0)
    starts = split_windows(graph.num_steps, 12, 12)["train"]
    counts = Windows(graph, 12, 12, starts=starts).step_counts()

    zeros_included = Scaler(1).fit(graph.x, weight=counts)
    assert (round(float(zeros_included.mean), 1), round(float(zeros_included.std), 1)) == (
        50.9,
        19.7,
    )
    observed_only = Scaler(1).fit(graph.x, graph.x_mask, counts)
    assert (round(float(observed_only.mean), 1), round(float(observed_only.std), 1)) == (54.5, 14.9)

    x_train = np.lib.stride_tricks.sliding_window_view(speed, 12, axis=0)[: len(starts)]
    assert np.isclose(float(zeros_included.mean), x_train.mean(), rtol=1e-6)
    assert np.isclose(float(zeros_included.std), x_train.std(), rtol=1e-6)


def test_nothing_outside_the_training_inputs_counts():
    values = torch.randn(3, 50, 1)
    weight = torch.zeros(50)
    weight[:20] = 1
    spoilt = values.clone()
    spoilt[:, 20:] = torch.nan
    spoilt[:, 5] = torch.inf
    weight[5] = 0
    fitted = Scaler(1).fit(spoilt, weight=weight)
    kept = torch.cat([values[:, :5], values[:, 6:20]], dim=1)
    assert torch.allclose(fitted.mean, kept.mean(), rtol=1e-6)
    assert torch.allclose(fitted.std, kept.std(correction=0), rtol=1e-6)


def test_chunks_of_nodes_make_no_difference(monkeypatch):
    values, mask = torch.randn(7, 30, 2), torch.rand(7, 30, 2) > 0.5
    whole = Scaler(2).fit(values, mask)
    monkeypatch.setattr("pyg_stmamba.data.scaler.CHUNK", 130)
    chunked = Scaler(2).fit(values, mask)
    assert torch.allclose(whole.mean, chunked.mean, rtol=1e-6)
    assert torch.allclose(whole.std, chunked.std, rtol=1e-6)


def test_sums_are_in_float64():
    values = torch.full((100, 10_000, 1), 1e4) + torch.randn(100, 10_000, 1)
    fitted = Scaler(1).fit(values)
    assert np.isclose(float(fitted.std), values.double().numpy().std(), rtol=1e-6)


def test_there_and_back():
    scaler = Scaler(3).fit(torch.randn(4, 20, 3) * torch.tensor([1.0, 10.0, 100.0]) + 5)
    x = torch.randn(2, 6, 3)
    before = x.clone()
    assert torch.allclose(scaler.inverse(scaler(x)), x, atol=1e-5)
    assert torch.equal(x, before)
    y = x[..., [2, 0]]
    assert torch.equal(scaler.inverse(y, channels=(2, 0)), scaler.inverse(x)[..., [2, 0]])
    assert torch.equal(scaler(y, channels=(2, 0)), scaler(x)[..., [2, 0]])
    scaled = scaler(torch.randn(4, 20, 3))
    assert scaled.shape == (4, 20, 3)


def test_standardised_data_has_mean_0_and_deviation_1():
    values = torch.rand(5, 40, 2) * 7 + 30
    scaled = Scaler(2).fit(values)(values)
    assert torch.allclose(scaled.mean((0, 1)), torch.zeros(2), atol=1e-4)
    assert torch.allclose(scaled.flatten(0, 1).std(0, correction=0), torch.ones(2), atol=1e-5)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e-8, 1e7 + 0.3])
def test_constant_channel(constant):
    scaler = Scaler(1).fit(torch.full((3, 11, 1), constant))
    assert float(scaler.std) == 1
    assert torch.equal(scaler(torch.full((1, 1, 1), constant)), torch.zeros(1, 1, 1))


def test_state_travels():
    scaler = Scaler(2).fit(torch.randn(4, 20, 2))
    assert set(scaler.state_dict()) == {"mean", "std"}
    other = Scaler(2)
    assert torch.equal(other(torch.ones(1, 2)), torch.ones(1, 2))
    other.load_state_dict(scaler.state_dict(), strict=True)
    for twin in (other, copy.deepcopy(scaler), pickle.loads(pickle.dumps(scaler))):
        assert torch.equal(twin.mean, scaler.mean)
        assert torch.equal(twin.std, scaler.std)
    assert not list(scaler.parameters())
    scaler.reset_parameters()
    assert torch.equal(scaler.std, torch.ones(2))
    assert str(scaler) == "Scaler(2)"


def test_bad_input():
    values = torch.ones(2, 5, 2)
    with pytest.raises(ValueError, match="channels must be at least 1"):
        Scaler(0)
    with pytest.raises(ValueError, match=r"C = 3 channels, got shape \[2, 5, 2\]"):
        Scaler(3).fit(values)
    with pytest.raises(ValueError, match=r"mask must be boolean .* got torch.float32"):
        Scaler(2).fit(values, values)
    with pytest.raises(ValueError, match=r"weight must be of shape \[5\]"):
        Scaler(2).fit(values, weight=torch.ones(4))
    for weight in (torch.zeros(5), torch.tensor([1.0, 1, 1, 1, -1])):
        with pytest.raises(ValueError, match="not be negative, and not all zero"):
            Scaler(2).fit(values, weight=weight)
    with pytest.raises(ValueError, match=r"no observed entry to fit on in channel\(s\) \[1\]"):
        Scaler(2).fit(values, torch.tensor([True, False]).expand(2, 5, 2))
    values[0, 0, 1] = torch.nan
    with pytest.raises(ValueError, match=r"NaN or infinity in channel\(s\) \[1\]; pass mask="):
        Scaler(2).fit(values)
    Scaler(2).fit(values, ~values.isnan())
    with pytest.raises(ValueError, match=r"expected 2 channel\(s\) .* got shape \[4, 1\]"):
        Scaler(2)(torch.ones(4, 1))
