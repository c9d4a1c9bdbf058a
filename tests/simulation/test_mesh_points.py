import numpy as np
import pytest

from pyg_stmamba.simulation.channel import Channel
from pyg_stmamba.simulation.edge_length import EdgeLength
from pyg_stmamba.simulation.mesh_points import (
    _hilbert_index,
    points_inside,
    points_on_hole,
    points_on_segment,
)

CHANNEL = Channel(2.2, 0.41, (0.2, 0.2), 0.05)
EDGE_LENGTH = EdgeLength(CHANNEL, far=0.04, hole=0.005, growth=0.25, wake_growth=0.2)


def test_even_points_on_a_segment():
    even = EDGE_LENGTH._replace(hole=0.04)
    points = points_on_segment(np.array([0, 0.41]), np.array([0, 0.0]), even)
    wanted = np.linspace([0, 0.41], [0, 0], 11)[:-1]
    np.testing.assert_allclose(points, wanted, atol=1e-12)


def test_spacing_on_a_segment_is_as_wanted():
    start, end = np.array([0.25, 0.2]), np.array([2.2, 0.2])
    points = points_on_segment(start, end, EDGE_LENGTH)
    np.testing.assert_array_equal(points[0], start)
    points = np.concatenate([points, [end]])
    spacing = np.diff(points[:, 0])
    ratio = spacing / EDGE_LENGTH.at((points[1:] + points[:-1]) / 2)
    assert spacing[-1] / spacing[0] > 2
    assert ratio.min() > 0.98
    assert ratio.max() < 1.02
    assert np.ptp(ratio) < 0.01


def test_a_segment_has_the_same_points_both_ways():
    start, end = np.array([0, 0.0]), np.array([2.2, 0])
    there = points_on_segment(start, end, EDGE_LENGTH)
    back = points_on_segment(end, start, EDGE_LENGTH)
    np.testing.assert_allclose(there[1:], back[:0:-1], atol=1e-12)


@pytest.mark.parametrize(("spacing", "count"), [(0.05, 6), (0.0125, 25), (0.005, 63)])
def test_points_on_hole(spacing, count):
    points = points_on_hole(CHANNEL, spacing)
    assert points.shape == (count, 2)
    np.testing.assert_allclose(CHANNEL.from_hole(points), 0, atol=1e-15)
    np.testing.assert_array_equal(points[0], [0.25, 0.2])
    around = np.unwrap(np.arctan2(*(points - [0.2, 0.2]).T[::-1]))
    np.testing.assert_allclose(np.diff(around), 2 * np.pi / count)


def test_inner_points_are_as_dense_as_wanted():
    points = points_inside(EDGE_LENGTH, 20_000, np.random.default_rng(0))
    assert points.shape == (20_000, 2)
    grid = (np.indices((2200, 410)).reshape(2, -1).T + 0.5) / 1000
    density = EDGE_LENGTH.at(grid) ** -2.0
    density[CHANNEL.from_border(grid) < EDGE_LENGTH.at(grid) / 2] = 0
    edges = [np.linspace(0, 2.2, 12), np.linspace(0, 0.41, 4)]
    wanted = np.histogram2d(*grid.T, edges, weights=density * 20_000 / density.sum())[0]
    found = np.histogram2d(*points.T, edges)[0]
    assert found.max() > 4 * found.min()
    np.testing.assert_allclose(found, wanted, rtol=0.03)


def test_inner_points_are_well_spread():
    even = EDGE_LENGTH._replace(hole=0.04)
    points = points_inside(even, 600, np.random.default_rng(0))
    counts = np.histogram2d(*points.T, [np.linspace(0.3, 2.1, 10), np.linspace(0.03, 0.38, 3)])[0]
    # Far below the square root of the mean, about 5.6, of points that are drawn one by one.
    assert counts.std() < 2.5


def test_inner_points_follow_the_generator():
    draws = [points_inside(EDGE_LENGTH, 300, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.allclose(draws[0], draws[2], rtol=0, atol=1e-4)


def test_cells_of_almost_any_size_hold_distinct_points():
    steep = EDGE_LENGTH._replace(hole=0.0005)
    points = points_inside(steep, 300, np.random.default_rng(0))
    assert np.isfinite(points).all()
    assert len(np.unique(points, axis=0)) == 300


def test_hilbert_curve_passes_every_cell_in_steps_of_one():
    x, y = np.indices((16, 16)).reshape(2, -1)
    index = _hilbert_index(x, y)
    order = np.argsort(index)
    np.testing.assert_array_equal(index[order], np.arange(256))
    steps = np.abs(np.diff(x[order])) + np.abs(np.diff(y[order]))
    np.testing.assert_array_equal(steps, 1)
