"""The errors of rollouts, a model's beside the baselines', in tables and words for a page."""

import math
from collections.abc import Mapping
from typing import Any

from pyg_stmamba.visualization.page import heading, paragraph, score_table

SCORES = {
    "velocity": {
        "one_step_rmse": "RMSE of single steps",
        "velocity_rmse": "RMSE",
        "velocity_relative_l2": "relative L2",
        "vorticity_rmse": "RMSE of the vorticity",
    },
    "pressure": {
        "pressure_rmse": "RMSE",
        "pressure_rmse_gauge_free": "RMSE, gauge-free",
        "pressure_relative_l2": "relative L2",
    },
    "whole flow": {
        "drag_error": "drag",
        "lift_error": "lift",
        "kinetic_energy_error": "kinetic energy",
    },
}
COUNTS = ("rollouts", "diverged")
BESIDE_TRUTH = ("divergence_rms", "divergence_rms_truth")


def score_sections(model: str, metrics: Mapping[str, Any]) -> list[str]:
    r"""The sentence and the tables that answer whether the run was worth it.

    Args:
        model: The name of the model.
        metrics: What :obj:`metrics.json` holds: :obj:`"test"` and :obj:`"baselines"` with scores
            by metric and horizon, and :obj:`"measure"`, how they were measured.
    """
    test = {name: part for name, part in (metrics.get("test") or {}).items() if part}
    if not any(name not in COUNTS for name in test):
        return [paragraph("metrics.json holds no results on a test set.")]
    methods = {model: test}
    for name, scores in (metrics.get("baselines") or {}).items():
        methods[name.replace("_", " ")] = scores
    sections = [paragraph(_verdict(methods), "lead"), heading("Errors of the rollouts")]
    for kind, titles in (*SCORES.items(), ("other fields", _others(test))):
        there = {metric: title for metric, title in titles.items() if metric in test}
        if there:
            sections += [paragraph(kind.capitalize()), _table(methods, there)]
    sections.append(paragraph(_definition(metrics.get("measure") or {}), "faint"))
    return sections + [
        paragraph(line) for line in (_failures(methods), _divergence(methods)) if line
    ]


def _others(test: Mapping[str, Any]) -> dict[str, str]:
    known = {metric for titles in SCORES.values() for metric in titles}
    return {
        metric: metric.replace("_", " ")
        for metric in test
        if metric not in known and metric not in COUNTS and metric not in BESIDE_TRUTH
    }


def _table(methods: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    test = next(iter(methods.values()))
    horizons = {metric: list(test[metric]) for metric in titles}
    return score_table(
        {title: [_steps(h) for h in horizons[metric]] for metric, title in titles.items()},
        {
            name: [
                _finite((scores.get(metric) or {}).get(horizon))
                for metric in titles
                for horizon in horizons[metric]
            ]
            for name, scores in methods.items()
        },
        [".3g"] * sum(map(len, horizons.values())),
    )


def _steps(horizon: str) -> str:
    return "all steps" if horizon == "all" else f"{horizon} step" + "s" * (horizon != "1")


def _verdict(methods: Mapping[str, Mapping[str, Any]]) -> str:
    """One sentence on the velocity, or the first metric, over the longest horizon."""
    test = next(iter(methods.values()))
    metric = "velocity_rmse" if "velocity_rmse" in test else next(iter(test))
    horizon = list(test[metric])[-1]
    what = f"{metric.replace('_', ' ').replace('rmse', 'RMSE')} over {_steps(horizon)}"
    values = {
        name: _finite((part.get(metric) or {}).get(horizon)) for name, part in methods.items()
    }
    (model, own), *others = values.items()
    if not math.isfinite(own):
        return f"{model}: the {what} is not a number, {_count(test, horizon)}."
    rivals = [(value, name) for name, value in others if math.isfinite(value)]
    if not rivals:
        return f"{model}: {what} {own:.3g}; no baseline beside it."
    best, name = min(rivals)
    if best == 0 or own == best:
        return f"{model}: {what} {own:.3g}; the best baseline ({name}) has {best:.3g}."
    way = "below" if own < best else "above"
    return f"{model}: {what} {own:.3g}, {abs(own / best - 1):.1%} {way} {name} ({best:.3g})."


def _count(scores: Mapping[str, Any], horizon: str) -> str:
    failed = (scores.get("diverged") or {}).get(horizon, 0)
    total = (scores.get("rollouts") or {}).get(horizon, 0)
    return f"{failed} of {total} rollouts diverged"


def _failures(methods: Mapping[str, Mapping[str, Any]]) -> str:
    counts = {
        name: _count(scores, list(scores["diverged"])[-1])
        for name, scores in methods.items()
        if any((scores.get("diverged") or {}).values())
    }
    if not counts:
        return ""
    told = "; ".join(f"{name}: {count}" for name, count in counts.items())
    return f"{told}. A score that a diverged rollout is part of is infinite and shown as –."


def _divergence(methods: Mapping[str, Mapping[str, Any]]) -> str:
    """Not a score: that of the truth, between the nodes of a mesh, is not 0 either."""
    told = []
    for name, scores in methods.items():
        own, true = (
            list((scores.get(metric) or {"": None}).values())[-1] for metric in BESIDE_TRUTH
        )
        if own is not None and true is not None:
            told.append(f"{own:.3g} {name}")
            truth = f"{true:.3g} truth"
    return f"Divergence of the velocity, RMS: {', '.join([*told, truth])}." if told else ""


def _definition(measure: Mapping[str, Any]) -> str:
    """What the numbers are; codes differ in it."""
    nodes = measure.get("nodes", ())
    counted = (
        f"the nodes of type {' and '.join(nodes)}" if nodes else "the nodes that are predicted"
    )
    if nodes is None:
        counted = "all nodes"
    steps = (
        "over all steps up to the horizon"
        if measure.get("cumulative", True)
        else "at the last step of the horizon"
    )
    vectors = (
        "means over components too"
        if measure.get("per_component", False)
        else "of the length of the error vector"
    )
    return (
        f"Errors are root mean squares over {counted}, {steps}, {vectors}, then means over the "
        "test trajectories. Relative L2 weighs nodes by the area around them. Less is better; the "
        "least of each column is in bold."
    )


def _finite(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
