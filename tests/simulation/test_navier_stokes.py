import numpy as np
import pytest
from scipy.sparse.linalg import splu
from scipy.spatial import Delaunay

from pyg_stmamba.simulation.navier_stokes import NavierStokes
from pyg_stmamba.simulation.taylor_hood import TaylorHood


def rectangle(width, height, across, up, seed=0):
    """A rectangle from the origin, triangulated, with nodes inside that are out of line."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(0, width, across + 1), np.linspace(0, height, up + 1))
    pos = np.stack([x.ravel(), y.ravel()], axis=1)
    inside = (x > 0) & (x < width) & (y > 0) & (y < height)
    moves = rng.uniform(-0.2, 0.2, pos.shape) * [width / across, height / up]
    pos += np.where(inside.reshape(-1, 1), moves, 0)
    triangles = Delaunay(pos).simplices
    a, b, c = (pos[triangles[:, i]] for i in range(3))
    area = np.abs(np.linalg.det(np.stack([b - a, c - a], axis=1)))
    return TaylorHood(pos, triangles[area > 1e-9])


def fixed_nodes(space, outflow_at=None):
    """All nodes of the boundary, save those inside the side where x has a value."""
    fixed = np.zeros(space.num_nodes, dtype=bool)
    edges = space.boundary_edges
    if outflow_at is not None:
        edges = edges[space.nodes[edges[:, 2], 0] != outflow_at]
    fixed[edges] = True
    return fixed


def norm(matrix, values):
    return np.sqrt((values * (matrix @ values)).sum())


HEIGHT, LENGTH, SPEED, VISCOSITY = 0.5, 1.5, 1.2, 0.01
# The slope of the pressure along the channel.
SLOPE = -8 * VISCOSITY * SPEED / HEIGHT**2


def poiseuille(nodes):
    y = nodes[:, 1]
    return np.stack([SPEED * 4 * y * (HEIGHT - y) / HEIGHT**2, 0 * y], axis=1)


@pytest.fixture(scope="module")
def channel():
    return rectangle(LENGTH, HEIGHT, 9, 4)


def channel_solver(space, time_step=0.05, **options):
    return NavierStokes(space, VISCOSITY, time_step, fixed_nodes(space, LENGTH), **options)


def test_poiseuille_flow_is_kept(channel):
    solver = channel_solver(channel)
    exact = poiseuille(channel.nodes)
    pressure = SLOPE * (channel.nodes[: channel.num_vertices, 0] - LENGTH)
    state = solver.start(exact, exact)
    np.testing.assert_allclose(state.velocity, exact, atol=1e-12)
    np.testing.assert_allclose(state.pressure, pressure, atol=1e-12)
    for _ in range(50):
        state = solver.step(state, exact)
    np.testing.assert_allclose(state.velocity, exact, atol=1e-7)
    np.testing.assert_allclose(state.pressure, pressure, atol=1e-7)


def test_poiseuille_flow_develops_from_rest(channel):
    solver = channel_solver(channel)
    exact = poiseuille(channel.nodes)
    state = solver.start(solver.impulse(exact), exact)
    assert np.abs(state.velocity - exact).max() > 0.05
    for _ in range(150):
        state = solver.step(state, exact)
    np.testing.assert_allclose(state.velocity, exact, atol=1e-5)
    steady = solver.steady(exact)
    np.testing.assert_allclose(steady.velocity, exact, atol=1e-9)


def test_force_on_the_walls_of_poiseuille_flow(channel):
    solver = channel_solver(channel)
    exact = poiseuille(channel.nodes)
    states = [solver.start(exact, exact), solver.steady(exact)]
    states.append(solver.step(solver.step(states[0], exact), exact))
    edges = channel.boundary_edges
    ends = channel.nodes[edges[:, :2]]
    wall = (ends[:, 0, 1] == ends[:, 1, 1]) & (edges[:, 2] >= 0)
    # The integral of a quadratic function over an edge is two thirds of it at the midpoint.
    middle = edges[wall, 2]
    x, y = channel.nodes[middle].T
    share = 2 / 3 * np.abs(ends[wall, 0, 0] - ends[wall, 1, 0])
    friction = VISCOSITY * 4 * SPEED / HEIGHT * share
    push = np.where(y > 0, 1, -1) * SLOPE * (x - LENGTH) * share
    for state in states:
        np.testing.assert_allclose(state.reaction[middle, 0], friction, atol=1e-8)
        np.testing.assert_allclose(state.reaction[middle, 1], push, atol=1e-8)
        # Forces at walls and inlet are in balance, as nothing gains momentum.
        np.testing.assert_allclose(state.reaction[solver.fixed].sum(0), 0, atol=1e-8)


@pytest.mark.parametrize("sweeps", [1, 2])
def test_mass_is_conserved(channel, sweeps):
    solver = channel_solver(channel, 0.02, sweeps=sweeps)
    boundary = poiseuille(channel.nodes)
    boundary[:, 0] *= 2 / SPEED

    def divergence(velocity):
        return np.abs(channel.divergence @ velocity.ravel()).sum()

    inlet = 2 * HEIGHT * 2 / 3
    still = solver.impulse(boundary)
    state = solver.start(still, boundary)
    steady = solver.steady(boundary)
    for velocity in (still, state.velocity, steady.velocity):
        assert divergence(velocity) < 1e-12
    for _ in range(30):
        state = solver.step(state, boundary)
        net = (channel.divergence @ state.velocity.ravel()).sum()
        assert abs(net) < 1e-2 * inlet
    assert divergence(state.velocity) < 2.5e-3 * inlet / sweeps**2
    np.testing.assert_array_equal(state.velocity[solver.fixed], boundary[solver.fixed])


def test_impulse_has_the_least_energy(channel):
    solver = channel_solver(channel)
    boundary = poiseuille(channel.nodes)
    velocity = solver.impulse(boundary)
    other = solver.steady(boundary).velocity
    # Right angles between it and what keeps boundary values and divergence.
    assert velocity.ravel() @ (channel.mass @ (other - velocity)).ravel() == pytest.approx(
        0, abs=1e-12
    )
    assert norm(channel.mass, velocity) < norm(channel.mass, other)


def kovasznay(nodes, reynolds=40.0):
    """The velocity of "Laminar flow behind a two-dimensional grid", and its pressure."""
    rate = reynolds / 2 - np.sqrt(reynolds**2 / 4 + 4 * np.pi**2)
    x, y = nodes[:, 0] - 0.5, nodes[:, 1] - 0.5
    growth = np.exp(rate * x)
    u = 1 - growth * np.cos(2 * np.pi * y)
    v = rate / (2 * np.pi) * growth * np.sin(2 * np.pi * y)
    return np.stack([u, v], axis=1), -0.5 * growth**2


def test_orders_in_space_by_kovasznay_flow():
    errors = []
    for across in (8, 16):
        space = rectangle(1.0, 1.0, across, across)
        solver = NavierStokes(space, 1 / 40, 0.01, fixed_nodes(space))
        velocity, pressure = kovasznay(space.nodes)
        state = solver.steady(velocity)
        pressure_error = state.pressure - pressure[: space.num_vertices]
        pressure_error -= (space.pressure_mass @ pressure_error).sum()
        errors.append(
            [
                norm(space.mass, state.velocity - velocity),
                norm(space.pressure_mass, pressure_error),
            ]
        )
    orders = np.log2(np.array(errors[0]) / errors[1])
    assert 2.7 < orders[0] < 3.5
    assert 1.7 < orders[1] < 2.6
    assert errors[1][0] < 1e-3


def taylor_green(nodes, time, viscosity):
    """Decaying vortices, carried by a wind (1, 1/2)."""
    x, y = (2 * (nodes - time * np.array([1.0, 0.5]))).T
    decay = np.exp(-8 * viscosity * time)
    velocity = np.stack([-np.cos(x) * np.sin(y), np.sin(x) * np.cos(y)], axis=1) * decay
    pressure = -0.25 * (np.cos(2 * x) + np.cos(2 * y)) * decay**2
    return velocity + np.array([1.0, 0.5]), pressure


@pytest.mark.parametrize(("sweeps", "largest"), [(1, 3e-3), (2, 2e-3)])
def test_second_order_in_time(sweeps, largest):
    space, viscosity = rectangle(1.0, 1.0, 6, 6), 0.02

    def at_end(steps):
        step = 1 / steps
        solver = NavierStokes(space, viscosity, step, fixed_nodes(space), sweeps=sweeps)
        state = solver.start(*(taylor_green(space.nodes, t, viscosity)[0] for t in (0, step)))
        for number in range(2, steps + 1):
            state = solver.step(state, taylor_green(space.nodes, number * step, viscosity)[0])
        return state

    coarse, fine, exact = (at_end(steps) for steps in (16, 32, 256))
    errors = [
        [norm(space.mass, s.velocity - exact.velocity), np.ptp(s.pressure - exact.pressure)]
        for s in (coarse, fine)
    ]
    orders = np.log2(np.array(errors[0]) / errors[1])
    assert ((orders > 1.85) & (orders < 2.3)).all()
    assert errors[0][0] < largest
    velocity, pressure = taylor_green(space.nodes, 1.0, viscosity)
    assert norm(space.mass, exact.velocity - velocity) < 3e-3
    assert np.ptp(exact.pressure - pressure[: space.num_vertices]) < 0.04


def test_many_sweeps_solve_the_implicit_equations(channel):
    step = 0.02
    solver = channel_solver(channel, step, sweeps=80, tolerance=1e-12)
    boundary = poiseuille(channel.nodes)
    before = solver.start(solver.impulse(boundary), boundary)
    after = solver.step(before, boundary)
    u, past = after.velocity, 4 * before.velocity - before.previous_velocity
    force = channel.mass @ (3 * u - past) / (2 * step) + channel.convection(u) @ u
    force += VISCOSITY * (channel.stiffness @ u)
    force -= (channel.divergence.T @ after.pressure).reshape(-1, 2)
    np.testing.assert_allclose(force[~solver.fixed], 0, atol=1e-6)
    np.testing.assert_allclose(force[solver.fixed], -after.reaction[solver.fixed], atol=1e-6)


def test_factorizes_rarely(channel, monkeypatch):
    solver = channel_solver(channel, 0.01)
    boundary = poiseuille(channel.nodes)
    state = solver.start(solver.impulse(boundary), boundary)
    calls = []

    def counted(*arguments, **options):
        calls.append(arguments)
        return splu(*arguments, **options)

    monkeypatch.setattr("pyg_stmamba.simulation.navier_stokes.splu", counted)
    for _ in range(40):
        state = solver.step(state, boundary)
    assert 1 <= len(calls) <= 8


def test_same_numbers_every_time(channel):
    def flow():
        solver = channel_solver(channel)
        boundary = poiseuille(channel.nodes)
        state = solver.start(solver.impulse(boundary), boundary)
        for _ in range(5):
            state = solver.step(state, boundary)
        return state

    for first, second in zip(flow(), flow(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_old_states_stay_as_they_are(channel):
    solver = channel_solver(channel)
    boundary = poiseuille(channel.nodes)
    state = solver.start(solver.impulse(boundary), boundary)
    copies = [values.copy() for values in state]
    before = boundary.copy()
    for _ in range(3):
        solver.step(state, boundary)
    for values, copy in zip(state, copies, strict=True):
        np.testing.assert_array_equal(values, copy)
    np.testing.assert_array_equal(boundary, before)


def test_rest_stays_at_rest(channel):
    solver = channel_solver(channel)
    nothing = np.zeros((channel.num_nodes, 2))
    state = solver.step(solver.start(solver.impulse(nothing), nothing), nothing)
    for values in state:
        assert (values == 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"viscosity": 0.0}, "viscosity must be positive, got 0.0"),
        ({"viscosity": np.nan}, "viscosity must be positive, got nan"),
        ({"time_step": -1.0}, "time_step must be positive, got -1.0"),
        ({"tolerance": np.inf}, "tolerance must be positive, got inf"),
        ({"sweeps": 0}, "sweeps must be a whole number of at least 1, got 0"),
        ({"sweeps": 1.5}, "sweeps must be a whole number of at least 1, got 1.5"),
        (
            {"fixed": np.ones(3, dtype=bool)},
            r"fixed must be \[\d+\] booleans, .* got \[3\] of bool",
        ),
        ({"fixed": np.arange(3)}, r"fixed must be .* of int64"),
    ],
)
def test_refuses(channel, changes, message):
    arguments = {"viscosity": 1.0, "time_step": 0.1, "fixed": fixed_nodes(channel)} | changes
    with pytest.raises(ValueError, match=message):
        NavierStokes(channel, **arguments)


def test_refuses_velocities(channel):
    solver = channel_solver(channel)
    boundary = poiseuille(channel.nodes)
    state = solver.start(boundary, boundary)
    wrong = np.full_like(boundary, np.nan)
    for values in (wrong, boundary[:, 0], boundary[1:]):
        for call in (solver.impulse, solver.steady, lambda b: solver.step(state, b)):
            with pytest.raises(ValueError, match=r"boundary must be \[\d+, 2\] finite"):
                call(values)
        with pytest.raises(ValueError, match="velocity must be"):
            solver.start(values, boundary)


def test_says_when_the_flow_grew_without_bounds(channel):
    solver = channel_solver(channel)
    boundary = poiseuille(channel.nodes)
    state = solver.start(boundary, boundary)
    with pytest.raises(FloatingPointError, match="smaller step"):
        solver.step(state._replace(pressure=state.pressure * np.nan), boundary)


def test_says_when_there_is_no_steady_flow(channel):
    with pytest.raises(RuntimeError, match="no steady flow after 1 iterations"):
        channel_solver(channel).steady(poiseuille(channel.nodes) * 2, max_iterations=1)
