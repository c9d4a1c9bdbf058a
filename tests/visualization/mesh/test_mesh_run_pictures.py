import numpy as np
import pytest

from pyg_stmamba.visualization.mesh.mesh_run_pictures import PICTURES, NothingToDraw
from pyg_stmamba.visualization.mesh.mesh_run_results import read_mesh_run_results


@pytest.fixture
def run(make_mesh_run):
    return read_mesh_run_results(make_mesh_run())


def drawn(name, run):
    return PICTURES[name][0](run)


def test_the_last_frame_is_shown(run):
    figure = drawn("last_fields", run)
    prediction, truth = run.rollouts["test_0"]
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes[:3]}
    ours = np.array(prediction.fields["velocity"][:])[-1]
    theirs = np.array(truth.fields["velocity"][:])[-1]
    for name, field in (("prediction", ours), ("truth", theirs), ("error", ours - theirs)):
        seen = panels[name].collections[0].get_array()
        assert np.allclose(seen, np.linalg.norm(field, axis=1), atol=1e-6)
    assert figure.get_suptitle() == "Trajectory test 0, t = 0.5"


def test_growth_of_all_methods(run):
    (axes,) = drawn("velocity_error_growth", run).axes
    labels = [line.get_label() for line in axes.lines if not line.get_label().startswith("_")]
    assert labels == ["mesh-simulator", "mesh graph net (1 of 2 diverged)", "persistence"]
    assert axes.get_ylabel() == "velocity RMSE [m/s]"
    assert drawn("pressure_error_growth", run).axes[0].get_ylabel() == "pressure RMSE [Pa]"


def test_forces_of_the_first_trajectory_or_the_probe(run):
    figure = drawn("forces", run)
    assert [axes.get_ylabel() for axes in figure.axes] == ["drag", "lift", "kinetic energy"]
    assert figure.axes[0].get_title(loc="left") == "Trajectory test 0"
    seen = figure.axes[1].lines[1].get_ydata()
    assert np.array_equal(seen, run.errors["model_lift"][0])
    for name in ("drag", "lift"):
        run.errors.pop(f"model_{name}")
    labels = [axes.get_ylabel() for axes in drawn("forces", run).axes]
    assert labels == ["velocity at the probe", "kinetic energy"]


def test_coefficients_where_the_simulation_says_their_reference(run):
    _, truth = run.rollouts["test_0"]
    truth.parameters["reference_speed"] = 1.0
    assert drawn("forces", run).axes[0].get_ylabel() == "drag"
    truth.parameters["reference_length"] = 0.1
    labels = [axes.get_ylabel() for axes in drawn("forces", run).axes]
    assert labels == ["drag coefficient", "lift coefficient", "kinetic energy"]
    assert drawn("spectra", run).axes[0].get_title(loc="left") == "lift coefficient"


def test_spectra_with_the_true_frequency(run):
    figure = drawn("spectra", run)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["lift", "velocity at the probe"]
    found = run.metrics["rollouts"][0]["oscillations"]["probe"]["frequency_truth"]
    if found is not None:
        assert figure.axes[1].lines[2].get_xdata()[0] == found


def test_nothing_to_draw_has_a_reason(run):
    empty = run._replace(errors={}, rollouts={}, history={})
    for name, reason in (
        ("last_fields", "no rollout was kept"),
        ("velocity_error_growth", "has no velocity_rmse"),
        ("pressure_error_growth", "has no pressure_rmse"),
        ("forces", "no drag, lift or other signal"),
        ("spectra", "no drag, lift or other signal"),
        ("training_curves", "metrics.csv has no epochs"),
    ):
        with pytest.raises(NothingToDraw, match=reason):
            drawn(name, empty)
    dead = {**run.errors, **{f"{m}_velocity_rmse": np.full((2, 24), np.inf) for m in run.methods}}
    with pytest.raises(NothingToDraw, match="nowhere a positive number"):
        drawn("velocity_error_growth", run._replace(errors=dead))
    short = {name: values[..., :9] for name, values in run.errors.items() if values.ndim == 2}
    short |= {"time": run.errors["time"][:9]}
    with pytest.raises(NothingToDraw, match="16 steps of a spectrum"):
        drawn("spectra", run._replace(errors=short))
