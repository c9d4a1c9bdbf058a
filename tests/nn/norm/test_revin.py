import numpy as np
import pytest
import torch

from pyg_stmamba.nn.norm import InstanceStatistics, RevIN
from tests import laws
from tests.laws import close, same

C = 4


def randomized(**options) -> RevIN:
    """With weights of both signs."""
    revin = RevIN(C, **options)
    with torch.no_grad():
        revin.weight.copy_(torch.tensor([1.5, -0.7, 0.3, -2.0]))
        revin.bias.copy_(torch.randn(C))
    return revin


def gappy(*shape, dtype=torch.float32):
    """A series that differs in level and scale from channel to channel, and has gaps."""
    scale = torch.tensor([1.0, 10.0, 0.1, 3.0], dtype=dtype)
    x = torch.randn(*shape, C, dtype=dtype) * scale + 5 * scale
    mask = torch.rand(x.shape) < 0.7
    mask[..., 0, :] = True
    return x, mask


def numpy_norm(revin, x, mask=None, subtract_last=False):
    """The formula in float64 and with NaN for what is missing."""
    x = x.double().numpy().copy()
    mask = np.ones(x.shape, dtype=bool) if mask is None else mask.numpy()
    x[~mask] = np.nan
    mean = np.nanmean(x, axis=-2, keepdims=True)
    std = np.sqrt(np.nanvar(x, axis=-2, keepdims=True) + 1e-5)
    if subtract_last:
        flat, seen = x.reshape(-1, *x.shape[-2:]), mask.reshape(-1, *x.shape[-2:])
        last = [
            [row[np.flatnonzero(ok[:, c])[-1], c] for c in range(C)] for row, ok in zip(flat, seen)
        ]
        mean = np.array(last).reshape(mean.shape)
    weight, bias = (p.detach().double().numpy() for p in (revin.weight, revin.bias))
    return np.nan_to_num((x - mean) / std * weight + bias), mean, std


@pytest.mark.parametrize("subtract_last", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_equals_numpy(leading, masked, subtract_last):
    revin = randomized(subtract_last=subtract_last)
    x, mask = gappy(*leading, 9)
    mask = mask if masked else None
    x_hat, (mean, std) = revin.norm(x, mask)
    expected, expected_mean, expected_std = numpy_norm(revin, x, mask, subtract_last)
    assert mean.shape == std.shape == (*leading, 1, C)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-6)
    np.testing.assert_allclose(std, expected_std, rtol=1e-6)
    np.testing.assert_allclose(x_hat.detach(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("subtract_last", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1e3, -1e6])
def test_the_inverse_is_exact(offset, subtract_last):
    revin = randomized(subtract_last=subtract_last)
    x, mask = gappy(5, 500)
    x = x + offset
    with torch.no_grad():
        for observed in (None, mask):
            x_hat, stats = revin.norm(x, observed)
            error = revin.denorm(x_hat, stats) - x
            if observed is not None:
                error = error[observed]
            assert error.abs().max() <= 1e-6 * x.abs().max()


@pytest.mark.parametrize("offset", [1e3, 1e6])
def test_a_large_level_spoils_no_statistic(offset):
    """A sum in float32 alone misses the mean of a level of 1e6 by more than the series varies."""
    x, mask = gappy(3, 1000)
    x = x + offset
    revin = RevIN(C)
    for observed in (None, mask):
        _, (mean, std) = revin.norm(x, observed)
        _, expected_mean, expected_std = numpy_norm(revin, x, observed)
        np.testing.assert_allclose(mean, expected_mean, rtol=1e-7)
        np.testing.assert_allclose(std, expected_std, rtol=1e-6)


def test_a_constant_series_becomes_zero_and_comes_back():
    x = torch.full((2, 7, C), 1e6 + 0.3)
    x_hat, stats = RevIN(C).norm(x)
    assert (x_hat == 0).all()
    assert torch.equal(RevIN(C).denorm(x_hat, stats), x)


@pytest.mark.parametrize("weight", [0.0, -0.0, 1e-9, -1e-9])
def test_a_weight_of_zero_can_be_undone_and_left(weight):
    revin, (x, _) = RevIN(C), gappy(3, 9)
    torch.nn.init.constant_(revin.weight, weight)
    x_hat, stats = revin.norm(x)
    assert (x_hat.sign() == (x - stats.mean).sign() * np.copysign(1, weight)).all()
    y = revin.denorm(x_hat, stats)
    close(y, x, 1e-5)
    gradient = torch.autograd.grad(x_hat.square().sum(), revin.weight)[0]
    assert (gradient.sign() == np.copysign(1, weight)).all()


@pytest.mark.parametrize("subtract_last", [False, True])
def test_nothing_observed_has_mean_zero_and_deviation_one(subtract_last):
    revin = randomized(subtract_last=subtract_last)
    x, mask = gappy(3, 6)
    mask[1] = False
    mask[2, :, 3] = False
    x[~mask] = float("nan")
    x_hat, stats = revin.norm(x, mask)
    for nothing in ((1, 0), (2, 0, 3)):
        assert (stats.mean[nothing] == 0).all()
        assert (stats.std[nothing] == 1).all()
    assert (x_hat[1] == 0).all()
    y = torch.randn(3, 2, C)
    close(revin.denorm(y, stats)[1], (y[1] - revin.bias) / revin.weight, 1e-6)


@pytest.mark.parametrize("detach_stats", [False, True])
@pytest.mark.parametrize("subtract_last", [False, True])
def test_what_is_missing_has_no_influence(subtract_last, detach_stats):
    revin = randomized(subtract_last=subtract_last, detach_stats=detach_stats)
    x, mask = gappy(3, 6)
    mask[1] = False
    expected, statistics = revin.norm(x, mask)
    assert (expected[~mask] == 0).all()
    for junk in (1e9, float("nan"), float("inf")):
        leaf = x.masked_fill(~mask, junk).requires_grad_()
        x_hat, stats = revin.norm(leaf, mask)
        same(x_hat, expected)
        same(stats.mean, statistics.mean)
        same(stats.std, statistics.std)
        revin.zero_grad()
        revin.denorm(x_hat, stats).square().sum().backward()
        assert (leaf.grad[~mask] == 0).all()
        assert leaf.grad.isfinite().all()
        assert all(p.grad.isfinite().all() for p in revin.parameters())


def test_last_is_the_last_observed_one():
    x = torch.tensor([3.0, 5.0, 7.0, 9.0])[:, None].repeat(1, C)
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[3, 1:] = False
    mask[2, 2:] = False
    mask[:, 3] = False
    _, stats = RevIN(C, subtract_last=True).norm(x, mask)
    assert stats.mean.tolist() == [[9.0, 7.0, 5.0, 0.0]]


def test_calls_may_interleave():
    revin = randomized()
    (a, _), (b, _) = gappy(3, 6), gappy(2, 8)
    before = dict(vars(revin))
    a_hat, of_a = revin.norm(a)
    b_hat, of_b = revin.norm(100 * b)
    close(revin.denorm(a_hat, of_a), a, 1e-5)
    close(revin.denorm(b_hat, of_b), 100 * b, 1e-5)
    assert vars(revin) == before


def test_part_of_the_channels_comes_back():
    revin, (x, mask) = randomized(), gappy(3, 6)
    x_hat, stats = revin.norm(x, mask)
    whole = revin.denorm(x_hat, stats)
    same(revin.denorm(x_hat[..., [2, 0]], stats, channels=(2, 0)), whole[..., [2, 0]])


def test_other_series_take_given_statistics():
    revin, (x, mask) = randomized(), gappy(3, 6)
    x_hat, stats = revin.norm(x)
    future, again = revin.norm(x[:, :2], stats=stats)
    same(future, x_hat[:, :2])
    assert again is stats
    hidden, _ = revin.norm(x, mask, stats)
    same(hidden, x_hat.masked_fill(~mask, 0.0))
    same(revin.norm(x[..., [3, 1]], stats=stats, channels=(3, 1))[0], x_hat[..., [3, 1]])


def test_gradients_flow_through_statistics_only_when_told():
    x, weight = gappy(3, 6)[0].requires_grad_(), torch.randn(3, 6, C)
    revin = randomized()
    x_hat, stats = revin.norm(x)
    assert not stats.mean.requires_grad
    assert not stats.std.requires_grad
    gradient = torch.autograd.grad((x_hat * weight).sum(), x)[0]
    close(gradient, weight * revin.weight / stats.std, 1e-5)
    x_hat, stats = randomized(detach_stats=False).norm(x)
    gradient = torch.autograd.grad((x_hat * weight).sum(), x)[0]
    # A shift of the whole series changes nothing, nor does a scale but for eps.
    assert gradient.sum(1).abs().max() < 1e-5
    assert (gradient * x).sum(1).abs().max() < 0.01


@pytest.mark.parametrize("subtract_last", [False, True])
def test_gradcheck(subtract_last):
    revin = randomized(subtract_last=subtract_last, detach_stats=False).double()
    x, mask = gappy(2, 5, dtype=torch.float64)

    def run(x, y, weight, bias):
        x_hat, stats = torch.func.functional_call(
            revin, {"weight": weight, "bias": bias}, (x, "norm", mask)
        )
        return x_hat, torch.func.functional_call(
            revin, {"weight": weight, "bias": bias}, (y, "denorm", None, stats)
        )

    y = torch.randn(2, 3, C, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x.requires_grad_(), y, revin.weight, revin.bias))


def test_half_precision_has_statistics_in_float32():
    revin = randomized()
    x = (gappy(3, 600)[0] + 300).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        x_hat, stats = revin.norm(x)
        y = revin.denorm(x_hat, stats)
    assert x_hat.dtype == torch.bfloat16
    assert stats.mean.dtype == stats.std.dtype == y.dtype == torch.float32
    expected, mean, std = numpy_norm(revin, x.float())
    np.testing.assert_allclose(stats.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(stats.std, std, rtol=1e-6)
    np.testing.assert_allclose(x_hat.detach().float(), expected, rtol=1e-2, atol=1e-3)
    # Nor does a model whose weights are in half precision itself round what comes back.
    revin, (x, _) = RevIN(C).bfloat16(), gappy(3, 9)
    x_hat, stats = revin.norm(x.bfloat16())
    torch.nn.init.constant_(revin.weight, 3.0)
    close(revin.denorm(x_hat, stats), x_hat.float() / 3 * stats.std + stats.mean, 1e-6)


class Normalized(torch.nn.Module):
    """The normalized series alone, as the laws have it."""

    def __init__(self, revin: RevIN) -> None:
        super().__init__()
        self.revin = revin

    def forward(self, x, mask=None):
        return self.revin(x, "norm", mask)[0]


@pytest.mark.parametrize("subtract_last", [False, True])
def test_laws_of_every_module(subtract_last):
    module = Normalized(randomized(subtract_last=subtract_last))
    x, mask = gappy(3, 6)
    laws.copies_are_equal(module, lambda copy: copy(x, mask))
    laws.inputs_stay_untouched(module, x, mask)
    laws.inputs_stay_untouched(module, x.requires_grad_())
    laws.layout_does_not_matter(module, x.detach(), tolerance=1e-5)


def test_without_affine_there_is_no_parameter():
    revin, (x, mask) = RevIN(C, affine=False), gappy(3, 6)
    assert not list(revin.parameters())
    same(revin.norm(x, mask)[0], RevIN(C).norm(x, mask)[0])
    close(revin.denorm(*revin.norm(x)), x, 1e-5)


def test_reset():
    revin = randomized()
    revin.reset_parameters()
    assert revin.weight.tolist() == [1.0] * C
    assert revin.bias.tolist() == [0.0] * C


def test_bad_input_is_named():
    revin, x = RevIN(C), torch.randn(2, 5, C)
    _, stats = revin.norm(x)
    assert isinstance(stats, InstanceStatistics)
    with pytest.raises(ValueError, match="num_features must be at least 1, got 0"):
        RevIN(0)
    with pytest.raises(ValueError, match="eps must be positive, got 0"):
        RevIN(C, eps=0)
    with pytest.raises(ValueError, match=r"\[\.\.\., L, 4\].* got shape \(2, 5, 3\)"):
        revin.norm(x[..., :3])
    with pytest.raises(ValueError, match=r"got shape \(2, 0, 4\)"):
        revin.norm(x[:, :0])
    with pytest.raises(ValueError, match=r"dtype torch\.int64"):
        revin.norm(x.long())
    with pytest.raises(ValueError, match=r"\[\.\.\., L, 2\].* channels=\(1, 0\)"):
        revin.denorm(x, stats, channels=(1, 0))
    with pytest.raises(ValueError, match=r"mask must be boolean .*float32"):
        revin.norm(x, torch.ones_like(x))
    with pytest.raises(ValueError, match=r"\(2, 5, 4\), got \(2, 5, 1\)"):
        revin.norm(x, torch.ones(2, 5, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"channels=\(0,\) choose among given statistics"):
        revin.norm(x[..., :1], channels=(0,))
    with pytest.raises(ValueError, match="mode='denormalize' is unknown; choose from 'norm', 'de"):
        revin(x, "denormalize")
    with pytest.raises(ValueError, match="needs the stats"):
        revin(x, "denorm")
    assert str(revin) == "RevIN(4, affine=True, subtract_last=False)"
