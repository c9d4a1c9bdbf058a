import copy
import inspect
import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from pyg_stmamba.data import Windows, collate_shared
from pyg_stmamba.models import SpatioTemporalPerformer, spatio_temporal_performer
from pyg_stmamba.models.series_frame import SeriesFrame
from pyg_stmamba.models.window_tensors import window_tensors
from pyg_stmamba.nn import GlobalNorm, LinearModel, PerformerAttention, TokenTransformer
from tests.laws import close, copies_are_equal, same

B, LC, LT, N, M, INDEX = 3, 9, 6, 5, 3, [4, 0, 2]


def model(**options) -> SpatioTemporalPerformer:
    chosen = {"d_model": 16, "n_heads": 2, "n_decoder_layers": 1, "target_index": INDEX, **options}
    made = SpatioTemporalPerformer(N, M, **chosen)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


def inputs() -> tuple[torch.Tensor, ...]:
    return (
        torch.rand(B, LC, 1),
        3 + 2 * torch.randn(B, LC, N),
        torch.rand(B, LT, 1),
        3 + 2 * torch.randn(B, LT, M),
    )


DECOMPOSED = {"use_seasonal_decomp": True, "decomposition_kernel": 4, "linear_window": 3}
OPTIONS = {
    "plain": {},
    "full attention": {"attention": "full"},
    "local alone": {"global_self_attention": False, "global_cross_attention": False},
    "global alone": {"local_self_attention": False, "local_cross_attention": False},
    "mixed": {"local_self_attention": "full", "global_cross_attention": "full"},
    "revin": {"use_revin": True},
    "everything around": {"use_revin": True, **DECOMPOSED},
    "start": {"start_len": 2},
    "start, everything around": {"start_len": 2, "use_revin": True, **DECOMPOSED},
    "windows": {"windows": 2, "n_encoder_layers": 2, "n_decoder_layers": 2},
    "three quantiles": {"out_dim": 3},
    "halved": {"downsample_convs_embedding": 1, "downsample_convs_block": 1},
    "padded": {"pad_value": -7.0, "null_value": 0.0},
    "time2vec positions": {"position_embedding": "time2vec", "max_seq_len": None},
    "relu kernel": {"performer_attention_kernel": "relu"},
    "normalized queries": {"qk_norm": True, "nb_features": 20},
    "no indicators, no time": {"indicator_embedding": False, "time_embedding": False},
    "other norms": {"normalization_type": "rms", "final_norm": False, "activation": "relu"},
}


@pytest.fixture(params=OPTIONS, ids=str)
def options(request) -> dict:
    return OPTIONS[request.param]


def test_shapes_and_gradients(options):
    op = model(**options).train()
    steps = LT - options.get("start_len", 0)
    y = op(*inputs())
    assert y.shape == (*([3] if "out_dim" in options else []), B, steps, M)
    y.square().mean().backward()
    for name, parameter in op.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    unused = {name for name, parameter in op.named_parameters() if parameter.grad is None}
    assert not unused


def test_one_shot_does_not_look_at_what_it_forecasts(options):
    op, (enc_x, enc_y, dec_x, dec_y) = model(**options), inputs()
    start = options.get("start_len", 0)
    y = op(enc_x, enc_y, dec_x, dec_y)
    for junk in (100.0, torch.nan, torch.inf, -7.0, 0.0):
        other = dec_y.clone()
        other[:, start:] = junk
        same(op(enc_x, enc_y, dec_x, other), y)
    if start:
        other = dec_y.clone()
        other[:, :start] += 1
        assert not torch.equal(op(enc_x, enc_y, dec_x, other), y)
    else:
        same(op(enc_x, enc_y, dec_x), y)


def test_teacher_forcing_sees_earlier_steps_only(options):
    op, (enc_x, enc_y, dec_x, dec_y) = model(**options), inputs()
    start = options.get("start_len", 0)
    y = op(enc_x, enc_y, dec_x, dec_y, mode="teacher_forcing")
    for t in range(start, LT):
        other = dec_y.clone()
        other[:, t:] = -50.0
        after = op(enc_x, enc_y, dec_x, other, mode="teacher_forcing")
        same(after[..., : t - start + 1, :], y[..., : t - start + 1, :])
        if t + 1 < LT:
            assert not torch.equal(after[..., t - start + 1 :, :], y[..., t - start + 1 :, :])
    # In gradients too, and of any variable.
    leaf = dec_y.clone().requires_grad_()
    y = op(enc_x, enc_y, dec_x, leaf, mode="teacher_forcing")
    y[..., 2, :].sum().backward()
    assert (leaf.grad[:, start + 2 :] == 0).all()
    assert (leaf.grad[:, start : start + 2] != 0).any()


@pytest.mark.parametrize("attention", ["performer", "full"])
def test_later_times_reach_earlier_steps_in_one_shot_alone(attention):
    op, (enc_x, enc_y, dec_x, dec_y) = model(attention=attention), inputs()
    other = dec_x.clone()
    other[:, -1] += 1.0
    for mode in ("one_shot", "teacher_forcing", "autoregressive"):
        y = op(enc_x, enc_y, dec_x, dec_y, mode=mode)
        after = op(enc_x, enc_y, other, dec_y, mode=mode)
        assert not torch.equal(after[:, -1], y[:, -1])
        assert torch.equal(after[:, :-1], y[:, :-1]) == (mode != "one_shot")


def test_autoregression_is_the_fixed_point_of_teacher_forcing(options):
    op, (enc_x, enc_y, dec_x, dec_y) = model(**options), inputs()
    start = options.get("start_len", 0)
    y = op.forecast(enc_x, enc_y, dec_x, dec_y)
    assert not y.requires_grad
    fed_back = torch.cat([dec_y[:, :start], y[0] if y.dim() == 4 else y], 1)
    close(op(enc_x, enc_y, dec_x, fed_back, mode="teacher_forcing"), y, 1e-5)
    # The steps ahead are not looked at.
    dec_y[:, start:] = torch.nan
    same(op.forecast(enc_x, enc_y, dec_x, dec_y), y)


def test_missing_values_have_no_influence(options):
    op, (enc_x, enc_y, dec_x, dec_y) = model(**options), inputs()
    observed, known = torch.rand(B, LC, N) < 0.6, torch.rand(B, LT, M) < 0.6
    for mode in ("one_shot", "teacher_forcing", "autoregressive"):
        run = [
            op(
                enc_x,
                enc_y.masked_fill(~observed, junk),
                dec_x,
                dec_y.masked_fill(~known, junk),
                mode=mode,
                observed_mask=observed,
                target_mask=known,
            )
            for junk in (1.0, 1e6, torch.nan)
        ]
        assert run[0].isfinite().all()
        same(run[1], run[0])
        same(run[2], run[0])
        by_nan = op(
            enc_x,
            enc_y.masked_fill(~observed, torch.nan),
            dec_x,
            dec_y.masked_fill(~known, torch.nan),
            mode=mode,
        )
        same(by_nan, run[0])
    leaf = enc_y.masked_fill(~observed, torch.nan).requires_grad_()
    op(enc_x, leaf, dec_x, dec_y).sum().backward()
    assert (leaf.grad[~observed] == 0).all()
    assert leaf.grad.isfinite().all()


def test_a_missing_value_is_not_a_zero():
    """Given values that are what stands in the place of missing ones make a difference."""
    op, (enc_x, enc_y, dec_x, dec_y) = model(start_len=2), inputs()
    enc_y[:, 3], dec_y[:, 1] = 0.0, 0.0
    some, known = torch.ones(B, LC, N).bool(), torch.ones(B, LT, M).bool()
    hidden, unknown = some.clone(), known.clone()
    hidden[:, 3], unknown[:, 1] = False, False
    for observed_mask, target_mask in ((hidden, known), (some, unknown)):
        for mode in ("one_shot", "teacher_forcing"):
            given = {"observed_mask": some, "target_mask": known, "mode": mode}
            y = op(enc_x, enc_y, dec_x, dec_y, **given)
            given |= {"observed_mask": observed_mask, "target_mask": target_mask}
            assert not torch.equal(op(enc_x, enc_y, dec_x, dec_y, **given), y)


def test_nothing_observed_at_all_is_finite(options):
    op, (enc_x, _, dec_x, dec_y) = model(**options), inputs()
    nothing = torch.full((B, LC, N), torch.nan)
    assert op(enc_x, nothing, dec_x, dec_y).isfinite().all()
    assert op.forecast(enc_x, nothing, dec_x, dec_y).isfinite().all()


def test_windows_are_independent_and_copies_equal(options):
    op, given = model(**options), inputs()
    y = op(*given)
    batch = y.dim() - 3
    one = op(*(tensor[1:2] for tensor in given))
    close(one, y.narrow(batch, 1, 1), 1e-5)
    if "time_embedding" not in options:
        copies_are_equal(op, lambda op: op(*given))


def test_inputs_stay_untouched(options):
    op, given = model(**options), inputs()
    before = copy.deepcopy(given)
    for mode in ("one_shot", "teacher_forcing", "autoregressive"):
        op(*given, mode=mode)
    for kept, tensor in zip(before, given):
        same(tensor, kept)


@pytest.mark.parametrize("use_revin", [False, True])
def test_padding_is_the_window_without_it(use_revin):
    op = model(pad_value=-7.0, attention="full", use_revin=use_revin)
    enc_x, enc_y, dec_x, dec_y = inputs()
    padded = enc_y.clone()
    padded[:, 6:] = -7.0
    close(
        op(enc_x, padded, dec_x, dec_y),
        op(enc_x[:, :6], enc_y[:, :6], dec_x, dec_y),
        1e-5,
    )


def test_padding_at_the_start_reaches_nothing():
    op, (enc_x, enc_y, dec_x, dec_y) = model(pad_value=-7.0, start_len=3), inputs()
    dec_y[:, :2] = -7.0
    for mode in ("one_shot", "teacher_forcing"):
        y = op(enc_x, enc_y, dec_x, dec_y, mode=mode)
        # Nothing of its tokens, time included.
        other = dec_x.index_fill(1, torch.tensor([0, 1]), 9.0)
        close(op(enc_x, enc_y, other, dec_y, mode=mode), y, 1e-6)


def test_null_and_nan_are_missing():
    op, (enc_x, enc_y, dec_x, dec_y) = model(null_value=0.0, use_revin=True), inputs()
    hidden = torch.rand(B, LC, N) < 0.3
    expected = op(enc_x, enc_y, dec_x, dec_y, observed_mask=~hidden)
    same(op(enc_x, enc_y.masked_fill(hidden, 0.0), dec_x, dec_y), expected)
    by_nan = enc_y.masked_fill(hidden, torch.nan)
    same(op(enc_x, by_nan, dec_x, dec_y), expected)
    # Whoever says that NaN was observed is wrong.
    every = torch.ones_like(hidden)
    same(op(enc_x, by_nan, dec_x, dec_y, observed_mask=every), expected)
    expected = op(enc_x, enc_y, dec_x, dec_y, observed_mask=~hidden, mode="autoregressive")
    same(op.forecast(enc_x, enc_y, dec_x, observed_mask=~hidden), expected)


@pytest.mark.parametrize("time_embedding", [False, True, "spectral"])
def test_time(time_embedding):
    op, (enc_x, enc_y, dec_x, dec_y) = model(time_embedding=time_embedding), inputs()
    if time_embedding == "spectral":
        steps = torch.arange(200.0)
        op.spectral_time.fit(torch.sin(2 * math.pi * 0.11 * steps).unsqueeze(-1))
        assert op.transformer.decoder_embedding.time is op.transformer.encoder_embedding.time
    y = op(enc_x, enc_y, dec_x, dec_y)
    for place in (0, 2):
        given = [enc_x, enc_y, dec_x, dec_y]
        given[place] = given[place] + 0.7
        assert torch.equal(op(*given), y) == (time_embedding is False)


def test_revin_moves_with_the_window():
    op, (enc_x, enc_y, dec_x, dec_y) = model(use_revin=True), inputs()
    y = op(enc_x, enc_y, dec_x, dec_y)
    close(op(enc_x, 10 * enc_y + 70, dec_x, dec_y), 10 * y + 70, 2e-3)


def test_a_global_norm_brings_values_to_its_units_and_back():
    mean, std = torch.arange(5.0), torch.arange(5.0) + 1
    norm = GlobalNorm(mean, std, affine=False)
    torch.manual_seed(1)
    op = model(global_norm=norm)
    torch.manual_seed(1)
    bare = model()
    enc_x, enc_y, dec_x, dec_y = inputs()
    y = bare(enc_x, (enc_y - mean) / std, dec_x, (dec_y - mean[INDEX]) / std[INDEX])
    close(op(enc_x, enc_y, dec_x, dec_y), y * std[INDEX] + mean[INDEX], 1e-5)


def test_the_linear_model_is_added():
    op, (enc_x, enc_y, dec_x, dec_y) = model(linear_window=4, linear_shared_weights=False), inputs()
    with torch.no_grad():
        op.transformer.head.weight.zero_()
        op.transformer.head.bias.zero_()
    assert isinstance(op.frame.linear, LinearModel)
    same(op(enc_x, enc_y, dec_x, dec_y), op.frame.linear(enc_y[..., INDEX], LT))


def test_modes_by_training():
    op, given = model(autoregressive_training=True), inputs()
    same(op(*given), op(*given, mode="autoregressive"))
    op = model(autoregressive_training=True, dropout_ff=0.0, data_dropout_embedding=None).train()
    same(op(*given), op(*given, mode="teacher_forcing"))
    op = model(dropout_ff=0.0, data_dropout_embedding=None).train()
    same(op(*given), op(*given, mode="one_shot"))


def test_scheduled_sampling():
    quiet = {"dropout_ff": 0.0, "data_dropout_embedding": None, "autoregressive_training": True}
    op, given = model(scheduled_sampling=2.0, **quiet).train(), inputs()
    expected = op(*given, mode="autoregressive")
    assert op.training_passes == 0
    torch.manual_seed(0)
    assert not torch.equal(op(*given), expected)  # probably some truth among six steps
    assert op.training_passes == 1
    op.training_passes.fill_(10**6)
    y = op(*given)
    close(y, expected, 1e-6)
    y.square().sum().backward()
    for name, parameter in op.named_parameters():
        assert parameter.grad is not None, name
    # The last step depends on the first through what was fed back.
    assert op.eval()(*given).shape == (B, LT, M)
    assert op.training_passes == 10**6 + 1
    # Evaluation gives the truth that it was asked to give.
    for _ in range(2):
        same(op(*given, mode="teacher_forcing"), op(*given, mode="teacher_forcing"))
    assert op.training_passes == 10**6 + 1
    assert op.state_dict()["training_passes"] == 10**6 + 1
    op.reset_parameters()
    assert op.training_passes == 0
    always = model(scheduled_sampling=1e9, **quiet).train()
    y = always(*given)
    close(y, always.eval()(*given, mode="teacher_forcing"), 1e-6)


def test_gradients_flow_through_what_is_fed_back():
    op, (enc_x, enc_y, dec_x, dec_y) = model(), inputs()
    first = enc_x.clone().requires_grad_()
    y = op(first, enc_y, dec_x, dec_y, mode="autoregressive")
    kept = []

    def hook(module, arguments, output):
        kept.append(output[0])
        output[0].retain_grad()

    handle = op.transformer.decoder.register_forward_hook(hook)
    y = op(enc_x, enc_y, dec_x, dec_y, mode="autoregressive")
    handle.remove()
    y[:, -1].sum().backward()
    # What the decoder said in its first run was fed back, and moved the last step.
    assert (kept[0].grad != 0).any()


def test_features_are_drawn_anew_by_training_passes_alone():
    op, given = model(redraw_interval=3), inputs()
    attentions = [module for module in op.modules() if isinstance(module, PerformerAttention)]
    assert len(attentions) == 8
    before = [module.projection.clone() for module in attentions]
    for _ in range(5):
        op(*given)
    same(attentions[0].projection, before[0])
    op.train()
    for _ in range(3):
        op(*given, output_attention=True)
        same(attentions[0].projection, before[0])
    op(*given)
    for module, projection in zip(attentions, before):
        assert not torch.equal(module.projection, projection)
        assert module.draws == 1


def test_weights_of_all_attentions():
    op, given = model(attention="full", n_encoder_layers=2), inputs()
    y, (encoder, decoder) = op(*given, output_attention=True)
    same(y, op(*given))
    assert [len(layer) for layer in encoder] == [2, 2]
    assert [len(layer) for layer in decoder] == [4]
    for weights in itertools.chain(*encoder, *decoder):
        close(weights.sum(-1), torch.ones_like(weights[..., 0]), 1e-5)
    assert decoder[0][3].shape == (B, 2, M * LT, N * LC)


def test_many_features_come_close_to_full_attention():
    torch.manual_seed(3)
    full, given = model(attention="full"), inputs()
    torch.manual_seed(3)
    few = model(nb_features=8)
    torch.manual_seed(3)
    many = model(nb_features=8192)
    for op in (few, many):
        state = {**op.state_dict(), **full.state_dict()}
        op.load_state_dict(state)
    expected = full(*given)
    error = [(op(*given) - expected).norm() / expected.norm() for op in (few, many)]
    assert error[1] < 0.03
    assert error[1] < 0.3 * error[0]


def test_windows_of_a_graph(graph):
    windows = Windows(graph, 6, 4, target_channels=(1,))
    op = SpatioTemporalPerformer(
        10, 5, 2, 16, n_heads=2, target_index=[1, 3, 5, 7, 9], use_revin=True
    ).eval()
    data = collate_shared([windows[0], windows[7]])
    y = op(data)
    assert y.shape == data.y.shape == (5, 2, 4, 1)
    tensors = window_tensors(data, 2)
    expected = op(*tensors[:4], observed_mask=tensors.observed_mask)
    for n in range(5):
        same(y[n, ..., 0], expected[..., n])
    close(op(windows[7]), y[:, 1], 1e-4)
    masks = {"observed_mask": tensors.observed_mask, "target_mask": tensors.target_mask}
    for mode in ("teacher_forcing", "autoregressive"):
        y, expected = op(data, mode=mode), op(*tensors[:4], mode=mode, **masks)
        same(y[..., 0].permute(1, 2, 0), expected)


def test_options_reach_transformer_and_frame(monkeypatch):
    found = {}

    def spy(made):
        def make(*arguments, **options):
            found.update(inspect.signature(made).bind(*arguments, **options).arguments)
            return made(*arguments, **options)

        return make

    for made in (TokenTransformer, SeriesFrame):
        monkeypatch.setattr(spatio_temporal_performer, made.__name__, spy(made))
    options = {
        "d_x": 2, "d_model": 24, "max_seq_len": 40, "d_q_k": 5, "d_v": 7, "n_heads": 3,
        "n_encoder_layers": 3, "n_decoder_layers": 1, "d_ff": 20, "time_emb_dim": 4,
        "downsample_convs_embedding": 1, "downsample_convs_block": 2,
        "data_dropout_embedding": 0.3, "dropout_attn": 0.05, "dropout_qkv": 0.06,
        "dropout_ff": 0.07, "dropout_embedding": 0.08, "redraw_interval": 9,
        "time_embedding": "spectral", "indicator_embedding": False,
        "performer_attention_kernel": "relu", "windows": 2, "use_shifted_time_window": False,
        "activation": "relu", "normalization_type": "rms", "final_norm": False, "out_dim": 2,
        "attention": "full", "global_self_attention": "performer", "local_self_attention": False,
        "global_cross_attention": "full", "local_cross_attention": "performer",
        "position_embedding": "time2vec", "nb_features": 11, "qk_norm": True, "use_revin": True,
        "linear_window": 3, "linear_shared_weights": False,
        "global_norm": GlobalNorm(torch.zeros(N), torch.ones(N)), "target_index": INDEX,
    }  # fmt: skip
    op = SpatioTemporalPerformer(N, M, use_seasonal_decomp=True, decomposition_kernel=6, **options)
    assert {name: found[name] for name in options} == options
    assert found["kernel_size"] == 6
    local_cross = op.transformer.decoder.layers[0].local_cross.attention
    assert local_cross.target_index.tolist() == INDEX
    SpatioTemporalPerformer(N, M, **options)
    assert found["kernel_size"] is None


def test_bad_input():
    enc_x, enc_y, dec_x, dec_y = inputs()
    with pytest.raises(ValueError, match=r"mode='two_shot'.*one_shot"):
        model()(enc_x, enc_y, dec_x, dec_y, mode="two_shot")
    with pytest.raises(ValueError, match=r"dec_y must be \[3, 6, 3\], got \[3, 6, 2\]"):
        model()(enc_x, enc_y, dec_x, dec_y[..., :2])
    with pytest.raises(ValueError, match=r"start_len=2.*dec_y"):
        model(start_len=2)(enc_x, enc_y, dec_x)
    with pytest.raises(ValueError, match="start_len=-1 must not be negative"):
        model(start_len=-1)
    with pytest.raises(ValueError, match=r"scheduled_sampling=0.0 must be above zero"):
        model(scheduled_sampling=0.0)
    with pytest.raises(ValueError, match="start_len=6"):
        model(start_len=6)(enc_x, enc_y, dec_x, dec_y)
    with pytest.raises(ValueError, match=r"d_model=17 .* n_heads=2"):
        model(d_model=17)
    with pytest.raises(ValueError, match="attention 'flash' is unknown"):
        model(attention="flash")
    with pytest.raises(ValueError, match=r"target_index.*\[5, 0, 2\]"):
        model(target_index=[5, 0, 2])
    with pytest.raises(ValueError, match="linear_window=0"):
        model(use_seasonal_decomp=True)
    with pytest.raises(ValueError, match=r"takes a window Data, or enc_x"):
        model()(enc_x)
    with pytest.raises(ValueError, match=r"enc_y must be \[3, 9, 5\], got \[3, 9, 2\]"):
        model()(enc_x, enc_y[..., :2], dec_x, dec_y)
    with pytest.raises(ValueError, match=r"True = observed.* \[3, 9, 5\].*float32 \[3, 9, 5\]"):
        model()(enc_x, enc_y, dec_x, dec_y, observed_mask=torch.ones(3, 9, 5))
    with pytest.warns(UserWarning, match="batchnorm"):
        model(normalization_type="batchnorm", autoregressive_training=True)
    assert repr(model()) == "SpatioTemporalPerformer(5, 3, d_x=1, layers=2+1)"


def test_learns_what_a_linear_model_cannot():
    """Two tones, their product and the square of their sum, with the phases of the tones as time
    features: C29 of the acceptance table."""
    torch.manual_seed(0)
    window, horizon = 16, 8
    t = torch.arange(1500.0)
    clock = torch.stack([2 * math.pi * t / 23, 2 * math.pi * t / 9.7], -1) % (2 * math.pi)
    a, b = clock[:, 0].sin(), (clock[:, 1] + 1).sin()
    series = torch.stack([a, b, a * b, (a + b).square()], -1) + 0.05 * torch.randn(1500, 4)

    def batch(starts):
        at = torch.as_tensor(starts)[:, None] + torch.arange(window + horizon)
        x, y = clock[at], series[at]
        return x[:, :window], y[:, :window], x[:, window:], y[:, window:]

    def train(module, forecast, passes, rate):
        optimizer = torch.optim.Adam(module.parameters(), rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, passes, pct_start=0.1)
        for _ in range(passes):
            *given, truth = batch(torch.randint(1000, (32,)))
            optimizer.zero_grad()
            F.mse_loss(forecast(*given), truth).backward()
            optimizer.step()
            schedule.step()

    op = SpatioTemporalPerformer(
        4, 4, 2, 32, n_heads=4, n_encoder_layers=1, n_decoder_layers=1,
        dropout_ff=0.0, data_dropout_embedding=None, local_self_attention="full",
        local_cross_attention="full",
    )  # fmt: skip
    linear = LinearModel(window, d_yt=4)
    train(linear, lambda enc_x, enc_y, dec_x: linear(enc_y, horizon), 400, 1e-2)
    train(op, op, 200, 1e-2)
    *given, truth = batch(range(1100, 1470, 3))
    with torch.no_grad():
        error = F.mse_loss(op.eval()(*given), truth)
        of_linear = F.mse_loss(linear(given[1], horizon), truth)
        of_last = F.mse_loss(given[1][:, -1:].expand_as(truth), truth)
    assert error < 0.8 * min(of_linear, of_last)
