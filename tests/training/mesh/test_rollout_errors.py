import numpy as np
import pytest

from pyg_stmamba.training.mesh.rollout_errors import measure_rollout

RANDOM = np.random.default_rng(0)
FREQUENCY, STEP = 2.0, 0.02


def street(mesh, time, lag=0.0, frequency=FREQUENCY):
    """Waves that travel down the channel."""
    x, y = mesh.pos.T
    phase = 2 * np.pi * (frequency * (time[:, None] - lag) - x)
    velocity = np.stack([np.ones_like(phase), np.sin(phase) * np.sin(np.pi * y / 0.8)], axis=-1)
    return {"velocity": velocity, "pressure": 0.5 * np.cos(phase)[..., None]}


@pytest.fixture
def rollout(mesh, make_trajectory):
    """A prediction from frame 10 on and its truth of 210 frames."""

    def make(stop=None, **change):
        time = STEP * np.arange(210)
        truth = make_trajectory(
            step=STEP, parameters={"viscosity": 0.01}, name="street", **street(mesh, time)
        )
        fields = street(mesh, time[10:], **change)
        fields = {name: field[:stop] for name, field in fields.items()}
        return make_trajectory(first=10 * STEP, step=STEP, **fields), truth

    return make


def test_the_same_is_without_error(rollout):
    errors = measure_rollout(*rollout())
    assert errors.name == "street"
    assert np.allclose(errors.time, STEP * np.arange(10, 210))
    assert list(errors.horizons) == ["1", "10", "50", "100", "all"]
    for name, values in errors.steps.items():
        assert len(values) == 200
        if name.endswith(("rmse", "gauge_free", "relative_l2", "error")):
            assert np.abs(values).max() < 1e-6, name
    assert errors.diverged_at is None


def test_the_definition_of_mesh_graph_nets(rollout):
    prediction, truth = rollout(lag=0.03)
    errors = measure_rollout(
        prediction, truth, nodes=None, per_component=True, horizons=(1, 7, 200)
    )
    squares = np.square(prediction.fields["velocity"] - truth.fields["velocity"][10:])
    for horizon in (1, 7, 200):
        found = errors.horizons[str(horizon)]["velocity_rmse"]
        assert np.isclose(found**2, squares[:horizon].mean(), rtol=1e-5)


def test_the_error_of_a_step_alone(rollout, mesh):
    prediction, truth = rollout(lag=0.03, frequency=2.3)
    errors = measure_rollout(prediction, truth, horizons=(7, None), cumulative=False)
    difference = prediction.fields["velocity"] - truth.fields["velocity"][10:]
    lengths = np.linalg.norm(difference[:, mesh.nodes_of("normal", "outflow")], axis=-1)
    for horizon, step in (("7", 6), ("all", 199)):
        found = errors.horizons[horizon]["velocity_rmse"]
        assert np.isclose(found, np.sqrt(np.mean(lengths[step] ** 2)), rtol=1e-5)


def test_frequency_and_lag_of_travelling_waves(rollout):
    oscillations = measure_rollout(*rollout(lag=0.05)).oscillations
    assert set(oscillations) == {"lift", "drag", "probe", "kinetic_energy"}
    for signal in ("lift", "drag", "probe"):
        found = oscillations[signal]
        assert np.isclose(found.frequency, FREQUENCY, atol=0.02), signal
        assert np.isclose(found.frequency_truth, FREQUENCY, atol=0.02)
        assert np.isclose(found.lag.seconds, 0.05, atol=2e-3)
        assert np.isclose(found.lag.periods, 0.1, atol=5e-3)
    faster = measure_rollout(*rollout(frequency=2.2)).oscillations["lift"]
    assert np.isclose(faster.frequency, 2.2, atol=0.02)


def test_a_rollout_that_diverged(rollout):
    errors = measure_rollout(*rollout(stop=60), diverged_at=61)
    assert errors.diverged_at == 61
    assert len(errors.time) == 200
    assert np.isfinite(errors.horizons["50"]["velocity_rmse"])
    for metric, value in errors.horizons["100"].items():
        assert np.isposinf(value) == (metric != "divergence_rms_truth"), metric
    assert np.isclose(errors.oscillations["lift"].frequency, FREQUENCY, atol=0.1)
    short = measure_rollout(*rollout(stop=60), diverged_at=61, steps=80)
    assert list(short.horizons) == ["1", "10", "50", "all"]
    assert measure_rollout(*rollout(stop=10), diverged_at=11).oscillations == {}


def test_inputs_stay_as_they_are(rollout):
    prediction, truth = rollout()
    before = [np.array(field[:]) for t in (prediction, truth) for field in t.fields.values()]
    measure_rollout(prediction, truth, diverged_at=20)
    after = [np.array(field[:]) for t in (prediction, truth) for field in t.fields.values()]
    assert all(np.array_equal(one, other) for one, other in zip(before, after))


def test_fields_by_other_names_and_without_pressure(mesh, make_trajectory):
    velocity = RANDOM.normal(size=(5, mesh.num_nodes, 2))
    truth, prediction = make_trajectory(U=velocity), make_trajectory(U=1.1 * velocity)
    errors = measure_rollout(prediction, truth, state="U", outputs=None)
    assert np.allclose(errors.steps["velocity_relative_l2"], 0.1)
    assert not any(name.startswith("pressure") for name in errors.steps)
    with pytest.raises(ValueError, match="no field 'velocity'; its fields are U"):
        measure_rollout(prediction, truth)
