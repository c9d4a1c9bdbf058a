import numpy as np
import pytest

from pyg_stmamba.simulation.cylinder_flow import random_cylinder_flow, simulate_cylinder_flow
from pyg_stmamba.simulation.cylinder_in_channel import CylinderInChannel
from pyg_stmamba.simulation.navier_stokes import NavierStokes


def short(num_frames=4, **changes):
    return simulate_cylinder_flow(**{"num_nodes": 500, "num_frames": num_frames} | changes)


def values_of(trajectory):
    return [*trajectory.fields.values(), *trajectory.series.values()]


@pytest.fixture(scope="module")
def trajectory():
    return short()


def test_what_comes_out(trajectory):
    nodes = trajectory.num_nodes
    velocity, pressure = trajectory.fields["velocity"], trajectory.fields["pressure"]
    assert (velocity.shape, pressure.shape) == ((4, nodes, 2), (4, nodes, 1))
    assert velocity.dtype == pressure.dtype == np.float32
    np.testing.assert_allclose(trajectory.times, [0.01, 0.02, 0.03, 0.04])
    assert trajectory.parameters == {
        "inlet_speed": 1.5,
        "radius": 0.05,
        "center_x": 0.4,
        "center_y": 0.2,
        "viscosity": 1e-3,
        "density": 1.0,
        "length": 1.6,
        "height": 0.41,
        "reference_speed": pytest.approx(1.0),
        "reference_length": pytest.approx(0.1),
    }
    assert set(trajectory.series) == {"drag", "lift"}
    assert trajectory.units == {
        "velocity": "m/s",
        "pressure": "Pa",
        "time": "s",
        "drag": "1",
        "lift": "1",
    }
    mesh = trajectory.mesh
    assert not velocity[:, mesh.nodes_of("wall", "obstacle")].any()
    inlet = mesh.nodes_of("inflow")
    y = mesh.pos[inlet, 1]
    parabola = np.broadcast_to(6 * y * (0.41 - y) / 0.1681, (4, len(y)))
    np.testing.assert_allclose(velocity[:, inlet, 0], parabola, rtol=1e-6)
    assert np.abs(pressure[-1, mesh.nodes_of("outflow")]).max() < 0.01 * np.ptp(pressure[-1])
    assert trajectory.frames(["velocity", "pressure"]).shape == (nodes, 4, 3)


def test_frames_are_those_of_the_solver(trajectory):
    flow = CylinderInChannel(1.5, 0.05, (0.4, 0.2), 1e-3, 0.005, length=1.6, num_nodes=500)
    solver, nodes = flow.solver, flow.mesh.num_nodes
    state = solver.start(solver.impulse(flow.boundary), flow.boundary)
    for frame in range(4):
        state = solver.step(state, flow.boundary)
        velocity, pressure, drag, lift = (values[frame] for values in values_of(trajectory))
        np.testing.assert_array_equal(velocity, state.velocity[:nodes].astype(np.float32))
        np.testing.assert_array_equal(pressure[:, 0], state.pressure.astype(np.float32))
        assert [drag, lift] == flow.coefficients(state).tolist()
        state = solver.step(state, flow.boundary)


def test_same_seed_same_bits(trajectory):
    for first, second in zip(values_of(trajectory), values_of(short()), strict=True):
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(trajectory.mesh.pos, short(1).mesh.pos)
    other = short(1, seed=1).mesh.pos
    assert other.shape != trajectory.mesh.pos.shape or (other != trajectory.mesh.pos).any()


def test_substeps_are_steps_between_frames(trajectory):
    finer = short(8, frame_step=0.005, substeps=1)
    for first, second in zip(values_of(trajectory), values_of(finer), strict=True):
        np.testing.assert_array_equal(first, second[1::2])


def test_density_is_a_factor_of_the_pressure(trajectory):
    heavy = short(density=4.0)
    expected = 4 * trajectory.fields["pressure"]
    np.testing.assert_allclose(heavy.fields["pressure"], expected, rtol=1e-6)
    for name in ("velocity", "drag", "lift"):
        source = "fields" if name == "velocity" else "series"
        np.testing.assert_array_equal(
            getattr(heavy, source)[name], getattr(trajectory, source)[name]
        )


def test_inflow_in_time():
    asked = []

    def ramp(time):
        asked.append(time)
        return 10 * time

    trajectory = short(inflow=ramp)
    np.testing.assert_allclose(asked, 0.005 * np.arange(9))
    inlet = trajectory.mesh.nodes_of("inflow")
    speed = trajectory.fields["velocity"][:, inlet, 0].max(1)
    np.testing.assert_allclose(speed / speed[-1], [0.25, 0.5, 0.75, 1], rtol=1e-6)
    constant = short(inflow=lambda time: 1.0)
    for first, second in zip(values_of(constant), values_of(short()), strict=True):
        np.testing.assert_array_equal(first, second)
    for values in values_of(short(inflow=lambda time: 0.0)):
        assert not values.any()


def test_impulsive_start_is_potential_flow_at_first():
    velocity = (first := short(1, frame_step=1e-5, substeps=1)).fields["velocity"][0]
    x, y = first.mesh.pos.T
    # Friction has had no time: behind the cylinder the flow is uniform, and as before it.
    far = (x > 0.9) & (x < 1.3) & (y > 0.1) & (y < 0.31)
    expected = np.broadcast_to([1, 0], velocity[far].shape)
    np.testing.assert_allclose(velocity[far], expected, atol=0.1)
    before, behind = (np.hypot(x - at, y - 0.2) < 0.02 for at in (0.34, 0.46))
    assert velocity[behind, 0].mean() == pytest.approx(velocity[before, 0].mean(), rel=0.25)
    later = short(30).fields["velocity"][-1]
    assert later[behind, 0].mean() < 0.1 * velocity[behind, 0].mean()


def test_developed_flow_repeats(monkeypatch):
    steps = []
    step = NavierStokes.step
    monkeypatch.setattr(NavierStokes, "step", lambda *args: steps.append(args) or step(*args))
    changes = {"inlet_speed": 1.6, "radius": 0.065, "viscosity": 1.4e-3}
    trajectory = short(40, **changes, start="developed", frame_step=0.02, substeps=1)
    # A stretch of 10 D / U is 61 steps long.
    stretches, rest = divmod(len(steps) - 40, 61)
    assert rest == 0
    assert 4 <= stretches <= 12
    lift = trajectory.series["lift"]
    rises = np.flatnonzero((lift[:-1] < 0) & (lift[1:] >= 0))
    assert len(rises) >= 2
    period = round(np.diff(rises).mean())
    assert np.ptp(lift) > 1
    difference = lift[period:] - lift[:-period]
    assert np.abs(difference).max() < 0.15 * np.ptp(lift)
    # Vortices shed once a period: the drag repeats in half of it.
    drag = trajectory.series["drag"]
    assert np.ptp(drag) < 0.3 * drag.mean()


def test_random_arguments():
    rng = np.random.default_rng(0)
    drawn = [random_cylinder_flow(rng) for _ in range(300)]
    reynolds = [2 / 3 * d["inlet_speed"] * 2 * d["radius"] / d["viscosity"] for d in drawn]
    assert 50 <= min(reynolds) < 60
    assert 170 < max(reynolds) <= 180
    assert {d["start"] for d in drawn} == {"rest", "developed"}
    assert len({d["seed"] for d in drawn}) == 300
    for d in drawn:
        x, y = d["center"]
        assert min(x, y, 0.41 - y) - d["radius"] > 0.1
    again = np.random.default_rng(0)
    assert [random_cylinder_flow(again) for _ in range(300)] == drawn
    short(1, **drawn[0] | {"start": "rest"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": "steady"}, "unknown start 'steady'; choose from rest, developed"),
        ({"num_frames": 0}, "num_frames must be a whole number of at least 1, got 0"),
        ({"substeps": 0}, "substeps must be a whole number of at least 1, got 0"),
        ({"substeps": 1.5}, r"substeps must be a whole number of at least 1, got 1\.5"),
        ({"frame_step": 0.0}, r"frame_step must be positive, got 0\.0"),
        ({"density": -1.0}, r"density must be positive, got -1\.0"),
        ({"inlet_speed": -1.0}, r"inlet_speed must be positive, got -1\.0"),
        ({"viscosity": np.nan}, "viscosity must be positive, got nan"),
        ({"radius": 0.25}, "hole"),
    ],
)
def test_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        short(**changes)


def test_progress(capsys):
    short(1)
    assert capsys.readouterr().err == ""
    short(1, progress=True)
    assert "Simulating" in capsys.readouterr().err


BENCHMARK = {"radius": 0.05, "center": (0.2, 0.2), "viscosity": 1e-3, "length": 2.2}


@pytest.mark.slow
def test_dfg_2d2():
    trajectory = simulate_cylinder_flow(
        **BENCHMARK, start="developed", num_frames=200, frame_step=0.005, substeps=1
    )
    drag, lift = trajectory.series["drag"], trajectory.series["lift"]
    assert 3.22 <= drag.max() <= 3.24
    assert 0.98 <= lift.max() <= 1.03
    middle = (lift.max() + lift.min()) / 2
    before = np.flatnonzero((lift[:-1] < middle) & (lift[1:] >= middle))
    rises = before + (middle - lift[before]) / (lift[before + 1] - lift[before])
    assert len(rises) >= 3
    period = np.diff(rises).mean() * 0.005
    assert 0.295 <= 0.1 / period <= 0.305


@pytest.mark.slow
def test_dfg_2d3(shared_data):
    path = shared_data / "cfd" / "featflow_2d3" / "bdforces_lv4"
    _, time, _, drag, lift = np.loadtxt(path).T
    trajectory = simulate_cylinder_flow(
        **BENCHMARK,
        num_frames=1600,
        frame_step=0.005,
        substeps=1,
        inflow=lambda t: np.sin(np.pi * t / 8),
    )
    ours, times = trajectory.series, trajectory.times
    difference = ours["drag"] - np.interp(times, time, drag)
    assert np.sqrt(np.square(difference).mean()) <= 0.01 * drag.max()
    assert times[ours["drag"].argmax()] == pytest.approx(time[drag.argmax()], abs=0.01)
    assert times[ours["lift"].argmax()] == pytest.approx(time[lift.argmax()], abs=0.03)
    assert ours["lift"].max() == pytest.approx(lift.max(), rel=0.05)
