import pytest
import torch
from torch import nn

from pyg_stmamba.nn import Dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_is_kept_grows_and_so_does_its_gradient(dtype):
    x = torch.ones(6, 400, dtype=dtype).t().requires_grad_()
    y = Dropout(0.75)(x)
    assert y.dtype == dtype
    assert y.unique().tolist() == [0.0, 4.0]
    assert 0.2 < (y > 0).double().mean() < 0.3
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, y.detach())


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_ends(p):
    x = torch.randn(5, 3)
    torch.testing.assert_close(Dropout(p)(x), (1 - p) * x)


def test_evaluation_and_empty_input():
    x = torch.randn(5, 3)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.5)(x[:0]).shape == (0, 3)


def test_compile():
    x = torch.ones(64, 64)
    y = torch.compile(Dropout(0.5), fullgraph=True, backend="aot_eager")(x)
    assert y.unique().tolist() == [0.0, 2.0]


def test_wrong_probability():
    with pytest.raises(ValueError, match="probability"):
        Dropout(1.5)


def test_it_prints_as_its_parent():
    assert str(Dropout(0.2)) == str(nn.Dropout(0.2))
