import numpy as np
import pytest
import torch
from torch import Tensor

from pyg_stmamba.nn.transformer import fourier_modes
from pyg_stmamba.nn.transformer.frequency_attention import FrequencyAttention
from tests import laws
from tests.laws import close, same

D, HEADS = 6, 2
OPTIONS = [
    {"activation": "tanh"},
    {"activation": "tanh", "mode_select": "random"},
    {"activation": "softmax"},
    {"activation": "softmax", "mode_select": "random"},
    {"variant": "feb"},
    {"variant": "feb", "mode_select": "random"},
]


def randomized(**options) -> FrequencyAttention:
    op = FrequencyAttention(D, HEADS, **options)
    with torch.no_grad():
        for parameter in op.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return op


def one_by_one(op: FrequencyAttention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """By the sums of the definition for series without a batch, in double precision."""
    parameters = {name: p.detach().double().numpy() for name, p in op.named_parameters()}
    inputs = [x.double().numpy() for x in (query, key, value)]
    maps = parameters["in_proj.weight"].reshape(-1, D, D)
    biases = parameters["in_proj.bias"].reshape(-1, D)
    q, k, v = (x @ maps[i].T + biases[i] if i < len(maps) else None for i, x in enumerate(inputs))
    matrices = parameters["block.weight"][..., 0] + 1j * parameters["block.weight"][..., 1]
    length, size = len(inputs[0]), D // HEADS

    def coefficient(x, f, head):
        wave = np.exp(-2j * np.pi * f * np.arange(len(x)) / len(x)) / np.sqrt(len(x))
        return wave @ x[:, head * size : (head + 1) * size]

    y = np.zeros((length, D))
    for head in range(HEADS):
        for slot, f in enumerate(op.block.modes.index(length).tolist()):
            out = coefficient(q, f, head)
            if op.variant == "fea":
                others = op.block.modes.index(len(inputs[1])).tolist()
                score = [(out * coefficient(k, g, head)).sum() for g in others]
                if op.activation == "tanh":
                    weight = [np.tanh(s.real) + 1j * np.tanh(s.imag) for s in score]
                else:
                    weight = np.exp(np.abs(score)) / np.exp(np.abs(score)).sum()
                out = sum(w * coefficient(v, g, head) for w, g in zip(weight, others))
            out = np.einsum("e,eo->o", out, matrices[head, :, :, slot])
            full = np.zeros((length, size), complex)
            full[-f % length] = np.conj(out)
            full[f] = out if 2 * f % length else out.real
            waves = np.exp(2j * np.pi * np.outer(np.arange(length), np.arange(length)) / length)
            y[:, head * size : (head + 1) * size] += (waves @ full).real / np.sqrt(length)
    y = y @ parameters["out_proj.weight"].T + parameters["out_proj.bias"]
    return torch.from_numpy(y)


@pytest.mark.parametrize("few", [1000, 0])
@pytest.mark.parametrize("modes", [3, 32])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("length", [1, 2, 12, 17])
def test_against_the_sums(length, options, modes, few, monkeypatch):
    monkeypatch.setattr(fourier_modes, "FEW", few)
    op, x = randomized(modes=modes, **options), 0.5 * torch.randn(2, length, D)
    expected = torch.stack([one_by_one(op, row, row, row) for row in x])
    close(op(x), expected.float(), 1e-5)
    close(op(x[0]), expected[0].float(), 1e-5)
    close(op(x, x, x), expected.float(), 1e-5)
    close(op.double()(x.double()[:, None])[:, 0], expected, 1e-7)


@pytest.mark.parametrize("options", OPTIONS[:4])
@pytest.mark.parametrize(("length", "others"), [(12, 7), (5, 20), (13, 13), (1, 9), (9, 1)])
def test_another_series_against_the_sums(length, others, options):
    op = randomized(modes=4, **options)
    query = 0.5 * torch.randn(2, length, D)
    key, value = 0.5 * torch.randn(2, 2, others, D)
    expected = torch.stack([one_by_one(op, *row) for row in zip(query, key, value)])
    close(op(query, key, value), expected.float(), 1e-5)
    expected = torch.stack([one_by_one(op, *row) for row in zip(query, key, key)])
    close(op(query, key), expected.float(), 1e-5)
    if length == others:
        expected = torch.stack([one_by_one(op, *row) for row in zip(query, query, value)])
        close(op(query, query, value), expected.float(), 1e-5)
        close(op(query, None, value), expected.float(), 1e-5)


@pytest.mark.parametrize("options", OPTIONS[:4])
def test_values_are_used(options):
    """In the published code they are not."""
    op, query = randomized(**options), torch.randn(2, 12, D)
    key, value = torch.randn(2, 2, 12, D)
    assert (op(query, key, value) - op(query, key, key)).abs().max() > 1e-2
    op(query, key, value).square().sum().backward()
    assert all(part.abs().max() > 1e-3 for part in op.in_proj.weight.grad.split(D))


@pytest.mark.parametrize("length", [7, 12])
def test_block_of_all_frequencies_can_do_nothing(length):
    op = FrequencyAttention(D, HEADS, variant="feb")
    with torch.no_grad():
        op.block.weight.zero_()
        for e in range(D // HEADS):
            op.block.weight[:, e, e, :, 0] = 1.0
        op.in_proj.weight.copy_(torch.eye(D))
        op.out_proj.weight.copy_(torch.eye(D))
    x = torch.randn(3, length, D)
    close(op(x), x, 1e-6)


@pytest.mark.parametrize("options", OPTIONS)
def test_only_selected_frequencies_come_out(options):
    op, length = randomized(modes=5, **options), 40
    with torch.no_grad():
        op.out_proj.bias.zero_()
    power = torch.fft.rfft(op(torch.randn(3, length, D)), dim=-2).abs().sum((0, 2))
    kept = op.block.modes.index(length)
    stopped = torch.ones(length // 2 + 1, dtype=torch.bool).index_fill(0, kept, False)
    assert (power[kept] > 1e-2).all()
    assert (power[stopped] < 1e-4).all()


@pytest.mark.parametrize("options", OPTIONS[:4])
@pytest.mark.parametrize("junk", [3.0, float("nan"), float("inf")])
def test_padded_keys_are_zero(options, junk):
    op, query = randomized(modes=4, **options), torch.randn(2, 9, D)
    key = torch.randn(2, 12, D)
    padding = torch.rand(2, 12) > 0.6
    filled = key.masked_fill(padding.unsqueeze(-1), junk).requires_grad_()
    y = op(query, filled, key_padding_mask=padding)
    y.sum().backward()
    assert (filled.grad[padding] == 0).all()
    assert filled.grad.isfinite().all()
    assert op.in_proj.weight.grad.isfinite().all()

    # What the maps make of a padded step, their bias included, is zero too.
    _, k_map, v_map = op.in_proj.weight.split(D)
    _, k_bias, v_bias = op.in_proj.bias.split(D)
    seen = (~padding).unsqueeze(-1)
    k, v = (key @ k_map.T + k_bias) * seen, (key @ v_map.T + v_bias) * seen
    with torch.no_grad():
        plain = randomized(modes=4, **options)
        plain.load_state_dict(op.state_dict())
        plain.in_proj.weight[D:] = torch.eye(D).repeat(2, 1)
        plain.in_proj.bias[D:] = 0.0
    close(y, plain(query, k, v), 1e-6)


@pytest.mark.parametrize("options", OPTIONS)
def test_padding_of_a_series_to_itself(options):
    op, x = randomized(modes=4, **options), torch.randn(3, 12, D)
    padding = torch.rand(3, 12) > 0.6
    hidden = padding.unsqueeze(-1)
    y = op(x, key_padding_mask=padding)
    assert (y[padding] == 0).all()
    assert (y[~padding] != 0).all()
    for junk in (3.0, float("nan")):
        same(op(x.masked_fill(hidden, junk), key_padding_mask=padding), y)
    close(op(x, x, x.clone(), padding) if op.variant == "fea" else y, y, 1e-6)

    # A series of zeros after the maps is padded throughout.
    with torch.no_grad():
        op.in_proj.bias.zero_()
    zeros = x.masked_fill(hidden, 0.0)
    close(op(x, key_padding_mask=padding), op(zeros).masked_fill(hidden, 0.0), 1e-6)
    same(op(x, key_padding_mask=torch.zeros_like(padding)), op(x))


@pytest.mark.parametrize("options", OPTIONS)
def test_zeros_have_gradients(options):
    """Also the absolute value, which has a corner there."""
    op = FrequencyAttention(D, HEADS, **options)
    x = torch.zeros(2, 12, D, requires_grad=True)
    op(x).sum().backward()
    assert x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in op.parameters())


@pytest.mark.parametrize("options", OPTIONS)
def test_gradients(options):
    op = randomized(modes=3, **options).double()
    parameters = {name: p.detach() for name, p in op.named_parameters()}
    names = list(parameters)

    def run(x, key, *values):
        given = (x,) if op.variant == "feb" else (x, key)
        return torch.func.functional_call(op, dict(zip(names, values)), given)

    inputs = [torch.randn(1, 5, D, dtype=torch.float64), torch.randn(1, 6, D, dtype=torch.float64)]
    inputs = [x.requires_grad_() for x in (*inputs, *parameters.values())]
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[4]])
def test_dropout_of_coefficients_in_training(options):
    op, x = randomized(modes=3, dropout=0.25, **options), torch.randn(20_000, 5, D)
    x = x[:1].expand_as(x)
    y = op(x)
    assert not torch.equal(y[0], y[1])
    op.eval()
    same(op(x), op(x))
    expected = op(x[:1])[0]
    error = y.std(0) / len(x) ** 0.5
    assert ((y.mean(0) - expected).abs() < 5 * error + 1e-6).all()
    # Of three modes with three coefficients in a head, all are dropped rather seldom.
    nothing = (y == op.out_proj.bias).all(-1).all(-1).double().mean()
    assert nothing < 0.01


def test_dropout_of_everything():
    op = randomized(dropout=1.0)
    close(op(torch.randn(2, 12, D)), op.out_proj.bias.expand(2, 12, D), 1e-7)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(options, dtype):
    op, x = randomized(**options), torch.randn(2, 12, D, requires_grad=True)
    expected = op(x)
    with torch.autocast("cpu", dtype):
        y = op(x)
    y.float().square().sum().backward()
    assert x.grad.isfinite().all()
    close(y.float(), expected, 0.1)
    y = op.to(dtype)(x.detach().to(dtype))
    assert y.dtype == dtype
    close(y.float(), expected, 0.1)


@pytest.mark.parametrize("options", OPTIONS)
def test_as_a_module(options):
    op, x = randomized(modes=4, **options), torch.randn(3, 2, 20, D)
    laws.copies_are_equal(op, lambda op: op(x))
    laws.inputs_stay_untouched(op, x, key_padding_mask=torch.rand(3, 2, 20) > 0.5)
    laws.layout_does_not_matter(op, x)
    laws.rows_are_independent(op, x, dim=1)


def test_initialization():
    op = FrequencyAttention(64, 4)
    assert (op.in_proj.bias == 0).all()
    assert (op.out_proj.bias == 0).all()
    for weight in (*op.in_proj.weight.split(64), op.out_proj.weight):
        assert weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.05)
    assert op.block.weight.shape == (4, 16, 16, 32, 2)
    before = {name: value.clone() for name, value in op.state_dict().items()}
    op.reset_parameters()
    assert not torch.equal(op.in_proj.weight, before["in_proj.weight"])
    assert not torch.equal(op.block.weight, before["block.weight"])


def test_without_bias():
    op = FrequencyAttention(D, HEADS, bias=False)
    assert [name for name, _ in op.named_parameters() if "bias" in name] == []
    x = torch.randn(2, 12, D)
    close(op(x), op(x, x.clone()), 1e-5)


def test_bad_options():
    with pytest.raises(ValueError, match=r"d_model \(6\).*n_heads \(4\)"):
        FrequencyAttention(6, 4)
    with pytest.raises(ValueError, match=r"activation 'relu'.*'tanh', 'softmax'"):
        FrequencyAttention(6, 2, activation="relu")
    with pytest.raises(ValueError, match=r"variant 'few'.*'fea', 'feb'"):
        FrequencyAttention(6, 2, variant="few")


def test_bad_inputs():
    op, x = FrequencyAttention(6, 2), torch.randn(2, 12, 6)
    with pytest.raises(ValueError, match=r"query.*D = 6.*\[2, 12, 5\]"):
        op(x[..., :5])
    with pytest.raises(ValueError, match=r"value.*D = 6.*\[2, 12, 5\]"):
        op(x, x, x[..., :5])
    with pytest.raises(ValueError, match=r"\[2, 12, 6\] and \[2, 9, 6\]"):
        op(x, x, x[:, :9])
    with pytest.raises(ValueError, match=r"batch of the query.*\[1, 12, 6\]"):
        op(x, x[:1])
    with pytest.raises(ValueError, match=r"\[2, 9\] for a key.*got \[2, 12\]"):
        op(x, x[:, :9], key_padding_mask=torch.zeros(2, 12, dtype=torch.bool))
    with pytest.raises(ValueError, match="float32"):
        op(x, key_padding_mask=torch.zeros(2, 12))
    with pytest.raises(ValueError, match="neither keys nor values"):
        FrequencyAttention(6, 2, variant="feb")(x, x.clone())


def test_repr():
    expected = (
        "FrequencyAttention(6, n_heads=2, modes=32, mode_select='low', activation='tanh', "
        "variant='fea')"
    )
    assert str(FrequencyAttention(6, 2)) == expected
