import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pyg_stmamba.nn.spacetime import Normalization, ScaleNorm
from pyg_stmamba.nn.spacetime.normalization import NORMALIZATIONS
from tests.laws import close, copies_are_equal, inputs_stay_untouched, same
from tests.nn.spacetime.oracles import spread

B, T, D = 3, 10, 6


def test_layer_norm():
    op = spread(Normalization(D))
    x = torch.randn(B, T, D)
    close(op(x), F.layer_norm(x, (D,), op.norm.weight, op.norm.bias), 1e-6)


def test_rms_norm():
    op = spread(Normalization(D, "rms"))
    x = torch.randn(B, T, D).numpy()
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True)) * op.norm.weight.detach().numpy()
    close(op(torch.from_numpy(x)), torch.from_numpy(expected), 1e-5)


def test_scale_norm():
    op = Normalization(D, "scale")
    assert [p.numel() for p in op.parameters()] == [1]
    x = torch.randn(B, T, D)
    close(op(x).norm(dim=-1), torch.full((B, T), D**0.5), 1e-5)
    with torch.no_grad():
        op.norm.weight.fill_(-1.7)
    expected = -1.7 * x.numpy() / np.linalg.norm(x.numpy(), axis=-1, keepdims=True)
    close(op(x), torch.from_numpy(expected), 1e-6)


def test_scale_norm_of_zero():
    x = torch.zeros(2, D, requires_grad=True)
    y = ScaleNorm(D)(x)
    assert (y == 0).all()
    y.sum().backward()
    assert x.grad.isfinite().all()


def test_batch_norm_over_samples_and_tokens():
    op = spread(Normalization(D, "batchnorm"))
    op.norm.reset_running_stats()
    x = 2.0 + 3.0 * torch.randn(B, T, D)
    z = x.numpy()
    mean, var = z.mean((0, 1)), z.var((0, 1))
    weight, bias = op.norm.weight.detach().numpy(), op.norm.bias.detach().numpy()
    expected = (z - mean) / np.sqrt(var + 1e-5) * weight + bias
    close(op(x), torch.from_numpy(expected), 1e-5)

    unbiased = z.var((0, 1), ddof=1)
    close(op.norm.running_mean, torch.from_numpy(0.1 * mean), 1e-5)
    close(op.norm.running_var, torch.from_numpy(0.9 + 0.1 * unbiased), 1e-5)
    running = (z - 0.1 * mean) / np.sqrt(0.9 + 0.1 * unbiased + 1e-5) * weight + bias
    close(op.eval()(x), torch.from_numpy(running), 1e-5)


def test_none():
    x = torch.randn(B, T, D)
    same(Normalization(D, "none")(x), x)
    Normalization(D, "none").reset_parameters()


@torch.no_grad()
@pytest.mark.parametrize("method", sorted(NORMALIZATIONS))
def test_module_laws(method):
    op = spread(Normalization(D, method))
    x = torch.randn(B, T, D)
    if method != "batchnorm":
        whole = op(x)
        for t in range(T):
            close(op(x[:, t]), whole[:, t], 1e-6)
    op.eval()
    copies_are_equal(op, lambda o: o(x))
    inputs_stay_untouched(op, x)
    close(op(x.transpose(0, 1)), op(x).transpose(0, 1), 1e-6)
    op.reset_parameters()
    fresh = Normalization(D, method).state_dict()
    for name, value in op.state_dict().items():
        same(value, fresh[name])


def test_unknown_method():
    with pytest.raises(ValueError, match=r"'adaptive'.*'batchnorm', 'layernorm', 'none'"):
        Normalization(D, "adaptive")


def test_repr():
    assert str(Normalization(6, "rms")) == "Normalization(6, method='rms')"
    assert str(ScaleNorm(6)) == "ScaleNorm(6)"
