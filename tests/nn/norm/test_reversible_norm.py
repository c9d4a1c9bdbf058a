import pytest
import torch

from pyg_stmamba.nn.norm import GlobalNorm, RevIN


@pytest.mark.parametrize("norm", [RevIN(3), GlobalNorm(torch.zeros(3), torch.ones(3))])
def test_both_hold_weight_and_bias(norm):
    parameters = {name: parameter.tolist() for name, parameter in norm.named_parameters()}
    assert parameters == {"weight": [1.0] * 3, "bias": [0.0] * 3}


def test_on_the_same_statistics_both_are_one_function():
    x, revin = torch.randn(1, 50, 3), RevIN(3, eps=1e-12)
    x_hat, stats = revin.norm(x)
    norm = GlobalNorm(stats.mean.flatten(), stats.std.flatten())
    assert torch.equal(norm(x), x_hat)
    assert torch.equal(norm(x_hat, "denorm"), revin.denorm(x_hat, stats))
