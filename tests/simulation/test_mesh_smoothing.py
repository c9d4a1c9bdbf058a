import numpy as np
import pytest

from pyg_stmamba.simulation import mesh_smoothing
from pyg_stmamba.simulation.channel import Channel
from pyg_stmamba.simulation.edge_length import EdgeLength
from pyg_stmamba.simulation.mesh_points import points_inside, points_on_hole, points_on_segment
from pyg_stmamba.simulation.mesh_quality import triangle_angles, triangle_areas

CHANNEL = Channel(1.0, 0.41, (0.2, 0.2), 0.05)
EDGE_LENGTH = EdgeLength(CHANNEL, far=0.04, hole=0.01, growth=0.25, wake_growth=0.2)


@pytest.fixture(scope="module")
def nodes():
    hole = points_on_hole(CHANNEL, EDGE_LENGTH.hole)
    corners = CHANNEL.corners
    walls = [
        points_on_segment(*ends, EDGE_LENGTH) for ends in zip(corners, np.roll(corners, -1, axis=0))
    ]
    inner = points_inside(EDGE_LENGTH, 400, np.random.default_rng(0))
    return np.concatenate([hole, *walls]), inner, len(hole)


def test_triangles_fill_the_channel_but_not_its_hole(nodes):
    fixed, inner, num_hole = nodes
    pos = np.concatenate([fixed, inner[CHANNEL.from_border(inner) > 0.002]])
    triangles = mesh_smoothing.triangulate(pos, num_hole)
    hole = num_hole / 2 * 0.05**2 * np.sin(2 * np.pi / num_hole)
    areas = triangle_areas(pos, triangles)
    assert (areas > 0).all()
    assert areas.sum() == pytest.approx(0.41 - hole, abs=1e-13)
    assert not (triangles < num_hole).all(axis=1).any()
    assert triangles.dtype == np.int64


def test_inner_edges_are_named_once(nodes):
    fixed, inner, num_hole = nodes
    triangles = mesh_smoothing.triangulate(np.concatenate([fixed, inner]), num_hole)
    seen = {}
    for a, b, c in triangles.tolist():
        for edge in ((a, b), (b, c), (c, a)):
            key = tuple(sorted(edge))
            seen[key] = seen.get(key, 0) + 1
    found = [tuple(edge) for edge in mesh_smoothing._inner_edges(triangles).T.tolist()]
    assert len(set(found)) == len(found)
    assert {edge for edge, count in seen.items() if count == 2} <= set(found)
    assert set(found) <= seen.keys()


def test_smoothing_moves_inner_nodes_to_edges_of_the_wanted_length(nodes):
    fixed, inner, num_hole = nodes
    copies = fixed.copy(), inner.copy()
    pos = mesh_smoothing.smooth(fixed, inner, EDGE_LENGTH, num_hole)
    np.testing.assert_array_equal(fixed, copies[0])
    np.testing.assert_array_equal(inner, copies[1])
    np.testing.assert_array_equal(pos[: len(fixed)], fixed)
    moved = pos[len(fixed) :]
    clearance = mesh_smoothing.CLEARANCE * EDGE_LENGTH.at(moved)
    assert (CHANNEL.from_border(moved) > 0.95 * clearance).all()

    def spread(pos):
        triangles = mesh_smoothing.triangulate(pos, num_hole)
        tail, head = mesh_smoothing._inner_edges(triangles)
        wanted = EDGE_LENGTH.at((pos[tail] + pos[head]) / 2)
        return np.std(np.log(np.hypot(*(pos[tail] - pos[head]).T) / wanted))

    def angles(pos):
        return triangle_angles(pos, mesh_smoothing.triangulate(pos, num_hole)).min(axis=1)

    before = np.concatenate([fixed, inner])
    assert spread(pos) < 0.15 < 0.2 < spread(before)
    assert angles(pos).min() > 27
    assert np.median(angles(pos)) > 49 > np.median(angles(before)) + 5


def test_nodes_at_rest_stay():
    # A regular grid of triangles: all springs are alike and their forces cancel inside it.
    rows, columns = np.indices((12, 12)).reshape(2, -1)
    pos = np.stack([columns + rows % 2 / 2, rows * np.sqrt(3) / 2], axis=1) * 0.04
    far = EDGE_LENGTH._replace(hole=0.04)
    edges = mesh_smoothing._inner_edges(mesh_smoothing.triangulate(pos, 0))
    forces = mesh_smoothing._forces(pos, edges, far)
    inside = (rows > 0) & (rows < 11) & (columns > 0) & (columns < 11)
    np.testing.assert_allclose(forces[inside], 0, atol=1e-15)
    assert np.abs(forces[~inside]).max() > 0.004
    pushed = pos.copy()
    node = np.flatnonzero(inside)[55]
    pushed[node] += [0.004, 0]
    assert mesh_smoothing._forces(pushed, edges, far)[node, 0] < -0.004


def test_nodes_stay_off_the_border(nodes, monkeypatch):
    fixed, _, num_hole = nodes
    rng = np.random.default_rng(0)
    anywhere = np.concatenate([rng.uniform(-0.1, 1.1, (300, 2)) * [1.0, 0.41], fixed + 1e-3])
    monkeypatch.setattr(mesh_smoothing, "STEPS", 1)
    pos = mesh_smoothing.smooth(fixed, anywhere, EDGE_LENGTH, num_hole)[len(fixed) :]
    share = CHANNEL.from_border(pos) / EDGE_LENGTH.at(pos)
    assert 0.3 < share.min() < 0.45


def test_springs_push_but_do_not_pull():
    # Two short edges and a long one: the node at the end of the long one only is left alone.
    pos = np.array([[0.5, 0.1], [0.51, 0.1], [0.52, 0.1], [0.9, 0.1]])
    edges = np.array([[0, 1, 2], [1, 2, 3]])
    even = EDGE_LENGTH._replace(hole=0.04)
    forces = mesh_smoothing._forces(pos, edges, even)
    wanted = 1.2 * np.sqrt((2 * 0.01**2 + 0.38**2) / 3)
    push = wanted - 0.01
    np.testing.assert_allclose(forces[:, 0], [-push, 0, push, 0], atol=1e-12)
    np.testing.assert_allclose(forces[:, 1], 0, atol=1e-12)
