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
    _, tokens, context = encode(encoder, window)
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
    h, tokens, context = encode(encoder, window)
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
