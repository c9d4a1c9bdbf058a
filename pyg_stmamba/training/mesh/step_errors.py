from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pyg_stmamba.data.mesh.calculus import MeshCalculus
from pyg_stmamba.data.mesh.forces import BodyForce, force_coefficients
from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.training.mesh.flow_metrics import (
    gauge_free,
    kinetic_energy,
    root_mean_square,
    share,
)
from pyg_stmamba.training.mesh.horizon_errors import is_scored
from pyg_stmamba.training.mesh.matched_frames import MatchedFrames, MatchedRollout

BODIES = ("obstacle", "airfoil")

Fields = Mapping[str, tuple[np.ndarray, np.ndarray]]


class StepErrors:
    r"""The metrics of every step of a rollout; :func:`measure_rollout` says which there are.

    Args:
        rollout (MatchedRollout): Prediction and truth.
        roles (dict[str, str]): The fields, and under which names they are reported.
        nodes (sequence, optional): The types of the nodes that count, :obj:`None` for all.
        per_component (bool, optional): Whether root mean square errors are means over
            components too. (default: :obj:`False`)
        probe (sequence, optional): Where the probe is. (default: :obj:`None`, where the true
            cross-stream velocity varies most)
        reference (tuple[float, float], optional): Speed and size that make coefficients of the
            forces. (default: :obj:`None`, what the truth says, see :func:`measure_rollout`)

    Raises:
        ValueError: If no node counts or the probe does not fit the mesh.
    """

    def __init__(
        self,
        rollout: MatchedRollout,
        roles: Mapping[str, str],
        nodes: Sequence[str] | None,
        *,
        per_component: bool = False,
        probe: Sequence[float] | None = None,
        reference: tuple[float, float] | None = None,
    ) -> None:
        self.rollout, self.roles, self.mesh = rollout, dict(roles), rollout.truth.mesh
        self.per_component = per_component
        self.reference = _reference(rollout.truth) if reference is None else reference
        self.counted = _counted(self.mesh, nodes)
        self.calculus = _calculus(self.mesh)
        self.areas = np.ones(self.mesh.num_nodes)
        self.body = None
        if self.calculus is not None:
            self.areas = self.calculus.node_measure
            self.body = _body_force(rollout.truth, self.calculus)
        names = {role: name for name, role in self.roles.items()}
        self.velocity = names.get("velocity")
        if self.velocity is not None:
            self.probe = _probe(rollout, self.velocity, probe)

    def measured(self) -> dict[str, np.ndarray]:
        r"""Returns the value of each metric at each step, :math:`(T)` each. Errors of steps that
        the rollout did not reach are infinite, its signals there not numbers."""
        chunks = [self._chunk(frames) for frames in self.rollout.chunks()]
        steps = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
        for name, values in steps.items():
            if (is_scored(name) or name.endswith("_l2")) and not name.endswith("_truth"):
                values[self.rollout.reached :] = np.inf
        return steps

    def _chunk(self, frames: MatchedFrames) -> dict[str, np.ndarray]:
        fields = {
            role: (frames.prediction[name], frames.truth[name]) for name, role in self.roles.items()
        }
        errors: dict[str, np.ndarray] = {}
        for role, (prediction, truth) in fields.items():
            errors.update(self._of_field(role, prediction, truth))
        if "pressure" in fields:
            free, free_truth = (gauge_free(field, self.areas) for field in fields["pressure"])
            errors["pressure_rmse_gauge_free"] = self._rmse(free - free_truth)
        if "velocity" in fields:
            errors.update(self._of_signals(fields))
            if self.calculus is not None:
                errors.update(self._of_derivatives(self.calculus, *fields["velocity"]))
        return errors

    def _rmse(self, error: np.ndarray) -> np.ndarray:
        return root_mean_square(error, self.counted, per_component=self.per_component)

    def _of_field(
        self, role: str, prediction: np.ndarray, truth: np.ndarray
    ) -> dict[str, np.ndarray]:
        weights = self.counted * self.areas
        error, norm = (root_mean_square(f, weights) for f in (prediction - truth, truth))
        return {
            f"{role}_rmse": self._rmse(prediction - truth),
            f"{role}_relative_l2": share(error, norm),
            f"{role}_l2": error,
            f"{role}_l2_truth": norm,
        }

    def _of_derivatives(
        self, calculus: MeshCalculus, prediction: np.ndarray, truth: np.ndarray
    ) -> dict[str, np.ndarray]:
        # Both are linear, so the vorticity of the error is the error of the vorticity.
        fields = {
            "vorticity_rmse": calculus.vorticity(prediction - truth),
            "divergence_rms": calculus.divergence(prediction),
            "divergence_rms_truth": calculus.divergence(truth),
        }
        weights = self.counted * self.areas
        return {
            name: root_mean_square(field.reshape(*truth.shape[:2], -1), weights)
            for name, field in fields.items()
        }

    def _of_signals(self, fields: Fields) -> dict[str, np.ndarray]:
        signals = {}
        for side, ending in enumerate(("", "_truth")):
            velocity = fields["velocity"][side]
            signals[f"probe{ending}"] = velocity[self.probe[0], :, self.probe[1]]
            if self.calculus is not None:
                signals[f"kinetic_energy{ending}"] = kinetic_energy(velocity, self.areas)
            if self.body is not None and "pressure" in fields:
                force = self._force(self.body, velocity, fields["pressure"][side])
                signals[f"drag{ending}"], signals[f"lift{ending}"] = force[:, 0], force[:, 1]
        for name in ("kinetic_energy", "drag", "lift"):
            if name in signals:
                signals[f"{name}_error"] = np.abs(signals[name] - signals[f"{name}_truth"])
        return signals

    def _force(self, body: BodyForce, velocity: np.ndarray, pressure: np.ndarray) -> np.ndarray:
        parameters = self.rollout.truth.parameters
        density = parameters.get("density", 1.0)
        force = body(velocity, pressure, parameters["viscosity"], density)
        if self.reference is None:
            return force
        return force_coefficients(force, *self.reference, density)


def _counted(mesh: Mesh, nodes: Sequence[str] | None) -> np.ndarray:
    counted = np.ones(mesh.num_nodes, bool) if nodes is None else mesh.nodes_of(*nodes)
    if not counted.any():
        raise ValueError(
            f"no node of the mesh is of a type that counts ({', '.join(nodes or ())}); its nodes "
            f"are of type {', '.join(_types_there(mesh))}"
        )
    return counted.astype(np.float64)


def _types_there(mesh: Mesh) -> list[str]:
    return [mesh.node_type_names[number] for number in np.unique(mesh.node_type)]


def _calculus(mesh: Mesh) -> MeshCalculus | None:
    """None for a mesh whose cells do not fill its space, as a surface in 3-D."""
    try:
        return MeshCalculus(mesh)
    except ValueError:
        return None


def _body_force(truth: MeshTrajectory, calculus: MeshCalculus) -> BodyForce | None:
    """The force on the bodies in the flow, where one has a border and the viscosity is known."""
    bodies = [name for name in BODIES if name in truth.mesh.node_type_names]
    if "viscosity" not in truth.parameters:
        return None
    try:
        return BodyForce(truth.mesh, bodies, calculus)
    except ValueError:
        return None


def _reference(truth: MeshTrajectory) -> tuple[float, float] | None:
    """The speed and size of a simulation that says them."""
    names = ("reference_speed", "reference_length")
    if not all(name in truth.parameters for name in names):
        return None
    speed, size = (truth.parameters[name] for name in names)
    return speed, size


def _probe(
    rollout: MatchedRollout, velocity: str, place: Sequence[float] | None
) -> tuple[int, int]:
    """A node and the component of its velocity that oscillates most across the stream."""
    pos = rollout.truth.mesh.pos
    if place is not None and len(place) != pos.shape[1]:
        raise ValueError(f"probe must be {pos.shape[1]} numbers, got {list(place)}")
    sums = np.zeros((3, *pos.shape))
    for truth in rollout.true_chunks(velocity):
        sums += [truth.sum(1), np.square(truth).sum(1), np.abs(truth).sum(1)]
    variance = sums[1] / rollout.num_steps - np.square(sums[0] / rollout.num_steps)
    variance[:, np.argmax(sums[2].sum(0))] = -np.inf  # along the stream
    if place is None:
        node = int(np.argmax(variance.max(1)))
    else:
        node = int(np.argmin(np.square(pos - np.asarray(place)).sum(1)))
    return node, int(np.argmax(variance[node]))
