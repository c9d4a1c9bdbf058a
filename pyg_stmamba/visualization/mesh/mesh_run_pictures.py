"""Which pictures a run on meshes has, and what each takes from its results."""

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.visualization.mesh.error_growth import plot_error_growth
from pyg_stmamba.visualization.mesh.forces import plot_forces
from pyg_stmamba.visualization.mesh.frame_pairs import frame_pairs, one_frame
from pyg_stmamba.visualization.mesh.mesh_fields import magnitude, plot_mesh_fields
from pyg_stmamba.visualization.mesh.mesh_run_results import MeshRunResults
from pyg_stmamba.visualization.mesh.spectrum import plot_spectra
from pyg_stmamba.visualization.mesh.training_curves import plot_training_curves
from pyg_stmamba.visualization.style import with_unit

SIGNALS = {
    "drag": "drag",
    "lift": "lift",
    "probe": "velocity at the probe",
    "kinetic_energy": "kinetic energy",
}
COEFFICIENTS = {"drag": "drag coefficient", "lift": "lift coefficient"}


class NothingToDraw(ValueError):
    """A picture's data are not there; the message says which."""


def _growth(quantity: str) -> Callable[[MeshRunResults], Figure]:
    def draw(run: MeshRunResults) -> Figure:
        metric = f"{quantity}_rmse"
        errors = {
            called: run.errors[f"{method}_{metric}"]
            for method, called in run.methods.items()
            if f"{method}_{metric}" in run.errors
        }
        if not errors:
            raise NothingToDraw(f"rollout_errors.npz has no {metric}")
        if not any((np.isfinite(part) & (part > 0)).any() for part in errors.values()):
            raise NothingToDraw(f"{metric} in rollout_errors.npz is nowhere a positive number")
        return plot_error_growth(
            run.errors["time"], errors, quantity=f"{quantity} RMSE", unit=run.unit(quantity)
        )

    return draw


def _signals(run: MeshRunResults) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Prediction and truth of the first trajectory, of whatever signals it has."""
    signals = {}
    for name in SIGNALS:
        predicted, true = run.errors.get(f"model_{name}"), run.errors.get(f"model_{name}_truth")
        if predicted is not None and true is not None and np.isfinite(predicted[0]).sum() > 1:
            signals[name] = (predicted[0], true[0])
    if not signals:
        raise NothingToDraw("rollout_errors.npz has no drag, lift or other signal over time")
    return signals


def _names_of_signals(run: MeshRunResults) -> dict[str, str]:
    return SIGNALS | COEFFICIENTS if run.has_coefficients else SIGNALS


def _forces(run: MeshRunResults) -> Figure:
    signals = _signals(run)
    called = _names_of_signals(run)
    # Where there is no body, the probe.
    shown = ("drag", "lift" if "lift" in signals else "probe", "kinetic_energy")
    return plot_forces(
        run.errors["time"],
        {called[name]: signals[name] for name in shown if name in signals},
        model=run.model,
        title=f"Trajectory {run.errors['names'][0]}" if "names" in run.errors else "",
    )


def _spectra(run: MeshRunResults) -> Figure:
    signals = _signals(run)
    called = _names_of_signals(run)
    shown = [name for name in ("lift", "probe") if name in signals]
    enough = [name for name in shown if np.isfinite(signals[name]).all(0).sum() >= 16]
    if not enough:
        raise NothingToDraw("no signal that crosses the stream has the 16 steps of a spectrum")
    found = ((run.metrics.get("rollouts") or [{}])[0].get("oscillations")) or {}
    return plot_spectra(
        run.errors["time"],
        {called[name]: signals[name] for name in enough},
        frequencies={
            called[name]: found[name]["frequency_truth"]
            for name in enough
            if (found.get(name) or {}).get("frequency_truth") is not None
        },
        model=run.model,
    )


def _last_fields(run: MeshRunResults) -> Figure:
    if not run.rollouts:
        raise NothingToDraw("no rollout was kept")
    name, (prediction, truth) = next(iter(run.rollouts.items()))
    ours, theirs = frame_pairs(prediction, truth)[-1]
    field = shown_field(truth)
    predicted, true = one_frame(prediction, field, ours), one_frame(truth, field, theirs)
    quantity = field if truth.channels(field) == 1 else f"magnitude of {field}"
    return plot_mesh_fields(
        truth.mesh,
        {
            "prediction": magnitude(predicted),
            "truth": magnitude(true),
            "error": magnitude(predicted - true),
        },
        quantity=with_unit(quantity, truth.units.get(field, "")),
        title=f"Trajectory {truth.name or name}, t = {truth.times[theirs]:.3g}",
    )


def shown_field(trajectory: MeshTrajectory) -> str:
    """The velocity, or the first field that there is."""
    return "velocity" if "velocity" in trajectory.fields else next(iter(trajectory.fields))


def _training(run: MeshRunResults) -> Figure:
    if not run.history:
        raise NothingToDraw("metrics.csv has no epochs")
    return plot_training_curves(run.history)


PICTURES: dict[str, tuple[Callable[[MeshRunResults], Figure], str]] = {
    "last_fields": (
        _last_fields,
        "The last predicted frame of the first kept trajectory, the truth at the same time, and "
        "the length of their difference, all on one colour scale.",
    ),
    "velocity_error_growth": (
        _growth("velocity"),
        "Error of the velocity at each step of the rollout: the mean over the test trajectories, "
        "and from the least to the largest as a band. A cross is where a rollout diverged.",
    ),
    "pressure_error_growth": (_growth("pressure"), "The same for the pressure."),
    "forces": (
        _forces,
        "Force on the body, from predicted and from true velocity and pressure by the same "
        "integral, and the kinetic energy of the whole flow.",
    ),
    "spectra": (
        _spectra,
        "Power by frequency of what crosses the stream, over the whole rollout under a Hann "
        "window. The dotted line is the dominant frequency of the truth.",
    ),
    "training_curves": (_training, "The training, epoch by epoch."),
}
