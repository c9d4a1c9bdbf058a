import pytest
import torch
from torch import nn

from pyg_stmamba.data import Windows
from pyg_stmamba.models.imputer import Imputer, observed_entries


class Remembers(Imputer):
    """Estimates minus one, and remembers what it was shown."""

    def estimate(self, x, x_mask, time_of_day, day_of_week):
        self.seen = x, x_mask, time_of_day, day_of_week
        return torch.full_like(x, -1.0)


@pytest.mark.parametrize("hidden", [torch.nan, 1e3])
def test_observed_entries_come_back_and_missing_ones_are_never_seen(graph, hidden):
    model = Remembers()
    x = graph.x.masked_fill(~graph.x_mask, hidden)
    before = x.clone()
    filled = model(x, graph.x_mask)
    assert torch.equal(filled, torch.where(graph.x_mask, graph.x, -1.0))
    assert torch.equal(model.seen[0], graph.x.masked_fill(~graph.x_mask, 0.0))
    assert torch.equal(x.nan_to_num(7.0), before.nan_to_num(7.0))


def test_without_a_mask_nan_is_missing(graph):
    model = Remembers()
    x = graph.x.masked_fill(~graph.x_mask, torch.nan)
    assert torch.equal(model(x), model(x, graph.x_mask))


@pytest.mark.parametrize("shared", [False, True])
def test_a_window_is_taken_like_its_parts(graph, shared):
    windows = Windows(graph, 12, 0, targets=False)
    data = windows.batch([3, 100]) if shared else windows[3]
    model = Remembers()
    model(data)
    x, mask, time_of_day, day_of_week = model.seen
    assert torch.equal(x, data.x.masked_fill(~data.x_mask, 0.0))
    assert torch.equal(mask, data.x_mask)
    assert torch.equal(time_of_day, data.time_of_day)
    assert torch.equal(day_of_week, data.day_of_week)


def test_a_mask_that_does_not_fit_is_named(graph):
    with pytest.raises(ValueError, match=r"boolean mask \(True = observed\) of the same shape"):
        Remembers()(graph.x, graph.x_mask[:, :3])
    with pytest.raises(ValueError, match=r"torch\.float32"):
        Remembers()(graph.x, graph.x_mask.float())


def test_the_estimate_has_to_be_written(graph):
    with pytest.raises(NotImplementedError):
        Imputer()(graph.x, graph.x_mask)


def test_fitting_nothing_returns_the_imputer(graph):
    model = Remembers()
    assert model.fit(graph) is model
    assert isinstance(model, nn.Module)


def test_observed_entries_of_some_steps(graph):
    steps = torch.zeros(graph.num_steps, dtype=torch.bool)
    steps[10:20] = True
    found = observed_entries(graph, steps)
    assert torch.equal(found[:, 10:20], graph.x_mask[:, 10:20])
    assert not found[:, :10].any()
    assert not found[:, 20:].any()
    assert observed_entries(graph, None) is graph.mask
