import numpy as np
import pytest
from scipy.spatial import KDTree

from pyg_stmamba.simulation.channel import Channel

CHANNEL = Channel(2.2, 0.41, (0.2, 0.21), 0.05)


def test_gap_is_the_shortest_way_between_hole_and_walls():
    assert CHANNEL.gap == pytest.approx(0.15)
    assert CHANNEL._replace(hole_center=(0.2, 0.1)).gap == pytest.approx(0.05)
    assert CHANNEL._replace(hole_center=(0.2, 0.3)).gap == pytest.approx(0.06)
    assert CHANNEL._replace(hole_center=(2.1, 0.2)).gap == pytest.approx(0.05)


def test_distances_to_sampled_borders():
    points = np.random.default_rng(0).random((200, 2)) * [2.2, 0.41]
    angle = np.linspace(0, 2 * np.pi, 20_000)
    hole = CHANNEL.hole_center + 0.05 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    corners = CHANNEL.corners
    way = np.linspace(0, 1, 20_000)[:, None]
    walls = [a + way * (b - a) for a, b in zip(corners, np.roll(corners, -1, axis=0))]
    outside = np.hypot(*(points - CHANNEL.hole_center).T) > 0.05
    assert 0 < np.count_nonzero(~outside) < 50
    sign = np.where(outside, 1, -1)

    nearest = KDTree(hole).query(points)[0]
    np.testing.assert_allclose(CHANNEL.from_hole(points), sign * nearest, atol=1e-4)
    nearest = KDTree(np.concatenate([hole, *walls])).query(points)[0]
    np.testing.assert_allclose(CHANNEL.from_border(points), sign * nearest, atol=1e-4)


def test_points_beyond_the_border_have_negative_distance():
    points = np.array([[-0.1, 0.2], [2.3, 0.2], [1, -0.1], [1, 0.51], [0.2, 0.21]])
    np.testing.assert_allclose(CHANNEL.from_border(points), [-0.1, -0.1, -0.1, -0.1, -0.05])


def test_moved_inside_keeps_a_distance_and_moves_no_further_than_needed():
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.2, 1.2, (500, 2)) * [2.2, 0.41]
    points = np.concatenate([points, [0.2, 0.21] + rng.uniform(-0.04, 0.04, (50, 2))])
    distance = rng.uniform(0.005, 0.02, len(points))
    before = points.copy()
    moved = CHANNEL.moved_inside(points, distance)
    np.testing.assert_array_equal(points, before)
    lack = np.maximum(distance - CHANNEL.from_border(points), 0)
    assert np.count_nonzero(lack) > 100
    assert (CHANNEL.from_border(moved) >= distance - 1e-12).all()
    np.testing.assert_allclose(moved[lack == 0], points[lack == 0], rtol=1e-14)
    beside = (points > 0).all(axis=1) & (points < [2.2, 0.41]).all(axis=1)
    way = np.hypot(*(moved - points).T)[beside]
    assert (way <= np.sqrt(2) * lack[beside] + 1e-12).all()


def test_corners_run_counter_clockwise():
    np.testing.assert_array_equal(CHANNEL.corners, [[0, 0], [2.2, 0], [2.2, 0.41], [0, 0.41]])


@pytest.mark.parametrize("name", ["length", "height", "hole_radius"])
@pytest.mark.parametrize("value", [0, -1.0, np.nan, np.inf])
def test_sizes_must_be_positive(name, value):
    with pytest.raises(ValueError, match=f"{name} must be positive, got {value}"):
        CHANNEL._replace(**{name: value}).check()


@pytest.mark.parametrize(
    "center", [(0.05, 0.2), (2.16, 0.2), (1, 0.04), (1, 0.37), (-1, 0.2), (1, 5), (np.nan, 0.2)]
)
def test_hole_must_be_inside(center):
    with pytest.raises(
        ValueError, match=r"0.05 at \(.*, .*\) must lie inside the channel of 2.2 x"
    ):
        CHANNEL._replace(hole_center=center).check()


def test_a_hole_inside_is_fine():
    CHANNEL.check()
