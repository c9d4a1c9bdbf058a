import numpy as np
import pytest
import torch

from pyg_stmamba.training.metrics import HorizonMetrics, masked_mae, masked_mape, masked_rmse


@pytest.fixture
def forecasts():
    rng = np.random.default_rng(0)
    target = rng.uniform(1, 70, (5, 9, 12, 2))
    mask = rng.random(target.shape) < 0.8
    mask[:, 2] = False
    target[0, 0, 0, 0] = 0.0
    mask[0, 0, 0, 0] = True
    return rng.uniform(1, 70, target.shape), target, mask


def numpy_scores(prediction, target, mask):
    error = np.abs(prediction - target)[mask]
    nonzero = mask & (target != 0)
    return {
        "mae": error.mean(),
        "rmse": np.sqrt((error**2).mean()),
        "mape": (np.abs(prediction - target)[nonzero] / target[nonzero]).mean(),
    }


def test_functions_equal_numpy(forecasts):
    expected = numpy_scores(*forecasts)
    tensors = [torch.tensor(array) for array in forecasts]
    for name, function in (("mae", masked_mae), ("rmse", masked_rmse), ("mape", masked_mape)):
        assert function(*tensors).item() == pytest.approx(expected[name], rel=1e-12)


def test_unobserved_targets_do_not_reach_value_or_gradient():
    prediction = torch.ones(3, requires_grad=True)
    target = torch.tensor([2.0, float("nan"), float("inf")])
    loss = masked_mae(prediction, target, torch.tensor([True, False, False]))
    loss.backward()
    assert loss.item() == 1.0
    assert prediction.grad.tolist() == [-1.0, 0.0, 0.0]


def test_nothing_observed_gives_zero_loss_with_a_gradient():
    prediction = torch.ones(3, requires_grad=True)
    loss = masked_mae(prediction, torch.zeros(3), torch.zeros(3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0
    assert prediction.grad.tolist() == [0.0, 0.0, 0.0]


def test_horizon_metrics_do_not_depend_on_the_batches(forecasts):
    tensors = [torch.tensor(array) for array in forecasts]
    metrics = HorizonMetrics(12)
    for start, stop in ((0, 1), (1, 4), (4, 9)):
        metrics.update(*(tensor[:, start:stop] for tensor in tensors))
    result = metrics.compute()
    assert list(result["horizons"]) == ["3", "6", "12"]
    for step, scores in result["horizons"].items():
        at_step = [array[:, :, int(step) - 1] for array in forecasts]
        assert scores == pytest.approx(numpy_scores(*at_step), rel=1e-12)
    assert result["average"] == pytest.approx(numpy_scores(*forecasts), rel=1e-12)
    by_step = [numpy_scores(*(a[:, :, h] for a in forecasts))["mae"] for h in range(12)]
    np.testing.assert_allclose(metrics.mae_by_step(), by_step)


def test_horizon_metrics_name_wrong_shapes():
    with pytest.raises(ValueError, match=r"\(2, 3, 1\).*\[\.\.\., 4, channels\]"):
        HorizonMetrics(4).update(torch.zeros(2, 3, 1), torch.zeros(2, 3, 1))


def test_empty_evaluation_is_nan():
    assert np.isnan(HorizonMetrics(12).compute()["average"]["mae"])
