import numpy as np
import pytest

from pyg_stmamba.data.mesh import NODE_TYPES, Mesh
from pyg_stmamba.data.mesh.node_rules import (
    automatic_node_types,
    node_types_by_rules,
    rule_variables,
    summarize_flow,
)


@pytest.fixture
def channel(lattice):
    """A unit square with a hole in the middle, flow from the left to the right, and where the
    borders are."""
    mesh = lattice("triangle", size=9, shake=0, hole=True)
    x, y = mesh.pos.T
    left, right = np.isclose(x, 0), np.isclose(x, 1)
    level = np.isclose(y, 0) | np.isclose(y, 1)
    hole = np.isclose(np.fmax(np.abs(x - 0.5), np.abs(y - 0.5)), 1 / 6)
    return mesh, left, right, level, hole


def flow(mesh, still, num_frames=4):
    frames = np.linspace(0, 1, num_frames)[:, None]
    y = mesh.pos[:, 1]
    speed = (4 * y * (1 - y) + 0.1) * (1 + 0.5 * np.sin(3 * frames)) * ~still
    return np.stack([speed, 0.05 * speed * np.cos(5 * mesh.pos[:, 0])], axis=2).astype(np.float32)


def named(types):
    return np.array(NODE_TYPES)[types]


def test_summary_equals_numpy():
    generator = np.random.default_rng(0)
    velocity = generator.normal(size=(6, 9, 2)).astype(np.float32)
    pressure = generator.normal(size=(6, 9, 1)).astype(np.float32)
    summary = summarize_flow({"u": velocity, "p": pressure})
    np.testing.assert_allclose(summary.mean["u"], velocity.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(summary.mean["p"], pressure.mean(0), rtol=1e-5, atol=1e-6)
    speed = np.linalg.norm(velocity, axis=2)
    np.testing.assert_allclose(summary.greatest["u"], speed.max(0), rtol=1e-6)
    np.testing.assert_allclose(summary.greatest["p"], np.abs(pressure).max((0, 2)), rtol=1e-6)
    change = np.linalg.norm(velocity - velocity[0], axis=2).max(0)
    np.testing.assert_allclose(summary.spread["u"], change, rtol=1e-5)


def test_automatic_types(channel):
    mesh, left, right, level, hole = channel
    velocity = flow(mesh, level | hole)
    types = named(automatic_node_types(mesh, summarize_flow({"u": velocity}), "u", {}))
    wall = level | hole
    assert (types[wall] == "wall").all()
    assert (types[left & ~wall] == "inflow").all()
    assert (types[right & ~wall] == "outflow").all()
    assert (types[~(wall | left | right)] == "normal").all()


def test_flow_that_turns_back_counts_by_its_mean(channel):
    mesh, left, right, level, hole = channel
    velocity = flow(mesh, level | hole, num_frames=5)
    velocity[0] *= -1
    types = named(automatic_node_types(mesh, summarize_flow({"u": velocity}), "u", {}))
    assert (types[left & ~level] == "inflow").all()
    types = named(automatic_node_types(mesh, summarize_flow({"u": -velocity}), "u", {}))
    assert (types[right & ~level] == "inflow").all()
    assert (types[left & ~level] == "outflow").all()


def test_motion_there_and_back_is_no_wall(channel):
    mesh, _, _, level, hole = channel
    velocity = flow(mesh, level | hole)
    moved = int(np.flatnonzero(hole)[0])
    # There and back, so that the mean is still 0.
    velocity[1, moved], velocity[2, moved] = [0.5, 0.3], [-0.5, -0.3]
    types = named(automatic_node_types(mesh, summarize_flow({"u": velocity}), "u", {}))
    assert types[moved] != "wall"


def test_moving_walls_and_planes_of_symmetry(lattice):
    mesh = lattice("triangle", size=6)
    x, y = mesh.pos.T
    top, bottom = np.isclose(y, 1), np.isclose(y, 0)
    inner = ~(np.isclose(x, 0) | np.isclose(x, 1))
    for change, expected in ((np.zeros(3), "wall"), (np.arange(3), "normal")):
        velocity = np.zeros((3, mesh.num_nodes, 2), np.float32)
        velocity[:, top, 0] = 1 + 0.1 * change[:, None]
        types = named(automatic_node_types(mesh, summarize_flow({"u": velocity}), "u", {}))
        assert (types[top & inner] == expected).all()
        assert (types[bottom] == "wall").all()


def test_what_solvers_leave_at_walls_is_no_motion(channel):
    mesh, _, _, level, hole = channel
    velocity = flow(mesh, level | hole)
    velocity[:, level | hole] += 1e-9 * np.random.default_rng(0).normal(size=(4, 1, 2))
    types = named(automatic_node_types(mesh, summarize_flow({"u": velocity}), "u", {}))
    assert (types[level | hole] == "wall").all()


def test_in_space(lattice):
    mesh = lattice("tetra", size=4)
    x, y, z = mesh.pos.T
    sides = np.any([np.isclose(c, e) for c in (y, z) for e in (0, 1)], axis=0)
    velocity = np.zeros((2, mesh.num_nodes, 3), np.float32)
    velocity[..., 0] = ~sides
    types = named(automatic_node_types(mesh, summarize_flow({"u": velocity}), "u", {}))
    assert (types[sides] == "wall").all()
    assert (types[np.isclose(x, 0) & ~sides] == "inflow").all()
    assert (types[np.isclose(x, 1) & ~sides] == "outflow").all()
    assert (types[(x > 0.1) & (x < 0.9) & ~sides] == "normal").all()


def test_patches_called_after_types_come_first(channel):
    mesh, left, right, level, hole = channel
    velocity = flow(mesh, level | hole)
    patches = {
        "Inlet1": np.flatnonzero(right),
        "upperWall": np.flatnonzero(np.isclose(mesh.pos[:, 1], 1)),
        "outlet": np.flatnonzero(left),
        "sides": np.flatnonzero(hole),
    }
    types = named(automatic_node_types(mesh, summarize_flow({"u": velocity}), "u", patches))
    # Inflow before wall before outflow, where they meet.
    assert (types[right] == "inflow").all()
    assert (types[np.isclose(mesh.pos[:, 1], 1) & ~right] == "wall").all()
    assert (types[left & ~level] == "outflow").all()
    assert (types[hole] == "wall").all()


def test_rules(channel):
    mesh, left, right, level, hole = channel
    velocity = flow(mesh, level | hole)
    summary = summarize_flow({"velocity": velocity, "p": velocity[..., :1] - 1})
    patches = {"body": np.flatnonzero(hole)}
    variables = rule_variables(mesh, patches, summary, "velocity")
    assert set(variables) == {
        *("x", "y", "boundary", "body", "speed", "velocity_x", "velocity_y", "p"),
    }
    np.testing.assert_array_equal(variables["boundary"], left | right | level | hole)
    np.testing.assert_allclose(variables["velocity_y"], velocity.mean(0)[:, 1], rtol=1e-5)
    rules = {
        "inflow": "boundary & (x < 1e-6)",
        "obstacle": "body",
        "wall": "boundary & (speed == 0)",
        "outflow": "boundary & (x > 0.5) & (velocity_x > 0)",
        "airfoil": "~boundary & (p > 0.2)",
    }
    types = named(node_types_by_rules(rules, variables))
    expected = np.full(mesh.num_nodes, "normal", dtype="U10")
    expected[~(left | right | level | hole) & (velocity.mean(0)[:, 0] > 1.2)] = "airfoil"
    expected[right] = "outflow"
    expected[level] = "wall"
    expected[hole] = "obstacle"
    expected[left] = "inflow"
    np.testing.assert_array_equal(types, expected)


def test_types_of_ones_own():
    mesh = Mesh(np.eye(3, 2), {"triangle": np.array([[0, 1, 2]])})
    variables = rule_variables(mesh, {})
    types = node_types_by_rules({"rim": "x > 0.5"}, variables, ("inside", "core", "rim"))
    assert types.tolist() == [2, 0, 0]
    assert types.dtype == np.int64
    with pytest.raises(ValueError, match="unknown node type 'rim'; choose from normal, obstacle"):
        node_types_by_rules({"wall": "boundary", "rim": "x > 0.5"}, variables)
    with pytest.raises(ValueError, match="names 'speed', which is not there; names are x, y, bou"):
        node_types_by_rules({"wall": "speed == 0"}, variables)


def test_parts_of_vectors_of_any_width():
    mesh = Mesh(np.eye(3, 2), {"triangle": np.array([[0, 1, 2]])})
    values = np.arange(3 * 9, dtype=np.float32).reshape(1, 3, 9)
    variables = rule_variables(mesh, {}, summarize_flow({"stress": values}))
    np.testing.assert_array_equal(variables["stress_8"], values[0, :, 8])
