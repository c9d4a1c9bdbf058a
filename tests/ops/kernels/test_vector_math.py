import numpy as np
import pytest
from numba import njit
from scipy.special import expit

from pyg_stmamba.ops.kernels import vector_math
from pyg_stmamba.ops.kernels.lanes import LANES, load, store


def over(name, x):
    function = getattr(vector_math, name)

    @njit
    def run(x, y):
        for at in range(0, x.size, LANES):
            width = min(LANES, x.size - at)
            store(y, at, width, function(load(x, at, width)))

    y = np.empty_like(x)
    run(x, y)
    return y


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("exp", np.exp),
        ("exp2", np.exp2),
        ("sigmoid", expit),
        ("softplus", lambda x: np.logaddexp(x, 0)),
    ],
)
def test_against_float64(name, expected):
    x = np.concatenate([np.linspace(-80, 80, 100_001), [0.0, -1e-8, 1e-8, 20.0, -20.0]])
    x = x.astype(np.float32)
    y = over(name, x)
    exact = expected(x.astype(np.float64))
    np.testing.assert_allclose(y, exact, rtol=5e-7, atol=1e-38)

    odd = np.array([np.nan, 1.0, np.nan], np.float32)
    assert np.isnan(over(name, odd)).tolist() == [True, False, True]


def test_logarithm():
    x = np.concatenate([np.geomspace(1e-30, 1e30, 100_001), [1.0, 2.0, 0.5]]).astype(np.float32)
    exact = np.log(x.astype(np.float64))
    np.testing.assert_allclose(over("log", x), exact, rtol=3e-7, atol=1e-7)


def test_far_ends_stay_finite_and_positive():
    x = np.array([-np.inf, -1e30, -200, 200, 1e30, np.inf], np.float32)
    y = over("exp2", x)
    assert np.isfinite(y).all()
    assert (y[:3] > 0).all()
    assert (y[:3] < 1e-37).all()
    assert (y[3:] > 1e38).all()
