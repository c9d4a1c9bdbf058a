import pytest
import torch
from torch_geometric.data import Batch

from pyg_stmamba.data import Protocol, Windows, collate_shared
from pyg_stmamba.models import MODELS, TransformerForecaster
from tests.laws import close, copies_are_equal, same
from tests.nn.transformer.conftest import randomized

W, H = 8, 4
PROTOCOL = Protocol(window=W, horizon=H, target_channels=(1,))
SMALL = {"d_model": 8, "nhead": 2, "num_encoder_layers": 1, "num_decoder_layers": 2}
OPTIONS = [
    {},
    {"teacher_forcing": 1.0, "spatial": "attention"},
    {"decoding": "one-shot", "att_type": "frequency"},
    {"att_type": "frequency", "norm": "rms", "norm_strategy": "post_norm", "spatial": None},
    {"weekly_profile": True, "instance_norm": True, "use_moe": True, "num_experts": 3},
    {"num_nodes": None, "share_layers": True, "use_swiglu": False},
    {"use_gradient_checkpointing": True},
    {"steps_per_day": None, "node_embedding": False, "att_type": "flash"},
]


def model(graph, **options) -> TransformerForecaster:
    arguments = TransformerForecaster.data_arguments(graph, PROTOCOL)
    made = TransformerForecaster(**{**arguments, **SMALL, **options})
    made.scaler.fit(graph.values, graph.mask)
    if made.weekly_profile is not None:
        made.weekly_profile.fit(Windows(graph, W, H, target_channels=(1,)))
    return randomized(made).eval()


@pytest.fixture
def windows(graph) -> Windows:
    return Windows(graph, W, H, target_channels=(1,))


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


@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_trains(graph, windows, options):
    op, data = model(graph, **options).train(), collate_shared([windows[0], windows[5]])
    loss = (op(data) - data.y).square().mean() + op.get_aux_loss()
    loss.backward()
    for name, parameter in op.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert (op.get_aux_loss() > 0) == options.get("use_moe", False)


def forget_the_change(op) -> None:
    with torch.no_grad():
        op.decoder.output_projection.weight.zero_()
        op.decoder.output_projection.bias.zero_()


@pytest.mark.parametrize("decoding", ["autoregressive", "one-shot"])
def test_a_decoder_that_says_nothing_repeats_the_last_value(graph, windows, decoding):
    op, window = model(graph, decoding=decoding), windows[3]
    forget_the_change(op)
    window.x_mask = torch.ones_like(window.x_mask)
    close(op(window), window.x[:, -1:, 1:].expand(-1, H, -1), 1e-3)
    window.x_mask[:, -1, 1] = False
    close(op(window), op.scaler.mean[1].expand(5, H, 1), 1e-3)


def test_an_untrained_model_repeats_the_last_value(graph, windows):
    arguments = TransformerForecaster.data_arguments(graph, PROTOCOL)
    op, window = TransformerForecaster(**arguments, **SMALL).eval(), windows[3]
    op.scaler.fit(graph.values, graph.mask)
    window.x_mask = torch.ones_like(window.x_mask)
    last = window.x[:, -1:, 1:].expand(-1, H, -1)
    close(op(window), last, 1e-3)
    randomized(op)
    assert not torch.allclose(op(window), last)
    op.reset_parameters()
    close(op(window), last, 1e-3)


def test_changes_add_up(graph, windows):
    op, window = model(graph), windows[3]
    forget_the_change(op)
    before = op(window)
    with torch.no_grad():
        op.decoder.output_projection.bias.fill_(0.5)
    steps = 0.5 * torch.arange(1, H + 1).unsqueeze(-1) * op.scaler.std[1]
    close(op(window) - before, steps.expand(5, H, 1), 1e-3)


def test_forecasts_fed_back_are_those_that_are_returned(graph, windows):
    """Taught with its own forecasts, all steps at once, a model gives them again."""
    op = model(graph, teacher_forcing=1.0, dropout=0.0)
    data = collate_shared([windows[0], windows[5]])
    y = op(data)
    taught = data.clone()
    taught.y, taught.y_mask = y.detach(), torch.ones_like(data.y_mask)
    close(op.train()(taught), y, 1e-3)


def test_a_teacher_is_heard_in_later_steps_only(graph, windows):
    op = model(graph, teacher_forcing=1.0, dropout=0.0).train()
    data = collate_shared([windows[0], windows[5]])
    data.y_mask = torch.ones_like(data.y_mask)
    other = data.clone()
    other.y = data.y.clone()
    other.y[..., 2, :] += 100.0
    y, after = op(data), op(other)
    same(after[..., :3, :], y[..., :3, :])
    assert not torch.equal(after[..., 3, :], y[..., 3, :])
    hidden, junk = data.clone(), other.clone()
    hidden.y_mask = data.y_mask.clone()
    hidden.y_mask[..., 2, :] = False
    junk.y_mask = hidden.y_mask
    same(op(junk), op(hidden))  # what was not observed teaches nothing


def test_how_often_a_teacher_is_asked(graph, windows):
    data = collate_shared([windows[0], windows[5]])
    deaf = data.clone()
    deaf.y = data.y + 100.0
    for teacher_forcing, expected in ((0.0, 0), (1.0, 40), (0.5, 20)):
        op = model(graph, teacher_forcing=teacher_forcing, dropout=0.0).train()
        heard = 0
        for seed in range(40):
            torch.manual_seed(seed)
            y = op(data)
            torch.manual_seed(seed)
            heard += not torch.equal(op(deaf), y)
        assert abs(heard - expected) <= 10 * (teacher_forcing == 0.5)


def test_times_of_the_steps_ahead_matter(graph, windows):
    op, data = model(graph), collate_shared([windows[0], windows[5]])
    y = op(data)
    later = data.clone()
    later.y_time_of_day = (data.y_time_of_day + 0.25) % 1
    assert not torch.allclose(op(later), y)
    del later.y_time_of_day
    with pytest.raises(ValueError, match=r"needs y_time_of_day and y_day_of_week"):
        op(later)


def test_what_is_usual_then_matters(graph, windows):
    op, data = model(graph, weekly_profile=True), collate_shared([windows[0], windows[5]])
    usual = torch.full((5, 2, W + H, 1), 500.0)
    data.profile = usual
    y = op(data)
    for step, changed in ((W + 2, [False, False, True, True]), (0, [True] * H)):
        data.profile = usual.clone()
        data.profile[..., step, :] += 300.0
        moved = (op(data) - y).abs().amax((0, 1, 3)) > 1e-3
        assert moved.tolist() == changed


def test_neighbors_matter_where_there_are_edges(graph, windows):
    data = windows[3]
    for spatial, expected in (("gat", {0, 4}), (None, {0}), ("attention", {0, 1, 2, 3, 4})):
        op = model(graph, spatial=spatial)
        leaf = data.x.detach().clone().requires_grad_()
        data.x = leaf
        op(data)[0].sum().backward()  # node 0 hears node 4
        touched = set(leaf.grad.abs().flatten(1).sum(1).nonzero().flatten().tolist())
        assert touched == expected


def test_missing_values_have_no_influence(graph, windows):
    op, data = model(graph, instance_norm=True), windows[3]
    assert not data.x_mask.all()
    y = op(data)
    data.x = data.x.masked_fill(~data.x_mask, 1e4)
    same(op(data), y)


def test_other_graphs_without_node_embeddings(graph, windows):
    op = model(graph, num_nodes=None)
    assert op.num_nodes is None
    fewer = windows[3].subgraph(torch.tensor([0, 1, 2]))
    assert op(fewer).shape == (3, H, 1)
    with pytest.raises(ValueError, match="fixed graph of num_nodes=5, got 3 nodes"):
        model(graph)(fewer)


def test_cost_of_a_forecast_is_that_of_one_pass(graph, windows):
    """All steps one after the other take the products of all at once, and no more: half of the
    scores that a mask throws away are not even computed."""
    from torch.utils.flop_counter import FlopCounterMode

    costs = []
    for options in ({}, {"decoding": "one-shot"}):
        op = model(graph, spatial=None, **options)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            op(windows[3])
        costs.append(counter.get_total_flops())
    assert costs[0] <= costs[1]


def test_registered_and_described(graph):
    assert MODELS["transformer-forecaster"] is TransformerForecaster
    op = model(graph, weekly_profile=True)
    again = TransformerForecaster(**op.config())
    again.load_state_dict(op.state_dict())
    assert repr(op) == (
        "TransformerForecaster(2, window=8, horizon=4, d_model=8, decoding='autoregressive')"
    )


def test_copies(graph, windows):
    data = windows[3]
    copies_are_equal(model(graph, use_moe=True, num_experts=3), lambda op: op(data))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoding": "beam"}, "decoding='beam' is unknown; choose from"),
        ({"teacher_forcing": 1.5}, "teacher_forcing=1.5 must be a probability"),
        ({"target_channels": (2,)}, r"must lie in 0\.\.1"),
        ({"spatial": "gcn"}, "gcn"),
        ({"weekly_profile": True, "num_nodes": None}, "weekly_profile=True needs a fixed graph"),
    ],
)
def test_unknown_options(graph, options, message):
    with pytest.raises(ValueError, match=message):
        model(graph, **options)


def test_wrong_windows(graph):
    window = Windows(graph, W + 1, H, target_channels=(1,))[0]
    with pytest.raises(ValueError, match=r"takes x \[N, ..., 8, 2\], got \[5, 9, 2\]"):
        model(graph)(window)
