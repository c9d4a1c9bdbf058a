import numpy as np
import pytest
import torch

from pyg_stmamba.nn.norm import GlobalNorm
from tests import laws
from tests.laws import close, same

C = 3


def series(*shape, dtype=torch.float32):
    scale = torch.tensor([1.0, 10.0, 0.1], dtype=dtype)
    return torch.randn(*shape, C, dtype=dtype) * scale + 5 * scale


def randomized(norm: GlobalNorm) -> GlobalNorm:
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.5, -0.7, 0.3]))
        norm.bias.copy_(torch.randn(C))
    return norm


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("leading", [(), (4,), (2, 3)])
def test_fit_equals_numpy(leading, masked):
    y = series(*leading, 50)
    mask = torch.rand(y.shape) < 0.7 if masked else torch.ones_like(y, dtype=torch.bool)
    y = y.masked_fill(~mask, float("nan"))
    norm = GlobalNorm.fit(y, mask if masked else None)
    known = np.where(mask, y.double().numpy(), np.nan).reshape(-1, C)
    np.testing.assert_allclose(norm.global_mean, np.nanmean(known, 0), rtol=1e-6)
    np.testing.assert_allclose(norm.global_std, np.nanstd(known, 0), rtol=1e-6)


def test_is_the_formula():
    mean, std, x = torch.randn(C), torch.tensor([0.5, 1e-9, 2.0]), series(2, 6)
    norm = randomized(GlobalNorm(mean, std, eps=1e-3))
    safe = np.maximum(std.numpy(), 1e-3)
    weight, bias = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    expected = (x.numpy() - mean.numpy()) / safe * weight + bias
    np.testing.assert_allclose(norm(x).detach(), expected, rtol=1e-6)
    back = (x.numpy() - bias) / weight * safe + mean.numpy()
    np.testing.assert_allclose(norm(x, "denorm").detach(), back, rtol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1e3, -1e6])
def test_the_inverse_is_exact(offset):
    x = series(4, 200) + offset
    norm = randomized(GlobalNorm.fit(x))
    error = norm(norm(x, "norm"), "denorm") - x
    assert error.abs().max() <= 1e-6 * x.abs().max()


def test_a_constant_channel_becomes_zero_and_comes_back():
    x = series(4, 20)
    x[..., 1] = 1e6 + 0.3
    norm = GlobalNorm.fit(x)
    assert (norm(x)[..., 1] == 0).all()
    assert norm(x).isfinite().all()
    close(norm(norm(x), "denorm"), x, 1e-6)


def test_a_weight_of_zero_can_be_undone():
    x = series(4, 20)
    norm = GlobalNorm.fit(x)
    torch.nn.init.zeros_(norm.weight)
    close(norm(norm(x), "denorm"), x, 1e-5)


def test_part_of_the_channels():
    x = series(4, 20)
    norm = randomized(GlobalNorm.fit(x))
    same(norm(x[..., [2, 0]], channels=(2, 0)), norm(x)[..., [2, 0]])
    same(norm(x[..., [2, 0]], "denorm", (2, 0)), norm(x, "denorm")[..., [2, 0]])


def test_dtype_follows_the_input_and_half_precision_comes_back_in_float32():
    x = series(4, 20)
    norm = GlobalNorm.fit(x)
    with torch.autocast("cpu", torch.bfloat16):
        x_hat = norm(x.bfloat16())
        assert x_hat.dtype == torch.bfloat16
        assert norm(x_hat, "denorm").dtype == torch.float32
    # Double statistics do not turn float32 series into double ones.
    double = GlobalNorm.fit(x.double())
    assert double.global_mean.dtype == torch.float64
    assert double(x).dtype == double(double(x), "denorm").dtype == torch.float32
    assert double(x.double(), "denorm").dtype == torch.float64


def test_gradcheck():
    x = series(2, 4, dtype=torch.float64)
    norm = randomized(GlobalNorm.fit(x)).double()
    for mode in ("norm", "denorm"):

        def run(x, weight, bias, mode=mode):
            parameters = {"weight": weight, "bias": bias}
            return torch.func.functional_call(norm, parameters, (x, mode))

        assert torch.autograd.gradcheck(run, (x.requires_grad_(), norm.weight, norm.bias))


def test_laws_of_every_module():
    x = series(4, 20)
    norm = randomized(GlobalNorm.fit(x))
    laws.copies_are_equal(norm, lambda copy: copy(x))
    laws.inputs_stay_untouched(norm, x, "denorm")
    laws.layout_does_not_matter(norm, x)
    fresh = GlobalNorm(torch.zeros(C), torch.ones(C))
    fresh.load_state_dict(norm.state_dict(), strict=True)
    same(fresh(x), norm(x))


def test_fit_leaves_its_data_and_later_ones_alone():
    y = series(4, 20)
    before = y.clone()
    norm = GlobalNorm.fit(y)
    same(y, before)
    mean = torch.zeros(C)
    norm = GlobalNorm(mean, torch.ones(C))
    mean.fill_(5.0)
    assert norm.global_mean.tolist() == [0.0] * C


def test_without_affine_there_is_no_parameter():
    x = series(4, 20)
    norm = GlobalNorm.fit(x, affine=False)
    assert not list(norm.parameters())
    same(norm(x), GlobalNorm.fit(x)(x))
    assert str(norm) == "GlobalNorm(3, affine=False)"


def test_bad_input_is_named():
    y = series(4, 20)
    with pytest.raises(ValueError, match=r"got shapes \(3,\) and \(2,\)"):
        GlobalNorm(torch.zeros(3), torch.ones(2))
    with pytest.raises(ValueError, match=r"got shapes \(\) and \(\)"):
        GlobalNorm(0.0, 1.0)
    with pytest.raises(ValueError, match="global_std not negative"):
        GlobalNorm([0.0, 1.0], [1.0, -1.0])
    with pytest.raises(ValueError, match="must be finite"):
        GlobalNorm([0.0, float("nan")], [1.0, 1.0])
    with pytest.raises(ValueError, match=r"boolean observed_mask .*torch\.float32"):
        GlobalNorm.fit(y, torch.ones_like(y))
    mask = torch.ones_like(y, dtype=torch.bool)
    mask[..., 2] = False
    with pytest.raises(ValueError, match=r"channel\(s\) \[2\]"):
        GlobalNorm.fit(y, mask)
    y[0, 0, 1] = float("nan")
    with pytest.raises(ValueError, match=r"channel\(s\) \[1\]; missing values need"):
        GlobalNorm.fit(y)
    norm = GlobalNorm.fit(series(4, 20))
    with pytest.raises(ValueError, match="mode='inverse' is unknown; choose from 'norm', 'denorm'"):
        norm(y, "inverse")
    with pytest.raises(ValueError, match=r"\[\.\.\., L, 3\].* got shape \(4, 20, 2\)"):
        norm(y[..., :2])
