import pytest
import torch
from torch_geometric.data import Batch
from torch_geometric.utils import to_dense_adj

from pyg_stmamba.data import Protocol, Windows, collate_shared
from pyg_stmamba.models import STMamba
from pyg_stmamba.nn import SpatialGAT
from tests import laws

PROTOCOL = Protocol(window=6, horizon=4, target_channels=(1, 0))


@pytest.fixture
def windows(graph):
    return Windows(graph, 6, 4, target_channels=(1, 0))


def build(graph, **options):
    torch.manual_seed(1)
    arguments = STMamba.data_arguments(graph, PROTOCOL) | {"d_state": 4, "dropout": 0.0} | options
    model = STMamba(channels=8, num_heads=2, **arguments).eval()
    model.scaler.fit(graph.x, graph.x_mask)
    if model.weekly_profile is not None:
        model.weekly_profile.fit(Windows(graph, 6, 4, target_channels=(1, 0)))
    return model


def test_constructor_names_wrong_choices(graph):
    with pytest.raises(ValueError, match=r"readout='all'.*'window', 'last'"):
        STMamba(readout="all")
    with pytest.raises(ValueError, match=r"target_channels=\(2,\) must lie in 0\.\.1"):
        STMamba(2, target_channels=(2,))
    with pytest.raises(ValueError, match="gatt"):
        STMamba(spatial="gatt")


def test_repr(graph):
    assert str(build(graph)) == "STMamba(2, 8, num_layers=2, window=6, horizon=4)"


def test_parameters_are_the_parts_of_the_formula(graph):
    model = build(graph, num_layers=1)
    per_block = sum(p.numel() for p in model.blocks.parameters())
    expected = (2 * 2 + 1) * 8 + (24 + 7 + 5) * 8 + per_block + 2 * 8
    # The readout sees six steps of hidden channels, values and flags, and three embeddings.
    expected += (6 * (8 + 4) + 3 * 8 + 1) * 32 + 2 * 2 * (32 + 1) * 32 + (32 + 1) * 4 * 2
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("weekly_profile", [False, True])
def test_all_forms_of_one_batch_agree(graph, windows, weekly_profile):
    model = build(graph, weekly_profile=weekly_profile)
    picked = [windows[i] for i in (3, 40, 41)]
    shared = collate_shared(picked)
    expected = model(shared)
    assert expected.shape == (5, 3, 4, 2)
    for column, window in enumerate(picked):
        torch.testing.assert_close(model(window), expected[:, column])
    disjoint = model(Batch.from_data_list(picked))
    torch.testing.assert_close(disjoint.unflatten(0, (3, 5)), expected.transpose(0, 1))
    dense = model(
        shared.x.permute(1, 2, 0, 3),
        to_dense_adj(shared.edge_index, edge_attr=shared.edge_attr[:, 0])[0].T,
        x_mask=shared.x_mask.permute(1, 2, 0, 3),
        time_of_day=shared.time_of_day,
        day_of_week=shared.day_of_week,
    )
    torch.testing.assert_close(dense.permute(2, 0, 1, 3), expected)


def test_forecasts_are_in_original_units(graph, windows):
    model = build(graph)
    torch.nn.init.zeros_(model.head.last.weight)
    torch.nn.init.zeros_(model.head.last.bias)
    forecast = model(windows[0])
    torch.testing.assert_close(forecast, model.scaler.mean[[1, 0]].expand_as(forecast))


def test_missing_values_have_no_influence_but_their_flag_has(graph, windows):
    model, window = build(graph), windows[0]
    window.x_mask = window.x_mask.clone()
    window.x_mask[2, 3, 0] = False
    forecast = model(window)
    window.x = window.x.clone()
    window.x[2, 3, 0] = 1e6
    assert torch.equal(model(window), forecast)
    window.x_mask = torch.ones_like(window.x_mask)
    assert not torch.allclose(model(window), forecast)


def test_time_and_node_matter_exactly_when_embedded(graph, windows):
    monday, later = windows[0], windows[0].clone()
    later.time_of_day, later.day_of_week = windows[30].time_of_day, windows[30].day_of_week
    model = build(graph)
    assert not torch.allclose(model(monday), model(later))
    plain = build(graph, steps_per_day=None)
    assert torch.equal(plain(monday), plain(later))

    order = torch.tensor([1, 0, 2, 3, 4])
    permuted = windows[0].clone()
    permuted.x, permuted.x_mask = permuted.x[order], permuted.x_mask[order]
    permuted.edge_index = order[permuted.edge_index]
    assert not torch.allclose(model(permuted)[order], model(windows[0]), atol=1e-3)
    anonymous = build(graph, node_embedding=False)
    torch.testing.assert_close(anonymous(permuted)[order], anonymous(windows[0]))


def test_without_node_embeddings_other_graphs_work(graph, windows):
    model = build(graph, node_embedding=False)
    part = graph.select(graph.node_id[:3])
    assert model(Windows(part, 6, 4, target_channels=(1, 0))[0]).shape == (3, 4, 2)
    with pytest.raises(ValueError, match=r"num_nodes=5, got 3 nodes.*node_embedding=False"):
        build(graph)(Windows(part, 6, 4, target_channels=(1, 0))[0])


def test_influence_ends_after_as_many_hops_as_blocks(graph, windows):
    model = build(graph, spatial="gat", num_layers=2)
    x = windows[0].x.clone().requires_grad_()
    window = windows[0].clone()
    window.x, window.x_mask = x, torch.ones_like(window.x_mask)
    gradient = torch.autograd.grad(model(window)[3].sum(), x)[0].abs().sum((1, 2))
    # On the directed ring node 3 hears of 3, 2 and 1 within two hops.
    assert (gradient > 0).tolist() == [False, True, True, True, False]


def test_streaming_equals_the_whole(graph, windows):
    model = build(graph, readout="last", steps_per_day=None)
    x = graph.x[:, :11]
    whole = model(x, graph.edge_index, graph.edge_attr)
    state = None
    for chunk in x.split([4, 1, 6], dim=1):
        forecast, state = model.prefill(chunk, graph.edge_index, graph.edge_attr, state)
    torch.testing.assert_close(forecast, whole, rtol=1e-5, atol=1e-5)
    state = None
    for instant in x.unbind(1):
        forecast, state = model.step(instant, graph.edge_index, graph.edge_attr, state)
    torch.testing.assert_close(forecast, whole, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="readout='last'"):
        build(graph).prefill(x, graph.edge_index, graph.edge_attr)


def test_streaming_equals_the_whole_with_time_and_profile(graph):
    model = build(graph, readout="last", weekly_profile=True)
    x, hours = graph.x[:, 160:171], torch.arange(160, 171)
    times = {"time_of_day": hours % 24 / 24, "day_of_week": hours // 24 % 7}
    whole = model(x, graph.edge_index, graph.edge_attr, **times)
    state = None
    for part in torch.arange(11).split([4, 1, 6]):
        now = {name: value[part] for name, value in times.items()}
        forecast, state = model.prefill(x[:, part], graph.edge_index, graph.edge_attr, state, **now)
    torch.testing.assert_close(forecast, whole, rtol=1e-5, atol=1e-5)
    state = None
    for step, instant in enumerate(x.unbind(1)):
        now = {name: value[step] for name, value in times.items()}
        forecast, state = model.step(instant, graph.edge_index, graph.edge_attr, state, **now)
    torch.testing.assert_close(forecast, whole, rtol=1e-5, atol=1e-5)


def test_spatial_operators_may_differ_from_layer_to_layer(graph, windows):
    model = build(graph, spatial=["gat", "attention"], num_layers=3)
    kinds = [type(block.spatial).__name__ for block in model.blocks]
    assert kinds == ["SpatialGAT", "SpatialAttention", "SpatialGAT"]
    assert model(windows[0]).isfinite().all()
    instance = SpatialGAT(8, 4, heads=2)
    assert build(graph, spatial=instance, num_layers=1).blocks[0].spatial is instance


def test_wrong_windows_are_named(graph):
    model = build(graph)
    with pytest.raises(ValueError, match="needs 6 steps, got 7"):
        model(graph.x[:, :7], graph.edge_index)
    with pytest.raises(ValueError, match=r"in_channels=2 takes .* got x of shape \(5, 6, 1\)"):
        model(graph.x[:, :6, :1], graph.edge_index)
    with pytest.raises(ValueError, match=r"x_mask must be .* \(5, 6, 2\), got \(5, 6, 1\)"):
        model(graph.x[:, :6], graph.edge_index, x_mask=graph.x_mask[:, :6, :1])
    with pytest.raises(ValueError, match="needs time_of_day and day_of_week"):
        model(graph.x[:, :6], graph.edge_index, graph.edge_attr)


def randomize_instance_norm(model):
    norm = model.encoder.instance_norm
    norm.weight.data.copy_(torch.tensor([1.5, -0.5]))
    norm.bias.data.copy_(torch.tensor([0.2, 0.1]))
    return norm


@pytest.mark.parametrize("embedded", [False, True])
def test_instance_norm_is_a_norm_around_the_plain_model(graph, windows, embedded):
    options = {} if embedded else {"node_embedding": False, "steps_per_day": None}
    model, plain = build(graph, instance_norm=True, **options), build(graph, **options)
    norm = randomize_instance_norm(model)
    plain.scaler.reset_parameters()
    window = windows[3]
    scaled, missing = model.scaler(window.x), ~window.x_mask
    count = window.x_mask.sum(1, keepdim=True)
    mean = scaled.masked_fill(missing, 0).sum(1, keepdim=True) / count
    square = (scaled - mean).masked_fill(missing, 0).square()
    std = (square.sum(1, keepdim=True) / count + 1e-5).sqrt()
    inside = window.clone()
    inside.x = ((scaled - mean) / std * norm.weight + norm.bias).masked_fill(missing, 7.0)
    y = (plain(inside) - norm.bias[[1, 0]]) / norm.weight[[1, 0]]
    expected = model.scaler.inverse(y * std[..., [1, 0]] + mean[..., [1, 0]], (1, 0))
    torch.testing.assert_close(model(window), expected, rtol=1e-4, atol=1e-3)
    assert not torch.allclose(model(window), build(graph, **options)(window))


def test_instance_norm_moves_forecasts_with_level_and_scale(graph, windows):
    model = build(graph, instance_norm=True)
    randomize_instance_norm(model).eps = 1e-12
    window = windows[3].clone()
    before = model(window)
    factor, level = torch.tensor([1.7, 0.5]), torch.tensor([300.0, -40.0])
    window.x = window.x.clone()
    window.x[2] = window.x[2] * factor + level
    expected = before.clone()
    expected[2] = before[2] * factor[[1, 0]] + level[[1, 0]]
    torch.testing.assert_close(model(window), expected, rtol=1e-4, atol=1e-2)


def test_instance_norm_takes_all_forms_of_a_batch_and_nodes_without_values(graph, windows):
    model = build(graph, instance_norm=True, weekly_profile=True)
    randomize_instance_norm(model)
    picked = [windows[i] for i in (3, 40)]
    picked[0].x_mask = picked[0].x_mask.clone()
    picked[0].x_mask[2] = False
    shared = collate_shared(picked)
    y = model(shared)
    assert y.isfinite().all()
    for column, window in enumerate(picked):
        torch.testing.assert_close(model(window), y[:, column], rtol=1e-4, atol=1e-3)
    disjoint = model(Batch.from_data_list(picked)).unflatten(0, (2, 5))
    torch.testing.assert_close(disjoint.transpose(0, 1), y, rtol=1e-4, atol=1e-3)
    y.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    picked[0].x = picked[0].x.masked_fill(~picked[0].x_mask, float("nan"))
    assert torch.equal(model(collate_shared(picked)), y)


def test_instance_norm_adds_two_numbers_a_channel_and_nothing_when_off(graph, windows):
    names = set(build(graph).state_dict())
    model = build(graph, instance_norm=True)
    added = {"encoder.instance_norm.weight", "encoder.instance_norm.bias"}
    assert set(model.state_dict()) == names | added
    # A model that was saved before the option was there.
    config = {k: v for k, v in build(graph).config().items() if k != "instance_norm"}
    old = STMamba(**config).eval()
    old.load_state_dict(build(graph).state_dict(), strict=True)
    assert torch.equal(old(windows[0]), build(graph)(windows[0]))
    again = STMamba(**model.config()).eval()
    again.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(again(windows[0]), model(windows[0]))
    laws.copies_are_equal(model, lambda copy: copy(windows[0]))


def test_instance_norm_cannot_stream(graph):
    with pytest.raises(ValueError, match=r"instance_norm=True needs readout='window'.*'last'"):
        build(graph, instance_norm=True, readout="last")
    with pytest.raises(ValueError, match="streaming needs"):
        build(graph, instance_norm=True).prefill(graph.x[:, :6], graph.edge_index)


def test_config_builds_the_same_model(graph, windows):
    model = build(graph)
    again = STMamba(**model.config()).eval()
    again.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(again(windows[0]), model(windows[0]))


def test_copies_are_equal_and_inputs_stay_untouched(graph, windows):
    model = build(graph)
    laws.copies_are_equal(model, lambda copy: copy(windows[0]))
    before = windows[0].clone()
    model(windows[0])
    for key in before.keys():  # noqa: SIM118
        if torch.is_tensor(before[key]):
            assert torch.equal(before[key], windows[0][key])


def test_learns_a_wave_along_the_ring(graph):
    """What a node shows is what its predecessor showed one step before: only the graph knows."""
    torch.manual_seed(0)
    noise = torch.randn(1, 600)
    x = torch.stack([noise.roll(i, dims=1) for i in range(5)]).reshape(5, 600, 1)
    model = STMamba(channels=16, num_layers=1, window=3, horizon=1, dropout=0.0, num_heads=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    starts = torch.arange(10, 590)
    inputs = x[:, starts.unsqueeze(1) + torch.arange(3)]
    targets = x[:, starts + 3].unsqueeze(-1)
    edges = graph.edge_index[:, :4]
    for _ in range(60):
        optimizer.zero_grad()
        error = (model(inputs, edges, nodes_first=True) - targets)[1:].abs().mean()
        error.backward()
        optimizer.step()
    # Noise cannot be foretold from a node's own past: without the graph the error stays at 0.8.
    assert error.item() < 0.25


def test_random_features_are_drawn_anew_by_training_passes(graph, windows):
    model = build(graph, temporal="performer")
    attention = model.blocks[0].temporal.attention
    attention.redraw_interval = 2
    before = attention.projection.clone()
    model(windows[0])
    model.train()
    for _ in range(2):
        model(windows[0])
        laws.same(attention.projection, before)
    model(windows[0])
    assert not torch.equal(attention.projection, before)
    assert attention.draws == 1
