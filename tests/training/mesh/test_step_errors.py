import numpy as np
import pytest

from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.training.mesh.matched_frames import MatchedRollout
from pyg_stmamba.training.mesh.step_errors import StepErrors

ROLES = {"velocity": "velocity", "pressure": "pressure"}
COUNTED = ("normal", "outflow")
FRAMES = 5


@pytest.fixture
def measured(make_trajectory, mesh):
    """The metrics of a prediction with the given fields ``[N, C]``, the same at all times."""

    def measure(prediction, truth, nodes=COUNTED, parameters=None, **options):
        pair = [
            make_trajectory(
                parameters=parameters,
                velocity=np.broadcast_to(velocity, (FRAMES, *velocity.shape)),
                pressure=np.broadcast_to(pressure, (FRAMES, *pressure.shape)),
            )
            for velocity, pressure in (prediction, truth)
        ]
        rollout = MatchedRollout(*pair, list(ROLES))
        steps = StepErrors(rollout, ROLES, nodes, **options).measured()
        assert {len(values) for values in steps.values()} == {FRAMES}
        return {name: values[-1] for name, values in steps.items()}

    return measure


def flow(mesh, along=(0.0, 0.0), spin=0.0, spread=0.0, pressure=(0.0, 0.0)):
    """A velocity and a pressure that are linear in space."""
    x, y = mesh.pos.T
    velocity = np.stack([along[0] - spin * y + spread * x, along[1] + spin * x + spread * y], 1)
    return velocity, (pressure[0] + pressure[1] * x)[:, None]


def test_errors_of_a_constant_offset(measured, mesh, node_area):
    truth = flow(mesh, (1.0, 0.0), pressure=(2.0, 0.0))
    found = measured(flow(mesh, (1.3, -0.4), pressure=(3.0, 0.0)), truth)
    assert np.isclose(found["velocity_rmse"], 0.5)
    assert np.isclose(found["velocity_relative_l2"], 0.5)
    assert np.isclose(found["pressure_rmse"], 1)
    assert np.isclose(found["pressure_relative_l2"], 0.5)
    assert np.isclose(found["pressure_rmse_gauge_free"], 0, atol=1e-6)
    assert np.isclose(found["vorticity_rmse"], 0, atol=1e-6)
    area = node_area.sum()
    assert np.isclose(found["kinetic_energy"], 0.5 * (1.69 + 0.16) * area)
    assert np.isclose(found["kinetic_energy_truth"], 0.5 * area)
    assert np.isclose(found["kinetic_energy_error"], 0.5 * 0.85 * area)
    halved = measured(flow(mesh, (1.3, -0.4)), truth, per_component=True)
    assert np.isclose(halved["velocity_rmse"], 0.5 / np.sqrt(2))
    assert np.isclose(halved["velocity_relative_l2"], 0.5)


def test_vorticity_and_divergence_of_linear_flows(measured, mesh):
    found = measured(flow(mesh, spin=3.0, spread=0.7), flow(mesh, spin=2.5, spread=0.1))
    # A turn at rate s has vorticity 2 s, a source x d has divergence 2 d.
    assert np.isclose(found["vorticity_rmse"], 1.0)
    assert np.isclose(found["divergence_rms"], 1.4)
    assert np.isclose(found["divergence_rms_truth"], 0.2)


def test_nodes_count_by_type_and_weigh_by_area(measured, mesh, node_area):
    velocity, pressure = flow(mesh, (1.0, 0.5))
    random = np.random.default_rng(0)
    wrong = velocity + random.normal(size=velocity.shape)
    length = np.square(wrong - velocity).sum(1)
    for nodes in (COUNTED, ("obstacle",), None):
        counted = np.ones(mesh.num_nodes, bool) if nodes is None else mesh.nodes_of(*nodes)
        found = measured((wrong, pressure), (velocity, pressure), nodes)
        by_node, weights = np.mean(length[counted]), node_area[counted]
        by_area = np.average(length[counted], weights=weights)
        assert np.isclose(found["velocity_rmse"], np.sqrt(by_node))
        assert np.isclose(found["velocity_l2"], np.sqrt(by_area))
        assert np.isclose(found["velocity_relative_l2"], np.sqrt(by_area / 1.25))
        assert abs(by_node / by_area - 1) > 0.005


def test_the_gauge_is_the_mean_over_the_area_of_all_nodes(measured, mesh, node_area):
    pressure = np.random.default_rng(0).normal(size=(mesh.num_nodes, 1))
    velocity, truth = flow(mesh, (1.0, 0.0))
    found = measured((velocity, pressure), (velocity, truth))
    free = pressure[:, 0] - np.average(pressure[:, 0], weights=node_area)
    counted = mesh.nodes_of(*COUNTED)
    assert np.isclose(found["pressure_rmse_gauge_free"], np.sqrt(np.mean(free[counted] ** 2)))


def test_forces_on_the_body(measured, mesh):
    # Of a pressure a + b x the force on a body is -b times its area, whatever its shape.
    size = np.ptp(mesh.pos[mesh.nodes_of("obstacle")], axis=0).prod()
    prediction = flow(mesh, (1.0, 0.0), pressure=(7.0, -3.0))
    truth = flow(mesh, (1.0, 0.0), pressure=(0.0, -2.0))
    found = measured(prediction, truth, parameters={"viscosity": 0.1})
    assert np.isclose(found["drag"], 3 * size)
    assert np.isclose(found["drag_truth"], 2 * size)
    assert np.isclose(found["drag_error"], size)
    assert np.isclose(found["lift"], 0, atol=1e-6)
    found = measured(
        prediction, truth, parameters={"viscosity": 0.1, "density": 4.0}, reference=(2.0, 0.5)
    )
    # c = 2 F / (4 * 2 ** 2 * 0.5)
    assert np.isclose(found["drag_error"], size / 4)
    said = {"viscosity": 0.1, "density": 4.0, "reference_speed": 2.0, "reference_length": 0.5}
    assert np.isclose(measured(prediction, truth, parameters=said)["drag_error"], size / 4)
    found = measured(prediction, truth, parameters=said, reference=(1.0, 0.5))
    assert np.isclose(found["drag_error"], size)
    del said["reference_length"]
    assert np.isclose(measured(prediction, truth, parameters=said)["drag_error"], size)


def test_friction_needs_the_viscosity_and_the_density(measured, mesh):
    y = mesh.pos[:, 1]
    velocity = np.stack([y**2, np.zeros_like(y)], axis=1)
    pressure = np.zeros((mesh.num_nodes, 1))
    rest = np.zeros_like(velocity)

    def drag(viscosity, density):
        found = measured(
            (velocity, pressure),
            (rest, pressure),
            parameters={"viscosity": viscosity, "density": density},
        )
        return found["drag"]

    assert drag(0.1, 1.0) != 0
    assert np.isclose(drag(0.3, 1.0), 3 * drag(0.1, 1.0))
    assert np.isclose(drag(0.1, 5.0), 5 * drag(0.1, 1.0))


def test_no_forces_without_a_body_or_viscosity(measured, mesh, make_trajectory):
    assert "drag" not in measured(flow(mesh), flow(mesh))
    bare = Mesh(mesh.pos, mesh.cells, np.zeros(mesh.num_nodes), ("fluid",))
    fields = {"velocity": np.ones((3, mesh.num_nodes, 2))}
    pair = [MeshTrajectory(bare, fields, [0, 1, 2], parameters={"viscosity": 1.0})] * 2
    steps = StepErrors(MatchedRollout(*pair, ["velocity"]), {"velocity": "velocity"}, None)
    assert "drag" not in steps.measured()


def test_a_body_without_a_border_has_no_forces(mesh):
    # One node in the middle of the flow.
    node_type = np.zeros(mesh.num_nodes, dtype=int)
    node_type[13] = 1
    fields = {"velocity": np.ones((3, mesh.num_nodes, 2)), "pressure": np.ones((3, 205, 1))}
    marked = Mesh(mesh.pos, mesh.cells, node_type)
    pair = [MeshTrajectory(marked, fields, [0, 1, 2], parameters={"viscosity": 1.0})] * 2
    steps = StepErrors(MatchedRollout(*pair, list(ROLES)), ROLES, None).measured()
    assert "drag" not in steps
    assert "vorticity_rmse" in steps


def test_a_surface_in_space_has_errors_but_no_derivatives(mesh):
    pos = np.pad(mesh.pos, ((0, 0), (0, 1)))
    pos[:, 2] = np.sin(pos[:, 0])
    surface = Mesh(pos, mesh.cells, mesh.node_type)
    truth = {"velocity": np.ones((3, 205, 3)), "pressure": np.ones((3, 205, 1))}
    pair = [
        MeshTrajectory(
            surface, {k: f * v for k, v in truth.items()}, [0, 1, 2], parameters={"viscosity": 1.0}
        )
        for f in (1.5, 1.0)
    ]
    steps = StepErrors(MatchedRollout(*pair, list(ROLES)), ROLES, None).measured()
    assert np.allclose(steps["velocity_rmse"], 0.5 * np.sqrt(3))
    assert np.allclose(steps["velocity_relative_l2"], 0.5)
    for missing in ("vorticity_rmse", "divergence_rms", "kinetic_energy", "drag"):
        assert missing not in steps


def test_a_probe_where_the_cross_stream_velocity_varies_most(mesh, make_trajectory):
    time = np.arange(40) * 0.1
    velocity = np.zeros((40, mesh.num_nodes, 2))
    velocity[..., 0] = 5 + 2 * np.sin(time)[:, None]
    velocity[:, 17, 1] = 0.5 * np.sin(3 * time)
    velocity[:, 90, 1] = 0.9 * np.sin(2 * time)
    truth = make_trajectory(velocity=velocity)
    rollout = MatchedRollout(make_trajectory(velocity=2 * velocity), truth, ["velocity"])
    for place, node in ((None, 90), (mesh.pos[17] + 1e-3, 17)):
        steps = StepErrors(rollout, {"velocity": "velocity"}, None, probe=place).measured()
        assert np.allclose(steps["probe_truth"], velocity[:, node, 1], atol=1e-6)
        assert np.allclose(steps["probe"], 2 * velocity[:, node, 1], atol=1e-6)
    # The same, flowing upward.
    turned = make_trajectory(velocity=velocity[..., ::-1])
    steps = StepErrors(MatchedRollout(turned, turned, ["velocity"]), {"velocity": "velocity"}, None)
    assert np.allclose(steps.measured()["probe"], velocity[:, 90, 1], atol=1e-6)


def test_other_fields_have_errors_too(make_trajectory, mesh):
    heat = np.ones((3, mesh.num_nodes, 1))
    rollout = MatchedRollout(make_trajectory(heat=1.5 * heat), make_trajectory(heat=heat), ["heat"])
    steps = StepErrors(rollout, {"heat": "heat"}, None).measured()
    assert set(steps) == {"heat_rmse", "heat_relative_l2", "heat_l2", "heat_l2_truth"}
    assert np.allclose(steps["heat_rmse"], 0.5)


def test_after_a_divergence_errors_are_infinite_and_signals_no_numbers(make_trajectory, mesh):
    velocity = np.random.default_rng(0).normal(size=(9, mesh.num_nodes, 2))
    truth = make_trajectory(
        velocity=velocity, pressure=velocity[..., :1], parameters={"viscosity": 1.0}
    )
    broken = velocity.copy()
    broken[6] = np.nan
    prediction = make_trajectory(velocity=1.1 * broken, pressure=velocity[..., :1])
    rollout = MatchedRollout(prediction, truth, list(ROLES))
    steps = StepErrors(rollout, ROLES, COUNTED).measured()
    for name, values in steps.items():
        assert np.isfinite(values[:6]).all()
        if name.endswith("_truth"):
            assert np.isfinite(values).all()
        elif name in ("drag", "lift", "probe", "kinetic_energy"):
            assert np.isnan(values[6:]).all()
        else:
            assert np.isposinf(values[6:]).all(), name


def test_huge_but_finite_predictions_are_measured(measured, mesh):
    velocity, pressure = flow(mesh, (1e30, 0.0))
    found = measured((velocity, pressure), flow(mesh, (1.0, 0.0)))
    assert np.isclose(found["velocity_rmse"], 1e30)


def test_bad_input(measured, mesh):
    with pytest.raises(ValueError, match=r"that counts \(airfoil\); its nodes are of type normal"):
        measured(flow(mesh), flow(mesh), ("airfoil",))
    with pytest.raises(ValueError, match="unknown node type 'river'"):
        measured(flow(mesh), flow(mesh), ("river",))
    with pytest.raises(ValueError, match=r"probe must be 2 numbers, got \[1.0\]"):
        measured(flow(mesh), flow(mesh), probe=[1.0])
