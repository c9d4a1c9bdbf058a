import copy
import math
import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from pyg_stmamba.nn import TemporalMamba
from tests.laws import close
from tests.nn.oracles import mamba_mixer, mamba_recurrence

# What mamba_ssm.Mamba(32, d_state=8, d_conv=3, expand=2) holds.
SHAPES = {
    "A_log": (64, 8),
    "D": (64,),
    "in_proj.weight": (128, 32),
    "conv1d.weight": (64, 1, 3),
    "conv1d.bias": (64,),
    "x_proj.weight": (2 + 16, 64),
    "dt_proj.weight": (64, 2),
    "dt_proj.bias": (64,),
    "out_proj.weight": (32, 64),
}


def randomized(**options) -> TemporalMamba:
    """With parameters away from their start, where A, D and the biases are all alike."""
    op = TemporalMamba(12, d_state=5, **options)
    with torch.no_grad():
        for parameter in op.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return op


def test_parameters():
    op = TemporalMamba(32, d_state=8, d_conv=3)
    assert {name: tuple(p.shape) for name, p in op.state_dict().items()} == SHAPES
    op = TemporalMamba(32, d_state=8, d_conv=3, bias=True, conv_bias=False, dt_rank=7)
    names = set(SHAPES) - {"conv1d.bias"} | {"in_proj.bias", "out_proj.bias"}
    assert set(op.state_dict()) == names
    assert op.dt_proj.weight.shape == (64, 7)
    assert str(op) == "TemporalMamba(32, d_state=8, d_conv=3, expand=2)"


def test_both_ways_holds_two_sets():
    op = TemporalMamba(32, d_state=8, d_conv=3, bidirectional=True)
    assert set(op.state_dict()) == set(SHAPES) | {f"reverse.{name}" for name in SHAPES}
    assert not torch.equal(op.in_proj.weight, op.reverse.in_proj.weight)
    assert str(op) == "TemporalMamba(32, d_state=8, d_conv=3, expand=2, bidirectional=True)"


@pytest.mark.parametrize(
    "remade", [lambda op: op, copy.deepcopy, lambda op: pickle.loads(pickle.dumps(op))]
)
def test_marks(remade):
    op = remade(TemporalMamba(8, bidirectional=True))
    marked = {n for n, p in op.named_parameters() if getattr(p, "_no_weight_decay", False)}
    assert marked == {"A_log", "D", "reverse.A_log", "reverse.D"}
    kept = {n for n, p in op.named_parameters() if getattr(p, "_no_reinit", False)}
    assert kept == {"dt_proj.bias", "reverse.dt_proj.bias"}


def test_initialization():
    op = TemporalMamba(256, d_state=16, dt_scale=0.5)
    for _ in range(2):
        assert torch.allclose(op.A_log.exp(), torch.arange(1.0, 17.0).expand(512, 16))
        assert (op.D == 1).all()
        for linear in (op.in_proj, op.x_proj, op.out_proj):
            bound = 1 / math.sqrt(linear.in_features)
            assert linear.weight.abs().max() <= bound
            assert linear.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert op.conv1d.weight.std().item() == pytest.approx(0.5 / math.sqrt(3), rel=0.05)
        bound = 0.5 / math.sqrt(16)
        assert op.dt_proj.weight.abs().max() <= bound
        assert op.dt_proj.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)

        dt = torch.nn.functional.softplus(op.dt_proj.bias).detach().double().log().numpy()
        low, high = math.log(0.001), math.log(0.1)
        assert stats.kstest(dt, stats.uniform(low, high - low).cdf).pvalue > 1e-3
        before = op.dt_proj.bias.clone()
        op.reset_parameters()
        assert not torch.equal(before, op.dt_proj.bias)


def test_initialization_options():
    op = TemporalMamba(16, dt_init="constant", dt_min=1e-6, dt_max=1e-5, dt_init_floor=0.01)
    assert (op.dt_proj.weight == 1.0).all()  # dt_rank is 1
    close(torch.nn.functional.softplus(op.dt_proj.bias), torch.full((32,), 0.01), 1e-6)
    with pytest.raises(ValueError, match=r"'normal'.*'random' or 'constant'"):
        TemporalMamba(16, dt_init="normal")


@pytest.mark.parametrize(
    "options", [{}, {"bias": True}, {"conv_bias": False, "d_conv": 2}, {"expand": 3, "dt_rank": 4}]
)
def test_against_hugging_face(options):
    op = randomized(**options)
    mixer = mamba_mixer(op)
    op.load_state_dict(mixer.state_dict(), strict=True)
    x = torch.randn(3, 17, 12, requires_grad=True)
    x2 = x.detach().clone().requires_grad_()
    y, expected = op(x), mixer(x2)
    close(y, expected, 1e-5)

    weight = torch.randn_like(y)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    close(x.grad, x2.grad, 1e-5)
    theirs = dict(mixer.named_parameters())
    for name, parameter in op.named_parameters():
        close(parameter.grad, theirs[name].grad, 1e-5)


def test_against_mambapy():
    mambapy = pytest.importorskip("mambapy.mamba")
    op = randomized()
    other = mambapy.MambaBlock(mambapy.MambaConfig(d_model=12, n_layers=1, d_state=5))
    other.load_state_dict(op.state_dict(), strict=True)
    x = torch.randn(2, 16, 12)
    close(op(x), other(x), 1e-5)


def test_against_the_plain_recurrence():
    op = randomized().double()
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    expected = np.stack([mamba_recurrence(op, row) for row in x])
    np.testing.assert_allclose(op(x).detach().numpy(), expected, rtol=1e-10, atol=1e-10)


def test_both_ways_is_the_sum_of_two():
    op = randomized(bidirectional=True)
    forward, backward = TemporalMamba(12, d_state=5), op.reverse
    names = forward.state_dict().keys()
    forward.load_state_dict({name: op.state_dict()[name] for name in names})
    x = torch.randn(2, 9, 12)
    close(op(x), forward(x) + backward(x.flip(1)).flip(1), 1e-6)


def test_padding_in_front_is_as_if_cropped():
    for op in (randomized(), randomized(bias=True)):
        x = torch.randn(3, 11, 12)
        mask = torch.arange(11) >= torch.tensor([[0], [4], [9]])
        y = op(x, mask)
        for row, start in enumerate((0, 4, 9)):
            close(y[row, start:], op(x[row : row + 1, start:])[0], 1e-6)


def test_state_size_does_not_depend_on_the_steps():
    op = randomized(d_conv=4)
    for steps in (1, 2, 30):
        _, state = op.prefill(torch.randn(2, steps, 12))
        assert state.conv.shape == (2, 3, 24)
        assert state.ssm.shape == (2, 24, 5)


def test_autocast_keeps_the_state_in_float32():
    op = randomized()
    x = torch.randn(2, 20, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = op.prefill(x)
    assert state.ssm.dtype == torch.float32
    assert y.dtype == torch.bfloat16
    close(y.float(), op(x), 3e-2)
    _, state = randomized().bfloat16().prefill(x.bfloat16())
    assert state.ssm.dtype == torch.float32


def test_reference_by_name():
    op = TemporalMamba(4, implementation="reference")
    x = torch.randn(2, 5, 4)
    close(op(x), copy.deepcopy(op).requires_grad_(False)(x), 1e-6)
    with pytest.raises(ValueError, match="no such one"):
        TemporalMamba(4, implementation="no such one")(x)
