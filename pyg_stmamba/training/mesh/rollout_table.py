from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pyg_stmamba.training.mesh.rollout_errors import RolloutErrors

Scores = dict[str, dict[str, float | None]]

TITLES = {
    "one_step_rmse": "velocity RMSE of single steps",
    "velocity_rmse": "velocity RMSE",
    "velocity_relative_l2": "velocity, relative L2",
    "pressure_rmse": "pressure RMSE",
    "pressure_rmse_gauge_free": "pressure RMSE, gauge-free",
    "pressure_relative_l2": "pressure, relative L2",
    "vorticity_rmse": "vorticity RMSE",
    "divergence_rms": "divergence, RMS",
    "divergence_rms_truth": "divergence of the truth, RMS",
    "kinetic_energy_error": "kinetic energy, error",
    "drag_error": "drag, error",
    "lift_error": "lift, error",
}


def rollout_scores(rollouts: Sequence[RolloutErrors]) -> Scores:
    r"""Takes the mean over trajectories of their errors over horizons.

    A rollout that diverged within a horizon has an infinite error there, and so has the mean: no
    failure hides behind those that went well. Such a score is :obj:`None`, as is one that no
    trajectory has; :obj:`"diverged"` counts the failures, :obj:`"rollouts"` the trajectories that
    are long enough for the horizon.

    Args:
        rollouts (sequence): The errors of each trajectory.

    Returns:
        dict[str, dict[str, float | None]]: The score of each metric by horizon, fit for JSON.

    Raises:
        ValueError: If there is no trajectory.
    """
    _check_some(rollouts)
    horizons = sorted({h for errors in rollouts for h in errors.horizons}, key=_horizon_order)
    metrics = dict.fromkeys(m for r in rollouts for part in r.horizons.values() for m in part)
    scores: Scores = {metric: {} for metric in [*metrics, "rollouts", "diverged"]}
    for horizon in horizons:
        there = [errors for errors in rollouts if horizon in errors.horizons]
        for metric in metrics:
            values = [errors.horizons[horizon].get(metric, np.nan) for errors in there]
            scores[metric][horizon] = _finite(float(np.mean(values)))
        scores["rollouts"][horizon] = len(there)
        scores["diverged"][horizon] = sum(_diverged_within(e, horizon) for e in there)
    return scores


def rollout_arrays(methods: Mapping[str, Sequence[RolloutErrors]]) -> dict[str, np.ndarray]:
    r"""Puts the metrics of every step into arrays for :obj:`rollout_errors.npz`.

    Args:
        methods (dict[str, sequence]): The errors of each trajectory by method; the same
            trajectories for all.

    Returns:
        dict[str, numpy.ndarray]: :obj:`time` since the start of each rollout
        :math:`(T)`, :obj:`names` of the trajectories :math:`(R)`, :obj:`methods` :math:`(M)`,
        and :obj:`<method>_<metric>` :math:`(R, T)`, not a number after the end of the shorter
        ones and where a trajectory lacks the metric.

    Raises:
        ValueError: If there is no trajectory, or methods differ in how many they have.
    """
    counts = {name: len(rollouts) for name, rollouts in methods.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"all methods need the same trajectories, got {counts}")
    first = next(iter(methods.values()))
    _check_some(first)
    longest = max(first, key=lambda errors: len(errors.time))
    arrays: dict[str, np.ndarray] = {
        "time": longest.time - longest.time[0] + _step_of(longest.time),
        "names": np.array([errors.name for errors in first]),
        "methods": np.array(list(methods)),
    }
    for method, rollouts in methods.items():
        for metric in dict.fromkeys(m for errors in rollouts for m in errors.steps):
            values = np.full((len(rollouts), len(longest.time)), np.nan, dtype=np.float32)
            for row, errors in zip(values, rollouts):
                found = errors.steps.get(metric, row)
                row[: len(found)] = found[: len(row)]
            arrays[f"{method}_{metric}"] = values
    return arrays


def rollout_summaries(rollouts: Sequence[RolloutErrors]) -> list[dict[str, Any]]:
    r"""Says of each trajectory how long it is, whether its rollout diverged, and how it
    oscillates, fit for JSON.

    Args:
        rollouts (sequence): The errors of each trajectory.
    """
    return [
        {
            "name": errors.name,
            "frames": len(errors.time),
            "diverged_at": errors.diverged_at,
            "horizons": {
                horizon: {metric: _finite(value) for metric, value in part.items()}
                for horizon, part in errors.horizons.items()
            },
            "oscillations": {
                signal: {
                    "frequency": _finite(found.frequency),
                    "frequency_truth": _finite(found.frequency_truth),
                    "lag_seconds": _finite(found.lag.seconds),
                    "lag_periods": _finite(found.lag.periods),
                    "correlation": _finite(found.lag.correlation),
                }
                for signal, found in errors.oscillations.items()
            },
        }
        for errors in rollouts
    ]


def format_rollout_table(
    scores: Scores, baselines: Mapping[str, Scores] | None = None, model: str = "model"
) -> str:
    r"""Writes the errors of a model and of the baselines as a table for a terminal: one block a
    metric, one line a method, one column a horizon.

    Args:
        scores (dict): The scores of the model, as :func:`rollout_scores` returns them.
        baselines (dict, optional): The scores of each baseline. (default: :obj:`None`)
        model (str, optional): The name of the model. (default: :obj:`"model"`)
    """
    methods = {model: scores}
    methods |= {name.replace("_", " "): part for name, part in (baselines or {}).items()}
    horizons = list(scores["rollouts"])
    width = max(len(name) for name in [*methods, *TITLES.values()]) + 2
    lines = ["".join([" " * width, *(f"{_horizon_title(horizon):>18}" for horizon in horizons)])]
    for metric in scores:
        if metric in ("rollouts", "diverged"):
            continue
        lines.append(TITLES.get(metric, metric.replace("_", " ")))
        for name, part in methods.items():
            cells = [_cell(part, metric, horizon) for horizon in horizons]
            lines.append(f"  {name:<{width - 2}}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


def _cell(scores: Scores, metric: str, horizon: str) -> str:
    value = scores.get(metric, {}).get(horizon)
    if value is not None:
        return f"{value:.4g}"
    failed = scores.get("diverged", {}).get(horizon)
    return f"{failed} of {scores['rollouts'][horizon]} diverged" if failed else "-"


def _horizon_title(horizon: str) -> str:
    return "all steps" if horizon == "all" else f"{horizon} step" + "s" * (horizon != "1")


def _horizon_order(horizon: str) -> float:
    return np.inf if horizon == "all" else int(horizon)


def _diverged_within(errors: RolloutErrors, horizon: str) -> bool:
    return errors.diverged_at is not None and errors.diverged_at <= _horizon_order(horizon)


def _step_of(times: np.ndarray) -> float:
    return float(np.median(np.diff(times))) if len(times) > 1 else 1.0


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _check_some(rollouts: Sequence[RolloutErrors]) -> None:
    if not rollouts:
        raise ValueError("no trajectory was rolled out, at least one is needed")
