import numpy as np
import pytest
import torch
from numba import njit

from pyg_stmamba.ops.kernels import lanes
from pyg_stmamba.ops.kernels.arrays import memory

X = np.linspace(-3, 3, 40).astype(np.float32)
NAN = np.float32(np.nan)


@njit
def copy(x, at, width, y):
    lanes.store(y, at, width, lanes.load(x, at, width))


@pytest.mark.parametrize("width", [1, 3, 8, 15, 16])
def test_a_part_is_loaded_and_stored_and_nothing_else_is_touched(width):
    y = np.full(40, 7, np.float32)
    copy(X, 5, width, y)
    expected = np.full(40, 7, np.float32)
    expected[5 : 5 + width] = X[5 : 5 + width]
    np.testing.assert_array_equal(y, expected)


def test_what_is_not_loaded_is_zero():
    @njit
    def run(x, y):
        lanes.store(y, 0, 16, lanes.load(x, 0, 5))

    y = np.full(16, 7, np.float32)
    run(X, y)
    np.testing.assert_array_equal(y, np.append(X[:5], np.zeros(11, np.float32)))


@pytest.mark.parametrize("width", [5, 16])
def test_bfloat16_is_rounded_as_torch_rounds(width):
    x = torch.cat([torch.randn(12), torch.tensor([torch.inf, -torch.inf, torch.nan, 3e38])])
    halfway = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, 65535.0, 1e-40])
    x[:4] = halfway
    y = torch.zeros(16, dtype=torch.bfloat16)
    copy(memory(x), 0, width, memory(y))
    torch.testing.assert_close(y[:width], x[:width].bfloat16(), rtol=0, atol=0, equal_nan=True)
    wide = torch.zeros(16)
    copy(memory(y), 0, width, memory(wide))
    torch.testing.assert_close(wide[:width], y[:width].float(), rtol=0, atol=0, equal_nan=True)


def test_booleans_are_ones_and_zeros():
    flags, y = np.arange(16) % 3 == 0, np.empty(16, np.float32)
    copy(flags, 0, 16, y)
    np.testing.assert_array_equal(y, flags)


def test_arithmetic_takes_vectors_and_numbers():
    @njit
    def run(x, y, out):
        a, b = lanes.load(x, 0, 16), lanes.load(y, 0, 16)
        z = 1.0 - a * 2.0 + b / 4.0
        z += a
        z -= 3
        z *= b
        z /= 2.0
        lanes.store(out, 0, 16, z)

    a, b, out = X[:16].copy(), X[20:36].copy(), np.empty(16, np.float32)
    run(a, b, out)
    a, b = a.astype(np.float64), b.astype(np.float64)
    np.testing.assert_allclose(out, (1 - 2 * a + b / 4 + a - 3) * b / 2, rtol=1e-5, atol=1e-7)


def test_choices_keep_nan():
    @njit
    def run(x, out):
        a = lanes.load(x, 0, 4)
        lanes.store(out, 0, 4, lanes.lower_of(a, 1.0))
        lanes.store(out, 4, 4, lanes.higher_of(a, 1.0))
        lanes.store(out, 8, 4, lanes.where_above(a, 1.0, 5.0, 6.0))

    out = np.empty(12, np.float32)
    run(np.array([0, 1, 2, NAN], np.float32), out)
    expected = np.array([0, 1, 1, NAN, 1, 1, 2, NAN, 6, 6, 5, 5], np.float32)
    np.testing.assert_array_equal(out, expected)


def test_single_numbers():
    @njit
    def run(x, out):
        out[0] = lanes.total(lanes.load(x, 0, 16))
        out[1] = lanes.number(x, 3)
        lanes.put(out, 2, np.float32(4.0))
        lanes.store(out, 3, 2, lanes.fill(9.0))

    out = np.zeros(6, np.float32)
    run(X, out)
    np.testing.assert_allclose(out, [X[:16].sum(), X[3], 4, 9, 9, 0], rtol=1e-6)


def test_four_totals():
    @njit
    def run(x, out):
        a, b = lanes.load(x, 0, 16), lanes.load(x, 16, 16)
        c, d = lanes.load(x, 32, 16), lanes.load(x, 48, 16)
        lanes.add_totals(out, 1, a, b, c, d)

    x, out = np.random.default_rng(0).normal(size=64).astype(np.float32), np.ones(6, np.float32)
    run(x, out)
    expected = np.append(np.append(1, 1 + x.reshape(4, 16).sum(1)), 1)
    np.testing.assert_allclose(out, expected, rtol=1e-5)


def test_whole_numbers_and_powers_of_two():
    @njit
    def run(x, out):
        exponent, whole = lanes.round_to_integer(lanes.load(x, 0, 16))
        lanes.store(out, 0, 16, whole)
        lanes.store(out, 16, 16, lanes.times_two_to_the(lanes.fill(1.5), exponent))
        m, e = lanes.mantissa_and_exponent(lanes.load(out, 16, 16))
        lanes.store(out, 32, 16, m)
        lanes.store(out, 48, 16, e)

    out = np.empty(64, np.float32)
    x = np.linspace(-100.2, 99.7, 16).astype(np.float32)
    run(x, out)
    np.testing.assert_array_equal(out[:16], np.round(x))
    np.testing.assert_array_equal(out[16:32], 1.5 * 2.0 ** np.round(x).astype(np.float32))
    np.testing.assert_array_equal(out[32:48], 0.75)
    np.testing.assert_array_equal(out[48:], np.round(x) + 1)
