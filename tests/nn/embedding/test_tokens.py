import itertools

import numpy as np
import pytest
import torch
from torch import nn

from pyg_stmamba.nn.embedding import Embedding, SpectralTimeEmbedding
from pyg_stmamba.nn.embedding.given_values import given_and_padding
from tests.laws import close, copies_are_equal, inputs_stay_untouched, layout_does_not_matter, same

B, L, N, C, D = 2, 5, 3, 2, 8
NAN = float("nan")


def embedding(**options) -> Embedding:
    """With tables as large as the rest, so that none is lost in the tolerance."""
    options = {"d_y": N, "d_x": C, "d_model": D, "max_seq_len": 16, **options}
    op = Embedding(**options)
    with torch.no_grad():
        for table in (op.given, op.space, op.position.embedding):
            if isinstance(table, nn.Embedding):
                table.weight.normal_()
    return op


def spectral() -> SpectralTimeEmbedding:
    t = torch.arange(400.0).unsqueeze(1)
    tones = torch.cat([(0.6 * t).sin(), (1.7 * t).cos()], 1)
    return SpectralTimeEmbedding(2).fit(tones + 0.1 * torch.randn(400, 2))


def by_loops(op: Embedding, y, x, given) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The formula for one token after the other, in float64."""
    state = {name: value.double().numpy() for name, value in op.state_dict().items()}
    y, x = y.double().numpy(), x.double().numpy()
    steps = y.shape[1]
    tokens, space = np.zeros((B, N * steps, D)), np.zeros((B, N * steps, D))
    index = np.zeros((B, N * steps), dtype=int)
    for b, i, t in itertools.product(range(B), range(N), range(steps)):
        token = np.zeros(D)
        features = []
        if isinstance(op.time, SpectralTimeEmbedding):
            for f in state["time.freqs"]:
                features += [np.sin(2 * np.pi * f * x[b, t, 0]), np.cos(2 * np.pi * f * x[b, t, 0])]
        elif op.time is not None and not op.time.enabled:
            features += x[b, t].tolist()
        elif op.time is not None:
            for c in range(C):
                phase = state["time.weight"][c] * x[b, t, c] + state["time.bias"][c]
                features += [phase[0], *np.sin(phase[1:])]
        if op.use_value:
            features.append(y[b, t, i] if given[b, t, i] else 0.0)
        if features:
            token += state["value_time.weight"] @ np.array(features) + state["value_time.bias"]
        if op.position.position_embedding == "learned":
            token += state["position.embedding.weight"][t]
        else:
            weight, bias = state["position.embedding.weight"], state["position.embedding.bias"]
            token += np.sin(weight[0, 1:] * t + bias[0, 1:])
        if op.given is not None:
            token += state["given.weight"][int(given[b, t, i])]
        place = i * steps + t
        tokens[b, place] = token
        index[b, place] = i
        if op.space is not None:
            space[b, place] = state["space.weight"][i]
    return torch.from_numpy(tokens), torch.from_numpy(space), torch.from_numpy(index)


@pytest.mark.parametrize("time", [True, False, "features as they are", "spectral"])
@pytest.mark.parametrize("position_embedding", ["learned", "time2vec"])
@pytest.mark.parametrize("indicator_embedding", [True, False])
@pytest.mark.parametrize("use_value", [True, False])
@pytest.mark.parametrize("use_space", [True, False])
@pytest.mark.parametrize("is_encoder", [True, False])
def test_tokens_by_loops(
    time, position_embedding, indicator_embedding, use_value, use_space, is_encoder
):
    options = {
        "position_embedding": position_embedding,
        "indicator_embedding": indicator_embedding,
        "use_value": use_value,
        "use_space": use_space,
    }
    if time == "spectral":
        options["time_embedding"] = spectral()
    elif time == "features as they are":
        options["time_emb_dim"] = 0
    else:
        options["time_embedding"] = time
    op = embedding(is_encoder=is_encoder, start_len=2, **options)
    y, x = torch.randn(B, L, N), torch.randn(B, L, C)
    observed = torch.rand(B, L, N) > 0.3
    given = observed.clone()
    if not is_encoder:
        given[:, 2:] = False

    tokens, space, index, padding = op(y, x, observed)
    expected_tokens, expected_space, expected_index = by_loops(op, y, x, given)
    close(tokens.detach().double(), expected_tokens, 1e-6)
    close(space.detach().double(), expected_space, 1e-6)
    same(index, expected_index)
    assert padding is None


def flags(op: Embedding, y, *masks, **options):
    """What the tokens say about g, back in the layout of y."""
    with torch.no_grad():
        op.position.embedding.weight.zero_()
        op.given.weight.copy_(torch.tensor([[0.0], [1.0]]).expand(2, D))
    tokens, _, _, padding = op(y, None, *masks, **options)
    given = tokens[..., 0].unflatten(1, (N, -1)).transpose(1, 2) == 1
    if padding is not None:
        padding = padding.squeeze(-1).unflatten(1, (N, -1)).transpose(1, 2)
    return given, padding


def flag_only(**options) -> Embedding:
    options = {"null_value": -1.0, "pad_value": -9.0, "max_seq_len": 2000, **options}
    return embedding(time_embedding=False, use_value=False, **options)


def every_kind(steps: int):
    """Values and a mask with each combination of observed, NaN, null and padding in them."""
    kinds = torch.tensor([0.5, 0.0, NAN, -1.0, -9.0])
    y = kinds[torch.randint(5, (B, steps, N))]
    return y, torch.rand(y.shape) < 0.5


@pytest.mark.parametrize("is_encoder", [True, False])
@pytest.mark.parametrize("start_len", [0, 3, 50])
def test_tokens_say_what_is_given_and_what_is_padding(is_encoder, start_len):
    y, observed = every_kind(steps=20)
    known = None if is_encoder else start_len
    expected_given, expected_padding = given_and_padding(y, observed, None, -1.0, -9.0, known)
    for op, options in (
        (flag_only(is_encoder=is_encoder, start_len=start_len), {}),
        (flag_only(is_encoder=is_encoder, start_len=7), {"start_len": start_len}),
    ):
        given, padding = flags(op, y, observed, **options)
        same(given, expected_given)
        same(padding, expected_padding)
    assert flags(flag_only(pad_value=None), y)[1] is None


def test_a_padding_mask_takes_the_place_of_the_value():
    y, observed = every_kind(steps=20)
    mask = torch.rand(y.shape) < 0.5
    given, padding = flags(flag_only(), y, observed, padding_mask=mask)
    same(given, given_and_padding(y, observed, mask, -1.0)[0])
    same(padding, mask)


@pytest.mark.parametrize("is_encoder", [True, False])
def test_data_dropout_hides_given_values_in_training(is_encoder):
    y, observed = every_kind(steps=2000)
    options = {"is_encoder": is_encoder, "start_len": 2000}
    expected_given, expected_padding = flags(flag_only(**options), y, observed)
    op = flag_only(data_dropout=0.3, **options)
    given, padding = flags(op, y, observed)
    assert not (given & ~expected_given).any()
    assert given[expected_given].float().mean().item() == pytest.approx(0.7, abs=0.03)
    same(padding, expected_padding)
    assert not torch.equal(given, flags(op, y, observed)[0])
    same(flags(op.eval(), y, observed)[0], expected_given)
    assert not flags(flag_only(data_dropout=1.0, **options), y, observed)[0].any()
    same(flags(flag_only(data_dropout=0.0, **options), y, observed)[0], expected_given)


def test_a_hidden_value_counts_as_missing():
    op = embedding(data_dropout=1.0)
    y, x = torch.randn(B, L, N), torch.randn(B, L, C)
    same(op(y, x)[0], op.eval()(y, x, torch.zeros(B, L, N, dtype=torch.bool))[0])
    assert not torch.equal(op(y, x)[0], op.train()(y, x)[0])


@pytest.mark.parametrize("is_encoder", [True, False])
@pytest.mark.parametrize("downsample_convs", [0, 1])
def test_the_value_of_a_missing_entry_never_matters(is_encoder, downsample_convs):
    op = embedding(
        is_encoder=is_encoder, start_len=3, downsample_convs=downsample_convs, pad_value=-9.0
    )
    y, x = torch.randn(B, L, N), torch.randn(B, L, C)
    y[0, 0, 0] = -9.0
    observed = torch.rand(B, L, N) > 0.4
    observed[0, 0, 0] = True
    missing = ~observed
    if not is_encoder:
        missing = missing | (torch.arange(L)[:, None] >= 3)
    tokens, space, _, padding = op(y, x, observed)
    for junk in (1e9, NAN, float("inf")):
        other = op(y.masked_fill(missing, junk), x, observed)
        same(other[0], tokens)
        same(other[1], space)
        same(other[3], padding)
    if not is_encoder:  # not even by looking like padding
        other = op(y.masked_fill(missing & observed, -9.0), x, observed)
        same(other[0], tokens)
        same(other[3], padding)

    leaf = y.masked_fill(missing, NAN).requires_grad_()
    op.zero_grad()
    op(leaf, x, observed)[0].square().sum().backward()
    assert (leaf.grad[missing] == 0).all()
    assert (leaf.grad[~missing & (y != -9.0)] != 0).any()
    for name, parameter in op.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_nan_is_missing():
    op = embedding()
    y, x = torch.randn(B, L, N), torch.randn(B, L, C)
    observed = torch.rand(B, L, N) > 0.4
    same(op(y.masked_fill(~observed, NAN), x)[0], op(y, x, observed)[0])


def test_missing_is_not_zero():
    op, x = embedding(), torch.randn(B, L, C)
    y = torch.zeros(B, L, N)
    assert not torch.equal(op(y, x)[0], op(y.fill_(NAN), x)[0])


def test_without_time_embedding_time_does_not_matter():
    op = embedding(time_embedding=False)
    y = torch.randn(B, L, N)
    tokens = op(y)[0]
    for x in (torch.randn(B, L, C), torch.full((B, L, C), NAN), torch.randn(1)):
        same(op(y, x)[0], tokens)
    assert op.value_time.weight.shape == (D, 1)


def test_spectral_time_by_name_is_fitted_later():
    op = embedding(time_embedding="spectral", time_emb_dim=5)
    assert op.time.num_modes == 2
    y, x = torch.randn(B, L, N), torch.randn(B, L, C)
    with pytest.raises(ValueError, match="call fit on the training rows"):
        op(y, x)
    op.time.load_state_dict(spectral().state_dict())
    tokens = op(y, x)[0]
    x[..., 1:] = NAN  # the first feature is the time
    same(op(y, x)[0], tokens)
    op.reset_parameters()
    assert op.time.n_modes == 2


def test_spectral_time_is_exact_late_in_the_record():
    """Time in float64 goes in as it is, though the model is in float32."""
    op = embedding(time_embedding=spectral())
    y, x = torch.randn(B, L, N), 1e9 + torch.rand(B, L, C, dtype=torch.float64)
    tokens = op(y, x)[0]
    assert tokens.dtype == torch.float32
    expected = by_loops(op, y, x, torch.ones(B, L, N))[0]
    close(tokens.detach().double(), expected, 1e-5)


def test_a_given_instance_is_used_as_it_is():
    time = spectral()
    encoder, decoder = embedding(time_embedding=time), embedding(time_embedding=time)
    assert encoder.time is decoder.time is time


def halved_by_torch(conv, tokens: torch.Tensor) -> torch.Tensor:
    """One variable after the other."""
    stack = nn.Sequential(conv.conv, conv.norm, nn.GELU(), nn.MaxPool1d(3, 2, 1))
    parts = [stack(part.transpose(1, 2)).transpose(1, 2) for part in tokens.chunk(N, 1)]
    return torch.cat(parts, 1)


@pytest.mark.parametrize(("downsample_convs", "lengths"), [(1, [7, 4]), (2, [7, 4, 2])])
def test_convolutions_shorten_the_time_of_each_variable(downsample_convs, lengths):
    op = embedding(downsample_convs=downsample_convs).eval()
    y, x = torch.randn(B, 7, N), torch.randn(B, 7, C)
    tokens, space, index, padding = op(y, x)
    expected = by_loops(op, y, x, torch.ones(B, 7, N))[0].float()
    for conv, length in zip(op.convs, lengths[1:], strict=True):
        expected = halved_by_torch(conv, expected)
        assert expected.size(1) == N * length
    close(tokens, expected, 1e-5)
    same(index, torch.arange(N).repeat_interleave(lengths[-1]).expand(B, -1))
    same(space, op.space.weight[index])
    assert padding is None


def halved_by_definition(padding: torch.Tensor) -> torch.Tensor:
    """A pooled token saw three convolved ones at most, each of which saw three, in a circle."""
    steps = padding.size(1)
    shorter = torch.zeros(B, -(-steps // 2), N, dtype=torch.bool)
    for b, j, i in itertools.product(range(B), range(shorter.size(1)), range(N)):
        pooled = [t for t in (2 * j - 1, 2 * j, 2 * j + 1) if 0 <= t < steps]
        seen = {(t + shift) % steps for t in pooled for shift in (-1, 0, 1)}
        shorter[b, j, i] = all(padding[b, t, i] for t in seen)
    return shorter


@pytest.mark.parametrize("downsample_convs", [1, 2])
def test_shortened_padding(downsample_convs):
    op = embedding(downsample_convs=downsample_convs, pad_value=-9.0, max_seq_len=31)
    y, x = torch.randn(B, 31, N), torch.randn(B, 31, C)
    padding = torch.zeros(B, 31, N, dtype=torch.bool)
    padding[0, 12:] = padding[1, 8:24, 0] = padding[1, ::2, 1] = padding[1, 3:, 2] = True
    mask = op(y.masked_fill(padding, -9.0), x)[3]
    for _ in range(downsample_convs):
        padding = halved_by_definition(padding)
    same(mask, padding.transpose(1, 2).reshape(B, -1, 1))
    assert mask.any()
    assert not mask.all()


def test_padding_enters_a_convolution_as_zero():
    op = embedding(downsample_convs=1, pad_value=-9.0).eval()
    y, x = torch.randn(B, 7, N), torch.randn(B, 7, C)
    y[:, 4:] = -9.0
    tokens = by_loops(op, y, x, y != -9.0)[0].float()
    tokens = tokens.masked_fill((y == -9.0).transpose(1, 2).reshape(B, -1, 1), 0.0)
    close(op(y, x)[0], halved_by_torch(op.convs[0], tokens), 1e-5)


def test_a_decoder_keeps_its_length():
    op = embedding(downsample_convs=2, is_encoder=False)
    assert len(op.convs) == 0
    assert op(torch.randn(B, L, N), torch.randn(B, L, C))[0].shape == (B, N * L, D)


def test_initialization():
    op = Embedding(100, 1, 64, max_seq_len=100)
    for table in (op.space, op.position.embedding):
        assert table.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert op.given.weight.std().item() == pytest.approx(0.02, rel=0.3)


def test_laws():
    op = embedding(pad_value=-9.0, data_dropout=0.1, downsample_convs=1).eval()
    y, x = torch.randn(B, L, N), torch.randn(B, L, C)
    y[0, 3:] = -9.0
    y[1, 0, 0] = NAN
    observed = torch.rand(B, L, N) > 0.3
    copies_are_equal(op, lambda other: torch.cat(other(y, x, observed)[:2]))
    inputs_stay_untouched(lambda *given: op(*given)[0], y, x, observed)
    layout_does_not_matter(lambda *given: op(*given)[0], torch.randn(B, L, N), x)
    layout_does_not_matter(lambda *given: op(y, *given)[0], x)


def test_bad_inputs():
    op = embedding()
    y, x = torch.randn(B, L, N), torch.randn(B, L, C)
    for bad in (y[0], y[..., :2]):
        with pytest.raises(ValueError, match=r"y must be \[B, L, N\] of N = 3 variables"):
            op(bad, x)
    for bad in (None, x[:, :4], x[..., :1]):
        with pytest.raises(ValueError, match=r"x must be \[2, 5, 2\]"):
            op(y, bad)
    for bad in (torch.ones(B, L, N), torch.ones(B, L, 1, dtype=torch.bool)):
        with pytest.raises(ValueError, match="observed_mask must be boolean"):
            op(y, x, bad)
    with pytest.raises(ValueError, match="16 learned positions, got a window of 17 steps"):
        op(torch.randn(B, 17, N), torch.randn(B, 17, C))
    with pytest.raises(ValueError, match="start_len must not be negative, got -1"):
        embedding(is_encoder=False)(y, x, start_len=-1)


def test_bad_options():
    for options, message in (
        ({"data_dropout": 1.5}, "data_dropout must be a probability or None, got 1.5"),
        ({"time_embedding": "fourier"}, "'fourier'; choose True, False, 'spectral' or"),
        ({"time_embedding": None}, "unknown time_embedding None"),
        ({"position_embedding": "rotary"}, "'rotary'; choose 'learned' or 'time2vec'"),
        ({"max_seq_len": None}, "needs max_seq_len"),
        ({"start_len": -1}, "start_len must not be negative, got -1"),
        ({"downsample_convs": -1}, "downsample_convs must not be negative, got -1"),
        ({"d_x": 0}, "input_dim must be at least 1, got 0"),
        ({"time_embedding": "spectral", "time_emb_dim": 1}, "num_modes must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            embedding(**options)


def test_repr():
    assert str(Embedding(3, 2, 8, max_seq_len=4)) == "Embedding(3, 2, 8, is_encoder=True)"
