import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyg_stmamba.benchmark import peak_memory
from pyg_stmamba.nn.norm import rms_norm as module
from pyg_stmamba.nn.norm.rms_norm import RMSNorm, rms_norm
from tests import laws
from tests.laws import close, same

C = 12


@pytest.fixture(params=["small", "large"], autouse=True)
def _size(request, monkeypatch) -> None:
    """Each test runs as for small inputs and as for large ones."""
    monkeypatch.setattr(module, "SMALL", {"small": 2**40, "large": 0}[request.param])


def randomized(eps: float = 1e-5) -> RMSNorm:
    norm = RMSNorm(C, eps)
    nn.init.normal_(norm.weight)
    return norm


@pytest.mark.parametrize("shape", [(3, 5, C), (C,), (0, C), (2, 3, 4, C)])
@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_against_torch(shape, eps):
    norm, other = randomized(eps), nn.RMSNorm(C, eps)
    other.load_state_dict(norm.state_dict(), strict=True)
    x = (torch.randn(shape) + 1).requires_grad_()
    y, expected = norm(x), other(x)
    close(y, expected, 1e-6)
    weight = torch.randn(shape)
    found = torch.autograd.grad((y * weight).sum(), (x, norm.weight))
    right = torch.autograd.grad((expected * weight).sum(), (x, other.weight))
    for a, b in zip(found, right):
        close(a, b, 1e-5)


def test_first_and_second_derivatives():
    x = torch.randn(2, 3, C, dtype=torch.double, requires_grad=True)
    weight = torch.randn(C, dtype=torch.double, requires_grad=True)

    def run(x, weight):
        return rms_norm(x, weight, 1e-5)

    assert torch.autograd.gradcheck(run, (x, weight))
    assert torch.autograd.gradgradcheck(run, (x, weight))


def test_gradients_of_each_sample():
    x, weight = torch.randn(4, 3, C), torch.randn(C)

    def loss(x, weight):
        return rms_norm(x, weight, 1e-5).square().sum()

    found = torch.func.vmap(torch.func.grad(loss, argnums=1), in_dims=(0, None))(x, weight)
    for sample, gradient in zip(x, found):
        leaf = weight.clone().requires_grad_()
        y = F.rms_norm(sample, (C,), leaf, 1e-5).square().sum()
        close(gradient, torch.autograd.grad(y, leaf)[0], 1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_sums_in_float32(dtype):
    """In half precision, squares of 300 would overflow, and a sum of many would lose them."""
    norm = RMSNorm(1000)
    x = (300 + torch.randn(3, 1000)).to(dtype)
    y = norm(x)
    assert y.dtype == dtype
    expected = F.rms_norm(x.double(), (1000,), norm.weight.double(), 1e-5).detach()
    close(y.double(), expected, torch.finfo(dtype).eps)


def test_autocast_leaves_the_gradient_alone():
    norm = randomized()
    x, weight = torch.randn(7, C, requires_grad=True), torch.randn(7, C)
    expected = torch.autograd.grad((norm(x) * weight).sum(), x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad((norm(x) * weight).sum(), x)[0]
    same(found, expected)


def test_large_inputs_need_less_than_half_the_memory(monkeypatch):
    monkeypatch.undo()
    norm, other = RMSNorm(256), nn.RMSNorm(256)

    def peak(norm, samples):
        x = torch.randn(samples, 256, requires_grad=True)
        return peak_memory(lambda: norm(x).sum().backward(), x.device)

    assert peak(norm, 128) <= 0.5 * peak(other, 128)
    assert peak(norm, 127) == peak(other, 127)


def test_compiled_code_uses_the_formula(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.delattr(module, "_RMSNormOnCPU")
    norm, x = randomized(), torch.randn(3, C)
    same(norm(x), F.rms_norm(x, (C,), norm.weight, 1e-5))


def test_module_laws():
    norm, x = randomized(), torch.randn(3, 5, C)
    laws.copies_are_equal(norm.eval(), lambda n: n(x).detach())
    laws.inputs_stay_untouched(norm, x)
    laws.inputs_stay_untouched(norm, x.requires_grad_())
    laws.layout_does_not_matter(norm, x.detach())
    norm.reset_parameters()
    assert norm.weight.tolist() == [1.0] * C
    assert str(norm) == "RMSNorm(12, eps=1e-05)"
