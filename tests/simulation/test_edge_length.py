import math

import numpy as np
import pytest
from scipy.integrate import quad

from pyg_stmamba.simulation.channel import Channel
from pyg_stmamba.simulation.edge_length import EdgeLength

CHANNEL = Channel(2.2, 0.41, (0.2, 0.2), 0.05)
EDGE_LENGTH = EdgeLength(CHANNEL, far=0.04, hole=0.005, growth=0.25, wake_growth=0.2)


def formula(x, y):
    distance = math.dist((x, y), (0.2, 0.2)) - 0.05
    if x > 0.2:
        distance = min(distance, max(abs(y - 0.2) - 0.05, 0) + 0.2 * (x - 0.2))
    return min(0.04, 0.005 + 0.25 * distance)


def test_equals_the_formula_point_by_point():
    points = np.random.default_rng(0).random((500, 2)) * [2.2, 0.41]
    points = points[CHANNEL.from_hole(points) > 0]
    wanted = [formula(*point) for point in points]
    assert len(set(wanted)) > 50
    np.testing.assert_allclose(EDGE_LENGTH.at(points), wanted)
    np.testing.assert_array_equal(EDGE_LENGTH.at(points[:, None])[:, 0], EDGE_LENGTH.at(points))


def test_grows_from_the_hole_and_slower_in_the_wake():
    angle = np.linspace(0, 2 * np.pi, 50)
    hole = [0.2, 0.2] + 0.05 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    np.testing.assert_allclose(EDGE_LENGTH.at(hole), 0.005)
    before, behind, far = EDGE_LENGTH.at(np.array([[0.05, 0.2], [0.45, 0.2], [2, 0.2]]))
    assert before == pytest.approx(0.005 + 0.25 * 0.1)
    assert behind == pytest.approx(0.005 + 0.25 * 0.2 * 0.25)
    assert far == 0.04


def test_without_a_wake_only_the_distance_counts():
    points = np.random.default_rng(0).random((500, 2)) * [2.2, 0.41]
    same = EDGE_LENGTH._replace(wake_growth=1.0)
    grown = 0.005 + 0.25 * np.maximum(CHANNEL.from_hole(points), 0)
    np.testing.assert_allclose(same.at(points), np.minimum(0.04, grown))


def test_number_of_triangles_of_one_size():
    even = EDGE_LENGTH._replace(hole=0.04)
    wanted = (2.2 * 0.41 - np.pi * 0.05**2) / (np.sqrt(3) / 4 * 0.04**2)
    assert even.num_triangles() == pytest.approx(wanted, rel=2e-3)


@pytest.mark.parametrize("hole", [0.003, 0.008])
def test_number_of_triangles_as_an_integral(hole):
    # Without a wake and with room for rings up to the largest size there is only the radius.
    channel = Channel(1.0, 1.0, (0.4, 0.45), 0.1)
    edge_length = EdgeLength(channel, far=0.04, hole=hole, growth=0.25, wake_growth=1.0)
    last = 0.1 + (0.04 - hole) / 0.25
    rings = quad(lambda radius: 2 * np.pi * radius / (hole + 0.25 * (radius - 0.1)) ** 2, 0.1, last)
    wanted = 4 / np.sqrt(3) * (rings[0] + (1 - np.pi * last**2) / 0.04**2)
    assert edge_length.num_triangles() == pytest.approx(wanted, rel=5e-3)
