import time

import pytest
import torch
from torch import nn

from pyg_stmamba.data import Scaler
from pyg_stmamba.models.imputer import Imputer, observed_entries
from pyg_stmamba.training import imputation
from pyg_stmamba.training.hiding import Hiding
from pyg_stmamba.training.imputation import fit_imputer
from pyg_stmamba.training.imputation_split import ImputationSplit, split_time

SHORT = {"window": 12, "batch_size": 8, "progress": False}


class Neighbors(Imputer):
    """A linear function of all nodes at the same step; remembers what it was trained on."""

    def __init__(self, num_nodes=5, dropout=0.0):
        super().__init__()
        self.scaler = Scaler(1)
        self.linear = nn.Linear(2 * num_nodes, num_nodes)
        self.dropout = nn.Dropout(dropout)
        self.batches = []

    def fit(self, graph, steps=None):
        self.scaler.fit(graph.values, observed_entries(graph, steps))
        return self

    def forward(self, x, *args):
        if self.training:
            self.batches.append(x)
        return super().forward(x, *args)

    def estimate(self, x, x_mask, time_of_day, day_of_week):
        values = self.scaler(x).masked_fill(~x_mask, 0.0)
        features = torch.cat([values, x_mask.to(x.dtype)]).movedim(0, -1)
        return self.scaler.inverse(self.linear(self.dropout(features)).movedim(-1, 0))


@pytest.fixture
def alike(make_graph):
    """All nodes show the same but for a little noise."""
    graph = make_graph(num_steps=300)
    common = torch.randn(300).cumsum(0)[None, :, None] + 50
    graph.x = (common + 0.05 * torch.randn(graph.x.shape)) * graph.x_mask
    return graph


def test_it_learns_what_the_neighbors_tell(alike):
    torch.manual_seed(0)
    hiding = Hiding(borrowed=0, points=0, blocks=0, outage=0, silent=0.2)
    result = fit_imputer(
        Neighbors(), alike, split_time(alike), hiding=hiding, max_epochs=60, learning_rate=3e-2,
        **SHORT,
    )  # fmt: skip
    first, best = result.history[0]["val_mae"], min(row["val_mae"] for row in result.history)
    assert best < 0.5 * first
    assert not result.model.training
    assert [row["epoch"] for row in result.history] == list(range(1, 61))
    assert result.history[-1]["seconds"] > 0


def test_the_seed_alone_decides_on_order_hiding_and_dropout(alike):
    def run(seed, outside):
        torch.manual_seed(3)
        model = Neighbors(dropout=0.2)
        torch.manual_seed(outside)
        result = fit_imputer(model, alike, split_time(alike), max_epochs=2, seed=seed, **SHORT)
        return result.model.linear.weight

    assert torch.equal(run(0, outside=0), run(0, outside=1))
    assert not torch.equal(run(0, outside=0), run(1, outside=0))


def test_the_random_state_outside_stays(alike):
    model = Neighbors(dropout=0.2)
    state = torch.get_rng_state()
    fit_imputer(model, alike, split_time(alike), max_epochs=1, **SHORT)
    assert torch.equal(torch.get_rng_state(), state)


def test_missing_entries_and_other_steps_do_not_matter(alike):
    split = split_time(alike)
    changed = alike.clone()
    unseen = ~alike.x_mask | split.test[:, None]
    changed.x = torch.where(unseen, 1e4 * torch.randn_like(alike.x), alike.x)
    weights = []
    for graph in (alike, changed):
        torch.manual_seed(0)
        result = fit_imputer(Neighbors(), graph, split, max_epochs=3, **SHORT)
        weights.append((result.model.linear.weight, result.history[-1]["val_mae"]))
    assert torch.equal(weights[0][0], weights[1][0])
    assert weights[0][1] == weights[1][1]


def test_hidden_values_are_not_in_the_batch(alike):
    model = Neighbors()
    hiding = Hiding(borrowed=0, points=0, blocks=0, outage=0, silent=0.5)
    before = alike.x.clone()
    fit_imputer(model, alike, split_time(alike), max_epochs=1, hiding=hiding, **SHORT)
    for batch in model.batches:
        assert (batch.x[~batch.x_mask] == 0).all()
        silent = ~batch.x_mask.flatten(2).any(2)
        assert silent.float().mean() > 0.2
    assert torch.equal(alike.x, before)


def test_windows_lie_within_the_training_steps_and_differ_from_epoch_to_epoch(alike):
    split, model = split_time(alike), Neighbors()
    fit_imputer(model, alike, split, max_epochs=4, stride=3, **SHORT)
    count = int(split.train.sum()) - 12 + 1
    starts = [int(start) for batch in model.batches for start in batch.start]
    per_epoch = -(-count // 3 // 8) * 8
    assert max(starts) < count
    epochs = [set(starts[i : i + per_epoch]) for i in range(0, len(starts), per_epoch)]
    assert len(epochs) == 4
    assert all(len(epoch) == per_epoch for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_the_best_epoch_is_kept(alike, monkeypatch):
    errors = {"of the run": iter([3.0, 1.0, 2.0, float("nan")]), "of two epochs": iter([3.0, 1.0])}
    options = {"ema_decay": 0.0, "schedule": "constant", "warmup": 0.0, **SHORT}
    weights = []
    for epochs, series in zip((4, 2), errors.values()):
        monkeypatch.setattr(imputation, "_hidden_mae", lambda *_, errors=series: next(errors))
        torch.manual_seed(0)
        result = fit_imputer(Neighbors(), alike, split_time(alike), max_epochs=epochs, **options)
        weights.append(result.model.linear.weight)
    assert torch.equal(*weights)


def test_the_average_of_the_weights_is_what_is_kept(alike):
    torch.manual_seed(0)
    options = {
        "learning_rate": 0.1,
        "schedule": "constant",
        "warmup": 0.0,
        "max_epochs": 1,
        **SHORT,
    }
    plain = fit_imputer(Neighbors(), alike, split_time(alike), ema_decay=0.0, **options)
    torch.manual_seed(0)
    averaged = fit_imputer(Neighbors(), alike, split_time(alike), ema_decay=0.9, **options)
    assert not torch.equal(plain.model.linear.weight, averaged.model.linear.weight)
    assert plain.history[0]["train_loss"] == averaged.history[0]["train_loss"]


def test_time_is_kept_within_an_epoch_and_over_all(alike, monkeypatch):
    forward = Neighbors.forward

    def slow(self, *args):
        time.sleep(0.05 if self.training else 0)
        return forward(self, *args)

    monkeypatch.setattr(Neighbors, "forward", slow)
    options = {"max_epochs": 10**6, **SHORT}
    # 26 steps of an epoch take 1.3 seconds.
    result = fit_imputer(Neighbors(), alike, split_time(alike), stride=1, max_time=0.005, **options)
    assert len(result.history) == 1
    assert 0.3 <= result.history[0]["seconds"] < 1.0
    result = fit_imputer(
        Neighbors(), alike, split_time(alike), stride=26, max_time=0.005, **options
    )
    assert 1 < len(result.history) <= 6


def test_what_cannot_be_trained_is_named(alike):
    split = split_time(alike)
    with pytest.raises(ValueError, match="no window of 12 steps lies within the steps of split"):
        fit_imputer(
            Neighbors(), alike, ImputationSplit(torch.zeros(300) > 0, split.val, split.test),
            **SHORT,
        )  # fmt: skip
    with pytest.raises(ValueError, match="stride=0"):
        fit_imputer(Neighbors(), alike, split, stride=0, **SHORT)
    with pytest.raises(ValueError, match="unknown; choose from"):
        fit_imputer(Neighbors(), alike, split, schedule="sine", **SHORT)
    with pytest.raises(ValueError, match="training diverged"):
        fit_imputer(
            Neighbors(), alike, split, learning_rate=float("inf"), max_epochs=1, warmup=0.0,
            **SHORT,
        )  # fmt: skip
