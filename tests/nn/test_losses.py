import numpy as np
import pytest
import torch
from torch.nn.functional import huber_loss

from pyg_stmamba.nn.losses import LOSSES, masked_huber, masked_smape

NAN, INF = float("nan"), float("inf")


def numpy_loss(name, prediction, target, valid):
    p, t = prediction[valid], target[valid]
    error = np.abs(p - t)
    return {
        "mae": error,
        "mse": error**2,
        "huber": np.where(error < 1, 0.5 * error**2, error - 0.5),
        "smape": 2 * error / (np.abs(p) + np.abs(t)),
    }[name].mean()


@pytest.fixture
def forecasts():
    rng = np.random.default_rng(0)
    prediction, target = rng.normal(size=(2, 5, 9, 12, 2))
    mask = rng.random(target.shape) < 0.8
    mask[:, 2] = False
    return prediction, target, mask


def test_the_table_holds_all():
    assert list(LOSSES) == ["mae", "mse", "huber", "smape"]
    assert all(loss.__name__ == f"masked_{name}" for name, loss in LOSSES.items())


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_numpy(name, dtype, forecasts):
    """What counts is observed and not NaN, with or without a mask."""
    prediction, target, mask = forecasts
    gaps = np.random.default_rng(1).random(target.shape) < 0.1
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    for observed in (None, mask):
        for holes in (np.zeros_like(gaps), gaps):
            known = np.where(holes, np.nan, target)
            valid = ~holes if observed is None else observed & ~holes
            loss = LOSSES[name](
                torch.tensor(prediction, dtype=dtype),
                torch.tensor(known, dtype=dtype),
                None if observed is None else torch.tensor(observed),
            )
            assert loss.dtype == dtype
            expected = numpy_loss(name, prediction, target, valid)
            assert loss.item() == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("delta", [0.3, 1.0, 2.5])
def test_huber_equals_torch(delta):
    prediction, target = torch.randn(2, 50, dtype=torch.float64)
    prediction.requires_grad_()
    loss = masked_huber(prediction, target, delta=delta)
    expected = huber_loss(prediction, target, delta=delta)
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(value, prediction)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients)
    with pytest.raises(ValueError, match="delta must be positive, got 0"):
        masked_huber(prediction, target, delta=0)


@pytest.mark.parametrize("name", LOSSES)
def test_what_does_not_count_reaches_neither_value_nor_gradient(name):
    prediction = torch.tensor([1.0, 2.0, 3.0, NAN, INF], requires_grad=True)
    target = torch.tensor([2.0, NAN, INF, 0.0, -INF])
    mask = torch.tensor([True, True, False, False, False])
    loss = LOSSES[name](prediction, target, mask)
    loss.backward()
    alone = prediction.detach()[:1].requires_grad_()
    expected = LOSSES[name](alone, target[:1])
    expected.backward()
    assert loss.item() == expected.item()
    assert prediction.grad.tolist() == [alone.grad.item(), 0.0, 0.0, 0.0, 0.0]
    assert alone.grad.item() < 0


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("target", [torch.zeros(3), torch.full((3,), NAN)])
def test_nothing_that_counts_gives_zero_with_a_gradient(name, target):
    prediction = torch.ones(3, requires_grad=True)
    mask = None if target.isnan().all() else torch.zeros(3, dtype=torch.bool)
    loss = LOSSES[name](prediction, target, mask)
    loss.backward()
    assert loss.item() == 0.0
    assert prediction.grad.tolist() == [0.0, 0.0, 0.0]
    assert LOSSES[name](prediction[:0], target[:0]).item() == 0.0


def test_smape_of_zeros():
    zeros = torch.zeros(3, requires_grad=True)
    loss = masked_smape(zeros, torch.zeros(3))
    loss.backward()
    assert loss.item() == 0.0
    assert zeros.grad.tolist() == [0.0, 0.0, 0.0]
    tiny = torch.full((3,), 1e-42, requires_grad=True)
    masked_smape(tiny, torch.zeros(3)).backward()
    assert tiny.grad.isfinite().all()
    assert masked_smape(torch.ones(3), torch.zeros(3)).item() == 2.0
    assert masked_smape(torch.ones(3), -torch.ones(3)).item() == 2.0


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_does_not_overflow(name):
    prediction, target = torch.full((2000,), 200.0, dtype=torch.float16), torch.zeros(2000)
    loss = LOSSES[name](prediction, target.half())
    assert loss.dtype == torch.float32
    expected = LOSSES[name](prediction.double(), target.double())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck_layout_and_untouched_inputs(name):
    prediction = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    target, mask = torch.randn(6, dtype=torch.float64).expand(4, 6), torch.rand(4, 6) < 0.7
    target = target.clone().masked_fill(~mask, NAN)
    kept = [tensor.clone() for tensor in (prediction, target, mask)]
    loss = LOSSES[name]
    assert torch.autograd.gradcheck(lambda p: loss(p, target, mask), (prediction,))
    torch.testing.assert_close(
        loss(prediction.t(), target.t(), mask.t()), loss(prediction, target, mask)
    )
    for tensor, before in zip((prediction, target, mask), kept):
        torch.testing.assert_close(tensor, before, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", LOSSES)
def test_shapes_do_not_broadcast(name):
    x = torch.randn(4, 6)
    with pytest.raises(ValueError, match=r"same shape, got \(4, 6\) and \(4, 1\)"):
        LOSSES[name](x, x[:, :1])
    with pytest.raises(ValueError, match=r"\(4, 6\), got \(4, 1\) and dtype torch\.bool"):
        LOSSES[name](x, x, x[:, :1] > 0)
    with pytest.raises(ValueError, match=r"mask must be boolean .*torch\.float32"):
        LOSSES[name](x, x, torch.ones_like(x))
