import math

import pytest
import torch
from torch import nn

from pyg_stmamba.training import ForecastData, ForecastModule
from pyg_stmamba.training.run_module import parameter_groups


class Biased(nn.Module):
    """Forecasts one number everywhere."""

    def __init__(self, horizon: int, value: float = 2.0) -> None:
        super().__init__()
        self.horizon = horizon
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, batch):
        return self.value.expand(*batch.x.shape[:-2], self.horizon, 1)


@pytest.fixture
def module(protocol):
    module = ForecastModule(Biased(protocol.horizon), protocol=protocol)
    module._loss_sum = torch.zeros(())
    module._loss_count = torch.zeros(())
    module.trainer = type("Alone", (), {"world_size": 1})()
    return module


@pytest.fixture
def batches(graph, protocol):
    return list(ForecastData(graph, protocol, batch_size=50).train_dataloader())


def test_train_loss_is_the_mean_over_all_observed_targets(module, batches):
    for index, batch in enumerate(batches):
        module.training_step(batch, index)
    errors = torch.cat([(2.0 - batch.y)[batch.y_mask].abs() for batch in batches])
    assert batches[0].y.size(1) != batches[-1].y.size(1)
    assert module.train_loss() == pytest.approx(float(errors.mean()), rel=1e-5)


def test_a_batch_without_observed_targets_has_no_loss_but_a_graph(module, batches):
    batch = batches[0].clone()
    batch.y_mask = torch.zeros_like(batch.y_mask)
    batch.y = torch.full_like(batch.y, math.nan)
    loss = module.training_step(batch, 0)
    loss.backward()
    assert loss.item() == 0
    assert module.model.value.grad.item() == 0
    assert module.train_loss() == 0


@pytest.mark.parametrize("loss", ["mae", "mse", "huber", "smape"])
def test_training_minimizes_the_chosen_loss(protocol, batches, loss):
    module = ForecastModule(Biased(protocol.horizon), protocol=protocol, loss=loss)
    module._loss_sum, module._loss_count = torch.zeros(2)
    target = batches[0].y[batches[0].y_mask]
    error = (target - 2.0).abs()
    expected = {
        "mae": error,
        "mse": error.square(),
        "huber": (error - 0.5).where(error > 1, 0.5 * error.square()),
        "smape": 2 * error / (target.abs() + 2.0),
    }[loss].mean()
    assert module.training_step(batches[0], 0).item() == pytest.approx(expected.item(), rel=1e-5)
    module.on_validation_epoch_start()
    module.validation_step(batches[0], 0)
    scores = module._validation_metrics.compute()["average"]
    assert scores["mae"] == pytest.approx(error.mean().item(), rel=1e-5)


def test_auxiliary_loss_is_minimized_but_not_reported(protocol, batches):
    class Expensive(Biased):
        def get_aux_loss(self):
            return 3 * self.value.square()

    results = []
    for model in (Biased(protocol.horizon), Expensive(protocol.horizon)):
        module = ForecastModule(model, protocol=protocol)
        module._loss_sum, module._loss_count = torch.zeros(2)
        module.trainer = type("Alone", (), {"world_size": 1})()
        loss = module.training_step(batches[0], 0)
        loss.backward()
        results.append((loss.item(), model.value.grad.item(), module.train_loss()))
    plain, expensive = results
    assert expensive[0] == pytest.approx(plain[0] + 3 * 2.0**2, rel=1e-6)
    assert expensive[1] == pytest.approx(plain[1] + 6 * 2.0, rel=1e-6)
    assert expensive[2] == plain[2]


def test_unknown_losses_list_the_choices():
    with pytest.raises(ValueError, match="loss='l2' is unknown; choose from 'mae', 'mse', 'huber'"):
        ForecastModule(Biased(4), loss="l2")


def test_validation_does_not_average_batches(module, batches):
    # All of the first batch is missing but one value: its mean must not weigh as the others'.
    batches[0].y_mask = torch.zeros_like(batches[0].y_mask)
    batches[0].y_mask[0, 0, 0, 0] = True
    module.on_validation_epoch_start()
    for index, batch in enumerate(batches):
        module.validation_step(batch, index)
    module.on_validation_epoch_end()
    errors = torch.cat([(2.0 - batch.y)[batch.y_mask] for batch in batches]).double()
    assert module.validation["mae"] == pytest.approx(float(errors.abs().mean()))
    assert module.validation["rmse"] == pytest.approx(float(errors.square().mean().sqrt()))


def test_best_epoch_passes_over_what_is_not_finite(module):
    assert module.best_epoch() is None
    for epoch, error in enumerate([math.nan, 3.0, 2.0, 2.0, math.inf], start=1):
        module.history.append({"epoch": epoch, "val_mae": error})
    assert module.best_epoch() == 3


def test_only_matrices_decay(graph, make_model):
    model = make_model(graph)
    groups = parameter_groups(model, 0.1)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, free = ({names[id(p)] for p in group["params"]} for group in groups)
    assert decayed | free == set(names.values())
    assert not decayed & free
    marks = ("bias", "norm", "embedding.weight", "A_log", ".D")
    # The value embedding is a linear layer, whose matrix decays.
    expected = {
        name
        for name in names.values()
        if any(mark in name for mark in marks) and name != "encoder.value_embedding.weight"
    }
    assert free >= expected
    assert {"encoder.value_embedding.weight", "head.first.weight"} <= decayed
    assert all(dict(model.named_parameters())[name].dim() >= 2 for name in decayed)


def test_shared_and_frozen_parameters_are_counted_once_and_not_at_all():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    decayed, free = (group["params"] for group in parameter_groups(model, 0.1))
    assert [len(decayed), len(free)] == [1, 2]
