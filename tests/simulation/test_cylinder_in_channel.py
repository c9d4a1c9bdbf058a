import numpy as np
import pytest

from pyg_stmamba.simulation.cylinder_in_channel import CylinderInChannel


def benchmark(num_nodes, inlet_speed=0.3, **changes):
    arguments = {"radius": 0.05, "center": (0.2, 0.2), "viscosity": 1e-3, "time_step": 0.005}
    return CylinderInChannel(inlet_speed, **arguments | changes, num_nodes=num_nodes)


@pytest.fixture(scope="module")
def flow():
    return benchmark(500)


@pytest.fixture(scope="module")
def steady(flow):
    return flow.solver.steady(flow.boundary)


def test_boundary(flow):
    space, fixed = flow.solver.space, flow.solver.fixed
    x, y = space.nodes.T
    distance = np.hypot(x - 0.2, y - 0.2)
    inlet = (x == 0) & (y > 0) & (y < 0.41)
    walls = (y == 0) | (y == 0.41)
    cylinder = distance < 0.0501
    np.testing.assert_array_equal(flow.obstacle, cylinder)
    np.testing.assert_array_equal(fixed, inlet | walls | cylinder)
    assert (~fixed & (x == 2.2)).any()
    # Straight edges: midpoints are a little inside the circle.
    assert (distance[cylinder] < 0.0499).sum() == cylinder.sum() // 2
    np.testing.assert_allclose(flow.boundary[inlet, 0], 1.2 * y[inlet] * (0.41 - y[inlet]) / 0.1681)
    assert flow.boundary[:, 0].max() == pytest.approx(0.3, rel=0.02)
    assert not flow.boundary[~inlet].any()
    assert not flow.boundary[:, 1].any()
    assert (flow.mean_speed, flow.diameter) == pytest.approx((0.2, 0.1))


def test_mean_speed_is_the_mean_at_the_inlet(flow, steady):
    velocity = steady.velocity
    space = flow.solver.space
    edges = space.boundary_edges
    ends, middle = space.nodes[edges[:, :2]], edges[:, 2]
    for at in (0.0, 2.2):
        side = space.nodes[middle, 0] == at
        lengths = np.abs(ends[side, 0, 1] - ends[side, 1, 1])
        values = velocity[edges[side], 0] @ [1 / 6, 1 / 6, 2 / 3]
        assert lengths @ values / 0.41 == pytest.approx(0.2, rel=1e-9)


def test_turning(flow):
    nodes = flow.solver.space.nodes[flow.obstacle] - [0.2, 0.2]
    velocity = flow.turning(2.0)
    assert not velocity[~flow.obstacle].any()
    np.testing.assert_allclose((velocity[flow.obstacle] * nodes).sum(1), 0, atol=1e-15)
    radius = np.hypot(*nodes.T)
    np.testing.assert_allclose(np.hypot(*velocity[flow.obstacle].T), 2 * radius / 0.05)
    assert (nodes[:, 0] * velocity[flow.obstacle, 1] >= 0).all()


def test_force_is_the_integral_of_the_stress(flow, steady):
    force = -_stress_integral(flow.solver.space, steady, flow.obstacle, viscosity=1e-3)
    # Derivatives at the boundary are less exact than the sum of reactions.
    expected = flow.coefficients(steady)[0]
    assert force[0] / (0.5 * 0.04 * 0.1) == pytest.approx(expected, rel=0.05)


def _stress_integral(space, state, on_body, viscosity):
    """Pressure and friction at the edges of a body, from the values of the triangles there."""
    total = np.zeros(2)
    for cell in space.cells:
        for first, second, middle in ((0, 1, 3), (1, 2, 4), (2, 0, 5)):
            if not on_body[cell[[first, second, middle]]].all():
                continue
            corners = space.nodes[cell[:3]]
            tangent = corners[second] - corners[first]
            out = np.array([tangent[1], -tangent[0]])
            third = corners[3 - first - second]
            out *= -np.sign(out @ (third - corners[first]))
            basis = np.linalg.inv(np.c_[np.ones(3), corners])
            # At the midpoint; derivatives are linear, so that this is the mean of the edge.
            bary = np.zeros(3)
            bary[[first, second]] = 0.5
            slopes = [(4 * bary[i] - 1) * basis[1:, i] for i in range(3)]
            for a, b in ((0, 1), (1, 2), (2, 0)):
                slopes.append(4 * (bary[a] * basis[1:, b] + bary[b] * basis[1:, a]))
            gradient = state.velocity[cell].T @ np.array(slopes)
            pressure = bary @ state.pressure[cell[:3]]
            total += viscosity * (gradient + gradient.T) @ out - pressure * out
    return total


def test_coefficients_do_not_depend_on_units(flow, steady):
    changes = {"radius": 0.15, "center": (0.6, 0.6), "length": 6.6, "height": 1.23}
    other = benchmark(500, 0.6, **changes, viscosity=6e-3)
    state = other.solver.steady(other.boundary)
    assert other.coefficients(state) == pytest.approx(flow.coefficients(steady), rel=1e-6)


def test_published_drag_of_steady_flow_on_a_coarse_mesh(flow, steady):
    drag, lift = flow.coefficients(steady)
    assert drag == pytest.approx(5.57953523384, rel=0.01)
    assert lift == pytest.approx(0.010618948146, abs=0.002)


@pytest.mark.slow
def test_dfg_2d1():
    flow = benchmark(1800)
    drag, lift = flow.coefficients(flow.solver.steady(flow.boundary))
    assert drag == pytest.approx(5.57953523384, rel=0.002)
    assert lift == pytest.approx(0.010618948146, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inlet_speed": 0.0}, "inlet_speed must be positive, got 0.0"),
        ({"inlet_speed": np.nan}, "inlet_speed must be positive, got nan"),
        ({"viscosity": -1.0}, "viscosity must be positive, got -1.0"),
        ({"time_step": 0.0}, "time_step must be positive, got 0.0"),
        ({"radius": 0.3}, "hole"),
        ({"center": (0.0, 0.2)}, "hole"),
    ],
)
def test_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        benchmark(500, **changes)
