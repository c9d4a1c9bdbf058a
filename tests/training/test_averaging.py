import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pyg_stmamba.training.averaging import warm_ema


def averages(multi_avg_fn, weights):
    model = nn.Linear(1, 1, bias=False)
    averaged = AveragedModel(model, multi_avg_fn=multi_avg_fn)
    seen = []
    for weight in weights:
        nn.init.constant_(model.weight, weight)
        averaged.update_parameters(model)
        seen.append(averaged.module.weight.item())
    return seen


def test_is_the_formula():
    expected, average = [], 0.0
    weights = torch.randn(40, dtype=torch.float64).tolist()
    for n, weight in enumerate(weights):
        decay = 0.0 if n == 0 else min(0.7, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * weight
        expected.append(average)
    assert averages(warm_ema(0.7), weights) == pytest.approx(expected, abs=1e-6)


def test_ends_as_the_usual_average_does():
    weights = [5.0] * 20 + torch.randn(300).tolist()
    usual = averages(get_ema_multi_avg_fn(0.9), weights)
    assert averages(warm_ema(0.9), weights)[200:] == pytest.approx(usual[200:], abs=1e-6)


def test_forgets_the_initial_weights_within_an_epoch():
    weights = [100.0] + [1.0] * 400
    assert averages(warm_ema(0.999), weights)[-1] == pytest.approx(1.0, abs=1e-3)
    assert averages(get_ema_multi_avg_fn(0.999), weights)[-1] > 60


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5])
def test_wrong_decays_are_named(decay):
    with pytest.raises(ValueError, match=r"ema_decay=.* must lie in \[0, 1\)"):
        warm_ema(decay)
