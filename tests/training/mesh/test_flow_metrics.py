import numpy as np
import pytest

from pyg_stmamba.training.mesh.flow_metrics import (
    gauge_free,
    kinetic_energy,
    relative_l2,
    root_mean_square,
    share,
)

RANDOM = np.random.default_rng(0)


def test_a_constant_offset_has_its_own_length_as_error():
    error = np.broadcast_to([3.0, 4.0], (7, 5, 2))
    assert np.allclose(root_mean_square(error), 5)
    assert np.allclose(root_mean_square(error, per_component=True), 5 / np.sqrt(2))
    assert np.allclose(root_mean_square(error, RANDOM.uniform(1, 2, 7)), 5)


def test_equals_numpy_over_the_counted_nodes():
    error, counted = RANDOM.normal(size=(30, 4, 2)), RANDOM.uniform(size=30) > 0.5
    for t in range(4):
        lengths = np.linalg.norm(error[counted, t], axis=1)
        assert np.isclose(root_mean_square(error, counted)[t], np.sqrt(np.mean(lengths**2)))
        mean_squared = np.mean(error[counted, t] ** 2)
        found = root_mean_square(error, counted, per_component=True)[t]
        assert np.isclose(found**2, mean_squared)


def test_weights_are_areas_of_an_integral():
    # The mean of x squared over [0, 1] is 1/3, but nodes crowd at 0.
    x = np.linspace(0, 1, 2001) ** 3
    weights = np.gradient(x)
    assert np.isclose(root_mean_square(x[:, None, None], weights)[0], np.sqrt(1 / 3), rtol=1e-3)
    assert np.isclose(root_mean_square(x[:, None, None])[0], np.sqrt(1 / 7), rtol=1e-3)


def test_nodes_that_do_not_count_may_hold_anything():
    error = np.ones((4, 3, 2))
    error[1] = np.nan
    assert np.allclose(root_mean_square(error, np.array([1, 0, 2, 1])), np.sqrt(2))
    assert np.isnan(root_mean_square(error)).all()


def test_sums_are_in_float64():
    values = np.full((100_000, 1, 1), 1e4, dtype=np.float32)
    values[::2] += 1
    assert np.isclose(root_mean_square(values)[0], np.sqrt(1e8 + 1e4 + 0.5), rtol=1e-12)
    assert root_mean_square(np.full((2, 1, 2), 1e30, dtype=np.float32))[0] > 1e30


def test_the_gauge_is_no_error():
    pressure, weights = RANDOM.normal(size=(6, 3, 1)), RANDOM.uniform(size=6)
    shifted = pressure + np.array([1.0, -5.0, 1e3])[:, None]
    assert np.allclose(gauge_free(shifted, weights), gauge_free(pressure, weights))
    assert np.allclose(np.average(gauge_free(pressure, weights)[..., 0], 0, weights), 0)
    assert not np.allclose(gauge_free(pressure), gauge_free(pressure, weights))
    assert np.allclose(gauge_free(pressure), pressure - pressure.mean(0))


def test_relative_l2():
    truth, weights = RANDOM.normal(size=(9, 4, 2)), RANDOM.uniform(size=9)
    assert np.allclose(relative_l2(1.25 * truth, truth, weights), 0.25)
    prediction = RANDOM.normal(size=truth.shape)
    root = np.sqrt(weights)[:, None]
    for t in range(4):
        wanted = np.linalg.norm(root * (prediction - truth)[:, t]) / np.linalg.norm(
            root * truth[:, t]
        )
        assert np.isclose(relative_l2(prediction, truth, weights)[t], wanted)


def test_relative_l2_of_nothing_is_no_number():
    truth = np.zeros((3, 2, 1))
    truth[:, 1] = 2
    found = relative_l2(np.ones_like(truth), truth)
    assert np.isnan(found[0])
    assert found[1] == 0.5
    assert np.isnan(share(np.array([0.0]), np.array([0.0])))


def test_kinetic_energy_of_a_uniform_stream(mesh, node_area):
    velocity = np.broadcast_to([3.0, -4.0], (mesh.num_nodes, 2, 2))
    assert np.allclose(kinetic_energy(velocity, node_area), 12.5 * node_area.sum())


def test_bad_input():
    with pytest.raises(ValueError, match=r"a field must be \[N, T, C\], got shape \[3, 2\]"):
        root_mean_square(np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"weights must be \[3\], one a node, got shape \[2\]"):
        root_mean_square(np.ones((3, 2, 1)), np.ones(2))
    for weights in (np.zeros(3), np.array([1.0, -1.0, 1.0]), np.array([1.0, np.nan, 1.0])):
        with pytest.raises(ValueError, match="not be negative, and not all 0"):
            gauge_free(np.ones((3, 2, 1)), weights)
    with pytest.raises(ValueError, match=r"one shape, got \[3, 2, 1\] and \[3, 1, 1\]"):
        relative_l2(np.ones((3, 2, 1)), np.ones((3, 1, 1)))
