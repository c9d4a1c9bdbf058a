from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pyg_stmamba.data.mesh.node_types import PREDICTED_TYPES
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.training.mesh.horizon_errors import errors_at_horizons
from pyg_stmamba.training.mesh.matched_frames import MatchedRollout, roles_of
from pyg_stmamba.training.mesh.spectrum import Oscillation, compare_oscillations
from pyg_stmamba.training.mesh.step_errors import StepErrors

HORIZONS = (1, 10, 50, 100, None)
SIGNALS = ("lift", "drag", "probe", "kinetic_energy")
# A spectrum of fewer steps has hardly a line.
SHORTEST_SIGNAL = 16


class RolloutErrors(NamedTuple):
    r"""How far a rollout is from the truth, step by step and over horizons.

    Args:
        name (str): What the trajectory is called.
        time (numpy.ndarray): The time of each step, :math:`(T)`.
        steps (dict[str, numpy.ndarray]): The value of each metric at each step, :math:`(T)`.
            From the step at which a rollout diverged on, its errors are infinite.
        horizons (dict[str, dict[str, float]]): The same over horizons: :obj:`"1"`,
            :obj:`"10"` and so on and :obj:`"all"`, each with its metrics.
        oscillations (dict[str, Oscillation]): Frequency and phase of the signals that have one.
        diverged_at (int, optional): The step, counted from 1, at which the rollout diverged.
    """

    name: str
    time: np.ndarray
    steps: dict[str, np.ndarray]
    horizons: dict[str, dict[str, float]]
    oscillations: dict[str, Oscillation]
    diverged_at: int | None


def measure_rollout(
    prediction: MeshTrajectory,
    truth: MeshTrajectory,
    *,
    state: str | Sequence[str] = "velocity",
    outputs: str | Sequence[str] | None = "pressure",
    nodes: Sequence[str] | None = PREDICTED_TYPES,
    horizons: Sequence[int | None] = HORIZONS,
    cumulative: bool = True,
    per_component: bool = False,
    probe: Sequence[float] | None = None,
    reference: tuple[float, float] | None = None,
    diverged_at: int | None = None,
    steps: int | None = None,
) -> RolloutErrors:
    r"""Measures a rollout against the truth at the times that both have.

    Codes differ in what they call the error of a rollout, so it is stated here. With
    :math:`\mathcal{N}` the counted nodes and :math:`e_{n,t}` the error of the velocity at a node,

    .. math::
        \mathrm{RMSE}_t = \sqrt{\frac{1}{|\mathcal{N}|} \sum_{n \in \mathcal{N}}
        {\lVert e_{n,t} \rVert}^2}, \qquad
        \mathrm{RMSE}_{1:h} = \sqrt{\frac{1}{h} \sum_{t=1}^{h} \mathrm{RMSE}_t^2}.

    With :obj:`cumulative` the error over a horizon is the latter, else the former at its last
    step. `"Learning Mesh-Based Simulation with Graph Networks"
    <https://arxiv.org/abs/2010.03409>`_ counts all nodes (:obj:`nodes=None`), is cumulative,
    takes the mean over components too (:obj:`per_component=True`) and leaves the root to the
    reader.

    Per step there are, for the first state field with a channel for each direction
    (:obj:`velocity`), the first output with one channel (:obj:`pressure`) and any others by
    their own names:

    * :obj:`<field>_rmse`, and :obj:`pressure_rmse_gauge_free` after the mean over the area is
      taken from both pressures;
    * :obj:`<field>_relative_l2`, the norm of the error over that of the truth, nodes weighed by
      the area around them; :obj:`<field>_l2` and :obj:`<field>_l2_truth` are the two norms, as
      root mean squares;
    * :obj:`vorticity_rmse`, :obj:`divergence_rms` and :obj:`divergence_rms_truth`, weighed by
      area;
    * :obj:`kinetic_energy`, :obj:`drag` and :obj:`lift` (the force on the nodes of type
      :obj:`"obstacle"` or :obj:`"airfoil"` along the first and the second axis,
      where there are any and the trajectory has the parameter :obj:`"viscosity"`), the
      cross-stream velocity at a :obj:`probe`, each with its :obj:`_truth`, and
      :obj:`_error` for all but the probe.

    Where the cells of the mesh do not fill its space, as those of a surface in 3-D, nodes weigh
    alike, and vorticity, divergence, energy and forces are left out.

    Args:
        prediction (MeshTrajectory): The prediction, from its first predicted frame on.
        truth (MeshTrajectory): The truth, which may start earlier and end later.
        state (str or sequence, optional): The fields that are both input and output.
            (default: :obj:`"velocity"`)
        outputs (str or sequence, optional): The fields that are output only.
            (default: :obj:`"pressure"`)
        nodes (sequence, optional): The types of the nodes that count, :obj:`None` for all.
            (default: :obj:`("normal", "outflow")`)
        horizons (sequence, optional): Numbers of steps, :obj:`None` for all; those longer than
            the rollout are left out. (default: :obj:`(1, 10, 50, 100, None)`)
        cumulative (bool, optional): Whether a horizon :math:`h` stands for the steps
            :math:`1, \ldots, h` or for step :math:`h` alone. (default: :obj:`True`)
        per_component (bool, optional): Whether root mean square errors are means over
            components too. (default: :obj:`False`)
        probe (sequence, optional): Where the probe is, moved to the nearest node.
            (default: :obj:`None`, where the true cross-stream velocity varies most)
        reference (tuple[float, float], optional): Speed and size that make coefficients of drag
            and lift, for a cylinder the mean speed of the inflow and the diameter.
            (default: :obj:`None`, the parameters :obj:`"reference_speed"` and
            :obj:`"reference_length"` of the truth; forces where it has none)
        diverged_at (int, optional): The step, counted from 1, at which the rollout was given up.
            (default: :obj:`None`, the first that is not finite, if any)
        steps (int, optional): How many steps the rollout was to have. (default: :obj:`None`,
            those that it has, or up to the end of the truth where it diverged)

    Returns:
        RolloutErrors: The errors.

    Raises:
        ValueError: If fields, meshes or times do not fit, or no node counts.
    """
    roles = roles_of(truth, state, outputs)
    rollout = MatchedRollout(prediction, truth, list(roles), diverged_at=diverged_at, steps=steps)
    measure = StepErrors(
        rollout, roles, nodes, per_component=per_component, probe=probe, reference=reference
    )
    per_step = measure.measured()
    return RolloutErrors(
        name=truth.name,
        time=rollout.times,
        steps=per_step,
        horizons=errors_at_horizons(per_step, horizons, cumulative),
        oscillations=_oscillations(per_step, rollout),
        diverged_at=rollout.diverged_at,
    )


def _oscillations(steps: dict[str, np.ndarray], rollout: MatchedRollout) -> dict[str, Oscillation]:
    """Of the steps before a divergence, where they are enough for a spectrum."""
    stop = rollout.reached
    if stop < SHORTEST_SIGNAL:
        return {}
    time_step = float(np.median(np.diff(rollout.times)))
    return {
        name: compare_oscillations(steps[name][:stop], steps[f"{name}_truth"][:stop], time_step)
        for name in SIGNALS
        if name in steps
    }
