import numpy as np
import pytest
from numba import njit
from scipy.special import expit

from pyg_stmamba.ops.kernels import vector_math


@pytest.mark.parametrize(
    ("name", "expected"),
    [("exp", np.exp), ("sigmoid", expit), ("softplus", lambda x: np.logaddexp(x, 0))],
)
def test_against_float64(name, expected):
    function = getattr(vector_math, name)

    @njit
    def over(x, y):
        for i in range(x.size):
            y[i] = function(x[i])

    x = np.concatenate([np.linspace(-80, 80, 100_001), [0.0, -1e-8, 1e-8, 20.0, -20.0]])
    x = x.astype(np.float32)
    y = np.empty_like(x)
    over(x, y)
    exact = expected(x.astype(np.float64))
    # The argument reduction of the exponential costs an ulp for every factor of about 20.
    np.testing.assert_allclose(y, exact, rtol=4e-6, atol=1e-38)
    near = np.abs(x) < 10
    np.testing.assert_allclose(y[near], exact[near], rtol=5e-7)

    odd = np.array([np.nan, 1.0, np.nan], np.float32)
    out = np.empty_like(odd)
    over(odd, out)
    assert np.isnan(out).tolist() == [True, False, True]
