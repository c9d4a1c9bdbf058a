r"""Elementary functions of the sixteen numbers of :mod:`.lanes`.

Numba ships no vector math library. These are polynomials, exact to a few units in the last place
of float32.
"""

from numba import njit

from .lanes import (
    higher_of,
    lower_of,
    mantissa_and_exponent,
    round_to_integer,
    times_two_to_the,
)

LOG2_E = 1.4426950408889634
LN_2 = 0.6931471805599453


@njit(inline="always")
def exp2(x):  # type: ignore[no-untyped-def]
    r"""The power of two as :math:`2^k p(x - k)` with the integer :math:`k` nearest to :math:`x`.

    It ends at :math:`2^{-125}` and :math:`2^{127}`.
    """
    x = lower_of(higher_of(x, -125.0), 127.0)
    exponent, k = round_to_integer(x)
    return _power(x - k, exponent)


@njit(inline="always")
def exp(x):  # type: ignore[no-untyped-def]
    r"""The exponential as :math:`2^k 2^{(x - k \ln 2) / \ln 2}`, the product with :math:`\ln 2` in
    two parts, of which the first is exact. It ends at :math:`e^{-86.6}` and :math:`e^{88}`."""
    x = lower_of(higher_of(x, -86.6), 88.0)
    exponent, k = round_to_integer(x * LOG2_E)
    rest = (x - k * 0.693359375) + k * 2.12194440e-4
    return _power(rest * LOG2_E, exponent)


@njit(inline="always")
def _power(r, exponent):  # type: ignore[no-untyped-def]
    p = r * 1.3276470e-3 + 9.6755410e-3
    p = p * r + 5.5507131e-2
    p = p * r + 2.4022120e-1
    p = p * r + 6.9314694e-1
    p = p * r + 1.0
    return times_two_to_the(p, exponent)


@njit(inline="always")
def sigmoid(x):  # type: ignore[no-untyped-def]
    return 1.0 / (1.0 + exp(0.0 - x))


@njit(inline="always")
def softplus(x):  # type: ignore[no-untyped-def]
    r"""The softplus as :math:`\max(x, 0) + \ln(1 + e^{-|x|})`, of which the logarithm is twice the
    inverse hyperbolic tangent of :math:`e^{-|x|} / (2 + e^{-|x|}) \leq 1/3`."""
    e = exp(lower_of(x, 0.0 - x))
    s = e / (2.0 + e)
    q = s * s
    p = q * (1.0 / 13.0) + 1.0 / 11.0
    p = p * q + 1.0 / 9.0
    p = p * q + 1.0 / 7.0
    p = p * q + 1.0 / 5.0
    p = p * q + 1.0 / 3.0
    p = p * q + 1.0
    return higher_of(x, 0.0) + 2.0 * s * p


@njit(inline="always")
def log(x):  # type: ignore[no-untyped-def]
    r"""The logarithm of positive numbers, of the mantissa :math:`m` as twice the inverse hyperbolic
    tangent of :math:`(m - 1) / (m + 1) \leq 0.172`."""
    m, exponent = mantissa_and_exponent(x)
    s = (m - 1.0) / (m + 1.0)
    q = s * s
    p = q * (1.0 / 9.0) + 1.0 / 7.0
    p = p * q + 1.0 / 5.0
    p = p * q + 1.0 / 3.0
    p = p * q + 1.0
    return exponent * LN_2 + 2.0 * s * p
