import numpy as np
import pytest
import torch

from pyg_stmamba.data import Windows, collate_shared
from pyg_stmamba.models.window_encoder import WindowEncoder


@pytest.fixture
def windows(graph):
    return Windows(graph, 6, 4, target_channels=(1, 0))


def build(graph, windows, **options):
    arguments = {"num_nodes": 5, "steps_per_day": 24} | options
    encoder = WindowEncoder(2, 8, 4, (1, 0), **arguments).eval()
    encoder.scaler.fit(graph.x, graph.x_mask)
    if encoder.weekly_profile is not None:
        encoder.weekly_profile.fit(windows)
    return encoder


def encode(encoder, window, **options):
    times = (window.time_of_day, window.day_of_week)
    return encoder(window.x, window.x_mask, *times, **options)


def test_tokens_are_values_flags_and_profile(graph, windows):
    encoder = build(graph, windows, weekly_profile=True)
    window = windows[40]
    _, tokens, context, *_ = encode(encoder, window)
    assert tokens.shape == (5, 6, encoder.token_channels)
    assert torch.equal(tokens[..., 2:4], window.x_mask.float())
    assert torch.equal(tokens[..., :2], encoder.scaler(window.x) * window.x_mask)
    hours = torch.arange(40, 50)
    profile = encoder.weekly_profile(hours % 24 / 24, hours // 24 % 7)
    expected = encoder.scaler(profile, (1, 0))
    torch.testing.assert_close(tokens[..., 4:], expected[:, :6])
    assert context.shape == (5, encoder.context_channels)
    torch.testing.assert_close(context[:, :8], expected[:, 6:].flatten(1))


def test_representation_is_the_sum_of_its_embeddings(graph, windows):
    encoder = build(graph, windows)
    window = windows[40]
    h, tokens, context, statistics, _ = encode(encoder, window)
    assert statistics is None
    hours = torch.arange(40, 46)
    parts = (
        encoder.time_of_day_embedding.weight[hours % 24],
        encoder.day_of_week_embedding.weight[hours // 24 % 7],
        encoder.node_embedding.weight[:, None],
    )
    torch.testing.assert_close(h, encoder.value_embedding(tokens) + sum(parts))
    last = [part.expand(5, 6, 8)[:, -1] for part in parts]
    torch.testing.assert_close(context, torch.cat(last, -1))


def test_a_given_profile_takes_the_place_of_the_fitted_one(graph, windows):
    encoder = build(graph, windows, weekly_profile=True)
    given = encoder.weekly_profile.leave_one_week_out(windows)
    windows.profile = given
    batch = collate_shared([windows[i] for i in (3, 40)])
    assert torch.equal(batch.profile[:, 1], given[:, 40:50])
    tokens = encode(encoder, batch, profile=batch.profile).tokens
    torch.testing.assert_close(tokens[:, 1, :, 4:], encoder.scaler(given[:, 40:46], (1, 0)))
    assert not torch.allclose(tokens, encode(encoder, batch).tokens)


@pytest.mark.parametrize("input_dropout", [0.0, 0.3])
def test_values_and_profile_are_normalized_by_what_is_seen_of_the_window(
    graph, windows, input_dropout
):
    options = {"weekly_profile": True, "input_dropout": input_dropout}
    encoder = build(graph, windows, instance_norm=True, **options).train()
    encoder.instance_norm.weight.data.copy_(torch.tensor([1.5, -0.5]))
    encoder.instance_norm.bias.data.copy_(torch.tensor([0.2, 0.1]))
    window = windows[40]
    _, tokens, context, statistics, ahead = encode(encoder, window)
    seen = tokens[..., 2:4] == 1
    assert torch.equal(seen, window.x_mask) == (input_dropout == 0)
    scaled = np.where(seen, encoder.scaler(window.x), np.nan)
    mean = np.nanmean(scaled, 1, keepdims=True)
    std = np.sqrt(np.nanvar(scaled, 1, keepdims=True) + 1e-5)
    weight, bias = (p.detach().numpy() for p in encoder.instance_norm.parameters())
    expected = np.nan_to_num((scaled - mean) / std * weight + bias)
    np.testing.assert_allclose(statistics.mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(statistics.std, std, rtol=1e-5)
    np.testing.assert_allclose(tokens[..., :2].detach(), expected, rtol=1e-3, atol=1e-4)

    hours = torch.arange(40, 50)
    profile = encoder.weekly_profile(hours % 24 / 24, hours // 24 % 7)
    profile = encoder.scaler(profile, (1, 0)).numpy()
    profile = (profile - mean[..., ::-1]) / std[..., ::-1] * weight[::-1] + bias[::-1]
    np.testing.assert_allclose(tokens[..., 4:].detach(), profile[:, :6], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        context[:, :8].detach(), profile[:, 6:].reshape(5, -1), rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(ahead.detach(), profile[:, 6:], rtol=1e-3, atol=1e-4)


def test_what_is_normalized_comes_back(graph, windows):
    encoder = build(graph, windows, instance_norm=True)
    encoding = encode(encoder, windows[40])
    seen, values = windows[40].x_mask[..., [1, 0]], windows[40].x[..., [1, 0]]
    back = encoder.to_units(encoding.tokens[..., [1, 0]], encoding.statistics)
    torch.testing.assert_close(back[seen], values[seen], rtol=1e-5, atol=1e-3)
    assert encoding.profile is None
    again = encoder.normalize(back, encoding.statistics)[seen]
    torch.testing.assert_close(again, encoding.tokens[..., [1, 0]][seen], rtol=1e-4, atol=1e-4)
    encoder.instance_norm.weight.data.fill_(3.0)
    encoder.reset_parameters()
    assert encoder.instance_norm.weight.tolist() == [1.0, 1.0]


def test_values_are_hidden_in_training_alone(graph, windows):
    encoder, window = build(graph, windows, input_dropout=0.3), windows[0]
    hidden = ~window.x_mask
    assert torch.equal(encode(encoder, window).tokens, encode(encoder, window).tokens)
    encoder.train()
    tokens = torch.stack([encode(encoder, window).tokens for _ in range(200)])
    flags, values = tokens[..., 2:], tokens[..., :2]
    assert (flags[:, hidden] == 0).all()
    assert flags[:, ~hidden].mean().item() == pytest.approx(0.7, abs=0.02)
    assert (values[flags == 0] == 0).all()
    with pytest.raises(ValueError, match="input_dropout=1 must be a probability below 1"):
        build(graph, windows, input_dropout=1)


def test_a_profile_needs_nodes_and_a_calendar(graph, windows):
    with pytest.raises(ValueError, match=r"weekly_profile=True needs .* steps_per_day=None"):
        build(graph, windows, weekly_profile=True, steps_per_day=None)
    encoder = build(graph, windows, weekly_profile=True, node_embedding=False, time_embedding=False)
    assert encoder.context_channels == 4 * 2
    with pytest.raises(ValueError, match="num_nodes=5, got 3 nodes"):
        encoder(windows[0].x[:3])
    with pytest.raises(ValueError, match="needs time_of_day and day_of_week"):
        encoder(windows[0].x)
