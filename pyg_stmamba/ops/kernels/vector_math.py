r"""Elementary functions for Numba kernels, written so that LLVM vectorizes loops over them.

Numba ships no vector math library, so a loop that calls :func:`math.exp` runs one element at a
time. These are polynomials, exact to a few units in the last place of float32.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

# Without reassociation, which would undo the two-part reduction of the argument.
_FLAGS = {"contract", "nsz"}


@intrinsic
def _float_from_bits(typing_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@njit(inline="always", fastmath=_FLAGS)
def exp(x: float) -> float:
    r"""The exponential as :math:`2^k p(r)` with :math:`|r| \leq \ln 2 / 2`."""
    f = np.float32
    bounded = min(max(x, f(-87.3)), f(88.0))
    k = np.floor(bounded * f(1.4426950408889634) + f(0.5))
    r = (bounded - k * f(0.693359375)) + k * f(2.12194440e-4)
    p = f(1.9875691500e-4)
    p = p * r + f(1.3981999507e-3)
    p = p * r + f(8.3334519073e-3)
    p = p * r + f(4.1665795894e-2)
    p = p * r + f(1.6666665459e-1)
    p = p * r + f(5.0000001201e-1)
    p = p * r * r + (r + f(1.0))
    # The bounds would swallow a NaN; adding zero times the argument brings it back.
    return p * _float_from_bits((np.int32(k) + np.int32(127)) << np.int32(23)) + x * f(0.0)


@njit(inline="always", fastmath=_FLAGS)
def sigmoid(x: float) -> float:
    return np.float32(1.0) / (np.float32(1.0) + exp(-x))


@njit(inline="always", fastmath=_FLAGS)
def softplus(x: float) -> float:
    r"""The softplus as :math:`\max(x, 0) + \ln(1 + e^{-|x|})`, the logarithm by the series of
    :math:`2 \, \mathrm{artanh}(s)` with :math:`s = e^{-|x|} / (2 + e^{-|x|}) \leq 1/3`."""
    f = np.float32
    e = exp(-abs(x))
    s = e / (f(2.0) + e)
    q = s * s
    p = f(1.0 / 13.0)
    p = p * q + f(1.0 / 11.0)
    p = p * q + f(1.0 / 9.0)
    p = p * q + f(1.0 / 7.0)
    p = p * q + f(1.0 / 5.0)
    p = p * q + f(1.0 / 3.0)
    p = p * q + f(1.0)
    return max(x, f(0.0)) + f(2.0) * s * p
