import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import minimize_scalar
from torch import Tensor

from pyg_stmamba.ops import (
    hyperbolic_features,
    linear_attention,
    optimal_features,
    positive_features,
    random_projection,
    relu_features,
)
from pyg_stmamba.ops.random_features import optimal_coefficient

DRAWS = 40_000


def on_sphere(norm: float, dim: int) -> Tensor:
    x = torch.randn(dim, dtype=torch.float64)
    return norm * x / x.norm()


def kernel_estimates(feature_map, x: Tensor, y: Tensor, count: int, **options) -> Tensor:
    """One estimate of exp(x y) for each of many draws of so many directions."""
    dim = x.numel()
    blocks = math.ceil(count / dim) * dim
    drawn = random_projection(DRAWS * blocks, dim, **options).double()
    drawn = drawn.unflatten(0, (DRAWS, blocks))[:, :count].flatten(0, 1)
    (f, s), (g, r) = feature_map(x[None], drawn), feature_map(y[None], drawn)
    terms = (s + r).exp() * (f * g)[0]
    # All directions together stand in one average; of each draw its own is wanted.
    return DRAWS * terms.view(-1, DRAWS, count).sum((0, 2))


@pytest.mark.parametrize("orthogonal", [True, False])
@pytest.mark.parametrize("feature_map", [optimal_features, positive_features, hyperbolic_features])
@pytest.mark.parametrize(
    ("dim", "count", "norm"), [(8, 8, 0.5), (8, 8, 0.8), (16, 12, 0.5), (3, 7, 0.8), (2, 5, 0.8)]
)
def test_the_kernel_is_estimated_without_bias(dim, count, norm, feature_map, orthogonal):
    x, y = on_sphere(norm, dim), on_sphere(norm, dim)
    found = kernel_estimates(feature_map, x, y, count, orthogonal=orthogonal)
    z = (found.mean() - (x @ y).exp()) / (found.std() / DRAWS**0.5)
    assert abs(z) < 4


def test_directions_of_one_length_have_a_bias():
    x, y = on_sphere(0.8, 8), on_sphere(0.8, 8)
    found = kernel_estimates(positive_features, x, y, 8, ortho_scaling=1)
    assert abs(found.mean() - (x @ y).exp()) / (found.std() / DRAWS**0.5) > 10


@pytest.mark.parametrize(("dim", "count"), [(8, 8), (16, 12)])
def test_variance(dim, count):
    x, y = on_sphere(0.5, dim), on_sphere(0.5, dim)
    kernel, length = (x @ y).exp(), (x + y).square().sum()
    independent = length.exp() * kernel**2 * (1 - (-length).exp()) / count
    found = kernel_estimates(positive_features, x, y, count, orthogonal=False).var()
    assert float(found) == pytest.approx(float(independent), rel=0.1)
    flat = (-0.5 * (x.square().sum() + y.square().sum())).exp()
    gain = 2 * (count - 1) / (count * (dim + 2)) * (kernel - flat) ** 2
    found = kernel_estimates(positive_features, x, y, count).var()
    assert found <= 1.05 * (independent - gain)
    # Twice the features, of which each pair has less variance than two directions.
    both_ways = kernel_estimates(hyperbolic_features, x, y, count).var()
    assert both_ways < 0.5 * found


def test_orthogonal_directions_are_uniform_and_of_the_length_of_normal_ones():
    dim = 6
    drawn = random_projection(DRAWS * dim, dim).unflatten(0, (DRAWS, dim))
    norms = drawn.norm(dim=-1, keepdim=True)
    basis = drawn / norms
    gram = basis @ basis.mT
    torch.testing.assert_close(gram, torch.eye(dim).expand_as(gram), atol=1e-5, rtol=0)
    # Each entry of a uniform matrix has mean zero and variance 1 / d.
    assert (basis.mean(0).abs() < 5 / (dim * DRAWS) ** 0.5).all()
    assert stats.kstest(norms.flatten(), stats.chi(dim).cdf).pvalue > 1e-3
    assert stats.kstest(drawn[:, 0, 0], stats.norm.cdf).pvalue > 1e-3
    # Lengths and blocks do not depend on each other.
    for a, b in ((norms[:, 0, 0], norms[:, 1, 0]), (drawn[1:, 0, 0], drawn[:-1, 0, 0])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / DRAWS**0.5


@pytest.mark.parametrize("count", [1, 4, 5, 9, 15])
def test_any_number_of_directions(count):
    drawn = random_projection(count, 5)
    assert drawn.shape == (count, 5)
    for block in drawn.split(5):
        gram = block @ block.T
        assert (gram - gram.diagonal().diag()).abs().max() < 1e-5 * gram.max()
    of_one_length = random_projection(count, 5, ortho_scaling=1)
    torch.testing.assert_close(of_one_length.norm(dim=1), torch.full((count,), 5**0.5))
    independent = random_projection(count, 5, orthogonal=False)
    assert independent.shape == (count, 5)
    assert count < 2 or (independent @ independent.T)[0, 1].abs() > 1e-3


@pytest.mark.parametrize("orthogonal", [True, False])
def test_the_generator_decides(orthogonal):
    draws = [
        random_projection(7, 4, orthogonal, generator=torch.Generator().manual_seed(seed))
        for seed in (3, 3, 4)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def log_second_moment(a: float, square: float, dim: int) -> float:
    """Of one direction's term of the estimate, the expectation of its square, up to a constant:
    a Gaussian integral."""
    spread = 1 - 8 * a
    return dim * np.log(1 - 4 * a) - dim / 2 * np.log(spread) + 2 * (1 - 4 * a) * square / spread


@pytest.mark.parametrize(("square", "dim"), [(0.3, 4), (1.0, 4), (4.0, 16), (2.8, 32), (30.0, 8)])
def test_the_coefficient_gives_the_least_variance(square, dim):
    least = minimize_scalar(
        log_second_moment, bounds=(-3, 0.12), args=(square, dim), method="bounded",
        options={"xatol": 1e-10},
    )  # fmt: skip
    assert optimal_coefficient(square, dim) == pytest.approx(least.x, abs=1e-6)


def test_optimal_features_have_less_variance():
    dim, count = 16, 16
    # Entries of queries and keys of 1/2, so that rows have entries of 1/2 d^(-1/4).
    x, y = on_sphere(0.5 * dim**0.25, dim), on_sphere(0.5 * dim**0.25, dim)
    square = (x + y).square().sum().item()
    a = optimal_coefficient(dim**0.5 / 2, dim)
    expected = [np.exp(log_second_moment(c, square, dim)) - np.exp(square) for c in (0.0, a)]
    for orthogonal in (False, True):
        positive, optimal = (
            kernel_estimates(feature_map, x, y, count, orthogonal=orthogonal).var()
            for feature_map in (positive_features, optimal_features)
        )
        assert optimal < positive
        if not orthogonal:
            assert optimal / positive == pytest.approx(expected[1] / expected[0], rel=0.1)


def test_formulas():
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    omega = torch.randn(5, 4, dtype=torch.float64)
    projected = x.numpy() @ omega.numpy().T
    half = np.exp(-0.5 * np.square(x.numpy()).sum(-1, keepdims=True))
    a = optimal_coefficient(1.0, 4)
    expected = {
        positive_features: np.exp(projected) * half / np.sqrt(5),
        hyperbolic_features: np.exp(np.concatenate([projected, -projected], -1))
        * half
        / np.sqrt(10),
        optimal_features: (1 - 4 * a)
        * np.exp(a * np.square(omega.numpy()).sum(1) + np.sqrt(1 - 4 * a) * projected)
        * half
        / np.sqrt(5),
        relu_features: np.maximum(projected, 0) + 1e-3,
    }
    for feature_map, right in expected.items():
        values, log_scale = feature_map(x, omega)
        assert (values >= 0).all()
        if log_scale is not None:
            assert (values <= 1).all()
            assert log_scale.shape == (2, 3)
            values = values * log_scale.exp().unsqueeze(-1)
        np.testing.assert_allclose(values.numpy(), right, rtol=1e-12)
    assert relu_features(x, omega).log_scale is None


@pytest.mark.parametrize("feature_map", [optimal_features, positive_features, hyperbolic_features])
def test_gradients(feature_map):
    omega = torch.randn(3, 4, dtype=torch.float64)

    def features(x):
        values, log_scale = feature_map(x, omega)
        return values * log_scale.exp().unsqueeze(-1)

    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(features, x)


@pytest.mark.parametrize("feature_map", [optimal_features, positive_features, hyperbolic_features])
def test_large_rows_neither_overflow_nor_vanish(feature_map):
    values, log_scale = feature_map(100 * torch.randn(6, 8), random_projection(16, 8))
    assert values.isfinite().all()
    assert log_scale.isfinite().all()
    assert (values.amax(-1) == 1).all()


def test_attention_comes_close_to_softmax_as_features_become_many():
    """The error falls like one over the square root of their number."""
    generator = torch.Generator().manual_seed(1)
    query, key, value = (
        torch.randn(256, 16, dtype=torch.float64, generator=generator) for _ in range(3)
    )
    x, z = (0.5 * part / 16**0.25 for part in (query, key))
    right = (x @ z.T).softmax(-1) @ value
    counts = [32, 128, 512, 2048, 8192]
    errors = []
    for count in counts:
        found = []
        for _ in range(8):
            omega = random_projection(count, 16, generator=generator).double()
            keys = positive_features(z, omega)
            queries = positive_features(x, omega).values
            y = linear_attention(queries, keys.values, value, keys.log_scale)
            found.append(float((y - right).norm() / right.norm()))
        errors.append(np.mean(found))
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert -0.6 < slope < -0.4
    assert errors[-1] < 0.05
