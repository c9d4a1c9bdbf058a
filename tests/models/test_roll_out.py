import math

import pytest
import torch

from pyg_stmamba.models.roll_out import roll_out, sampling_ratio

B, L, M = 2, 6, 3


def doubled(values, known, t):
    """Twice the step before, and one where there is none."""
    return 2 * values[:, t - 1] if t else torch.ones(values.size(0), values.size(2))


def test_forecasts_are_fed_back():
    values = torch.full((B, L, M), 100.0)
    known = torch.ones(B, L, M, dtype=torch.bool)
    y = roll_out(doubled, values, known)
    assert y.tolist() == (2.0 ** torch.arange(6)).view(1, 6, 1).expand(B, 6, M).tolist()
    # Two steps are given, so the third doubles the second.
    y = roll_out(doubled, values, known, start_len=2)
    assert y[0, :, 0].tolist() == [200.0, 400.0, 800.0, 1600.0]


def test_what_has_not_been_forecast_is_zero_and_unknown():
    def look(values, known, t):
        assert (values[:, t:] == 0).all()
        assert not known[:, t:].any()
        assert known[:, :t].all()
        return torch.ones(B, M)

    known = torch.ones(B, L, M, dtype=torch.bool)
    roll_out(look, torch.randn(B, L, M), known, start_len=1)


def test_what_is_given_is_known_where_it_was_observed():
    values, known = torch.randn(B, L, M), torch.rand(B, L, M) < 0.5

    def look(so_far, flags, t):
        assert torch.equal(so_far[:, :3], values[:, :3])
        assert torch.equal(flags[:, :3], known[:, :3])
        return torch.ones(B, M)

    roll_out(look, values, known, start_len=3)


def test_truth_is_fed_back_as_often_as_asked():
    values = torch.full((50, 40, 50), 7.0)
    known = torch.rand(50, 40, 50) < 0.9
    seen, flags = [], []

    def minus_one(values, known, t):
        if t:
            seen.append(values[:, t - 1])
            flags.append(known[:, t - 1])
        return -torch.ones(50, 50)

    roll_out(minus_one, values, known, truth_ratio=0.3)
    true, flag = torch.stack(seen, 1) == 7, torch.stack(flags, 1)
    assert true.float().mean().item() == pytest.approx(0.3, abs=0.01)
    # A forecast is always known, a true value where it was observed.
    assert flag[~true].all()
    assert flag[true].float().mean().item() == pytest.approx(0.9, abs=0.01)
    seen.clear()
    roll_out(minus_one, values, known, truth_ratio=1.0)
    assert (torch.stack(seen) == 7).all()


def test_several_forecasts_of_a_value_feed_the_first_back():
    def three(values, known, t):
        y = doubled(values, known, t)
        return torch.stack([y, y + 100, y - 100])

    y = roll_out(three, torch.zeros(B, L, M), torch.zeros(B, L, M, dtype=torch.bool))
    assert y.shape == (3, B, L, M)
    assert y[0, 0, :, 0].tolist() == [1, 2, 4, 8, 16, 32]
    assert (y[1] - y[0] == 100).all()


def test_gradients_flow_through_what_is_fed_back():
    factor = torch.tensor(3.0, requires_grad=True)

    def times(values, known, t):
        return factor * (values[:, t - 1] if t else torch.ones(B, M))

    y = roll_out(times, torch.zeros(B, 4, M), torch.zeros(B, 4, M, dtype=torch.bool))
    (slope,) = torch.autograd.grad(y[0, -1, 0], factor)
    assert slope == 4 * 3.0**3


def test_sampling_ratio():
    assert sampling_ratio(0, 10.0) == pytest.approx(10 / 11)
    for passes in (1, 20, 50):
        assert sampling_ratio(passes, 10.0) == pytest.approx(10 / (10 + math.exp(passes / 10)))
    assert 0 <= sampling_ratio(10**9, 10.0) < 1e-100
