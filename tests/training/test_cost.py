import time

import pytest
import torch
from torch import nn
from torch_geometric.data import Data

from pyg_stmamba.training import cost
from pyg_stmamba.training.cost import measure_costs, training_step
from pyg_stmamba.training.forecast_data import windows_of

WINDOWS = 4


class Clock:
    """A time that only passes where the models say so."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


CLOCK = Clock()


class Slow(nn.Module):
    """Takes known times: more to train, more at every second pass, now and then much more."""

    def __init__(self, forecast: float, train: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 3))
        self.forecast, self.train_pass, self.passes = forecast, train, 0

    def forward(self, batch: Data) -> torch.Tensor:
        self.passes += 1
        seconds = self.train_pass if self.training else self.forecast
        CLOCK.now += seconds * (50 if self.passes % 2 else 1) * (9 if self.passes == 4 else 1)
        assert torch.is_grad_enabled() == self.training
        return batch.y * self.weight.sum()


@pytest.fixture
def batch() -> Data:
    y = torch.rand(5, WINDOWS, 3, 1)
    return Data(y=y, y_mask=torch.ones_like(y, dtype=torch.bool))


def test_units_and_what_counts(batch, monkeypatch):
    """0.008 seconds for four windows are two milliseconds a window, 0.02 seconds of training are
    five seconds for a thousand; neither first passes nor outliers count."""
    monkeypatch.setattr(cost, "time", CLOCK)
    models = [Slow(0.008, 0.02), Slow(0.001, 0.1)]
    one, other = measure_costs(models, batch, repeats=3)
    assert one.parameters == 6
    assert one.inference_milliseconds == pytest.approx(2)
    assert one.train_seconds == pytest.approx(5)
    assert other.inference_milliseconds == pytest.approx(0.25)
    assert other.train_seconds == pytest.approx(25)
    assert [model.passes for model in models] == [0, 0]


def test_models_are_left_as_they_are(graph, protocol, make_model):
    train = windows_of(graph, protocol)["train"]
    model = make_model(graph).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start = time.perf_counter()
    (found,) = measure_costs([model], train.batch(range(8)), repeats=1)
    longest = time.perf_counter() - start
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert 0 < found.inference_milliseconds < 1e3 * longest
    assert 0 < found.train_seconds * 8 / 1000 < longest
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_step_trains(graph, protocol, make_model, monkeypatch):
    steps = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self: steps.append(self.param_groups) or step(self)
    )
    train = windows_of(graph, protocol)["train"]
    run = training_step(make_model(graph), train.batch(range(8)))
    run()
    run()
    assert len(steps) == 2
    gradients = [parameter.grad for group in steps[0] for parameter in group["params"]]
    assert sum(gradient is not None for gradient in gradients) > 10


def test_too_few_rounds(batch):
    with pytest.raises(ValueError, match="repeats=0 must be at least 1"):
        measure_costs([], batch, repeats=0)
