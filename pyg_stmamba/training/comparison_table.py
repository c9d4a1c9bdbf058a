from __future__ import annotations

import csv
import inspect
import io
import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pyg_stmamba.models import STMamba

from .cost import Cost
from .fit import fit
from .operator_runs import OperatorRun
from .run_folder import RunFolder
from .score_table import lead_time

Row = dict[str, Any]


def comparison_rows(
    runs: Sequence[OperatorRun], costs: Mapping[tuple[str, str], Cost]
) -> list[Row]:
    r"""Returns one row for each combination of operators, that with the lowest test error first;
    errors are means over its runs.

    Args:
        runs (Sequence[OperatorRun]): Finished trainings.
        costs (Mapping[tuple[str, str], Cost]): What each combination costs.
    """
    groups: dict[tuple[str, str], list[OperatorRun]] = {}
    for run in runs:
        groups.setdefault((run.temporal, run.spatial), []).append(run)
    rows = [_row(group, costs[pair]) for pair, group in groups.items()]
    return sorted(rows, key=_error_of)


def as_markdown(results: Mapping[str, Any]) -> str:
    r"""Writes a comparison as a table, the baselines below, and what it takes to repeat it.

    Args:
        results (Mapping[str, Any]): The content of :obj:`comparison.json`.
    """
    rows, baselines = results["combinations"], results["baselines"]
    steps = list(rows[0]["test"]["horizons"])
    head = [
        *("temporal", "spatial"),
        *(f"MAE {lead_time(int(step), results['step_seconds'])}" for step in steps),
        *("MAE", "RMSE", "validation MAE", "epochs", "parameters"),
        *("training [s / 1,000 windows]", "inference [ms / window]"),
    ]
    lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2)]
    for row in rows:
        mae, rmse, *ahead = _errors(row["test"], steps)
        spread = "" if row["mae_std"] is None else f" ± {row['mae_std']:.3f}"
        lines.append(
            [
                *(row["temporal"], row["spatial"], *ahead, mae + spread, rmse),
                *(f"{row['val_mae']:.3f}", f"{row['epochs']:g}", f"{row['parameters']:,}"),
                f"{row['train_seconds_per_1000_windows']:.3g}",
                f"{row['inference_milliseconds_per_window']:.3g}",
            ]
        )
    for name, scores in baselines.items():
        mae, rmse, *ahead = _errors(scores, steps)
        lines.append([name.replace("_", " "), "", *ahead, mae, rmse, *["–"] * 5])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n" + "\n".join(f"- {note}" for note in _notes(results)) + "\n"


def as_csv(results: Mapping[str, Any]) -> str:
    r"""Writes one line for each combination, with all digits.

    Args:
        results (Mapping[str, Any]): The content of :obj:`comparison.json`.
    """
    text = io.StringIO(newline="")
    rows = []
    for row in results["combinations"]:
        test = row["test"]
        errors = dict(test["average"])
        for step, scores in test["horizons"].items():
            errors |= {f"{name}_step_{step}": value for name, value in scores.items()}
        operators = {kind: row[kind] for kind in ("temporal", "spatial")}
        rows.append({**operators, **errors, **{k: v for k, v in row.items() if k != "test"}})
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(runs: Sequence[OperatorRun], cost: Cost) -> Row:
    metrics = [json.loads(RunFolder(run.path).metrics.read_text(encoding="utf-8")) for run in runs]
    test = _mean([each["test"] for each in metrics])
    errors = [each["test"]["average"]["mae"] for each in metrics]
    return {
        "temporal": runs[0].temporal,
        "spatial": runs[0].spatial,
        "test": test,
        "mae_std": statistics.stdev(errors) if len(errors) > 1 else None,
        "val_mae": statistics.fmean(_validation_error(run) for run in runs),
        "epochs": _mean([each["epochs"] for each in metrics]),
        "seconds": _mean([each["seconds"] for each in metrics]),
        "parameters": cost.parameters,
        "train_seconds_per_1000_windows": cost.train_seconds,
        "inference_milliseconds_per_window": cost.inference_milliseconds,
        "runs": len(runs),
    }


def _validation_error(run: OperatorRun) -> float:
    r"""The lowest one of all epochs, which is that of the epoch that was kept."""
    with RunFolder(run.path).history.open(newline="", encoding="utf-8") as file:
        errors = [float(row["val_mae"]) for row in csv.DictReader(file)]
    return min(error for error in errors if math.isfinite(error))


def _mean(values: Sequence[Any]) -> Any:
    if isinstance(values[0], Mapping):
        return {name: _mean([value[name] for value in values]) for name in values[0]}
    return statistics.fmean(values)


def _error_of(row: Row) -> float:
    error = row["test"]["average"]["mae"]
    return error if math.isfinite(error) else math.inf


def _errors(scores: Mapping[str, Any], steps: Sequence[str]) -> list[str]:
    average = scores["average"]
    errors = [average["mae"], average["rmse"], *(scores["horizons"][step]["mae"] for step in steps)]
    return [f"{error:.3f}" for error in errors]


def _notes(results: Mapping[str, Any]) -> Iterator[str]:
    settings, windows = results["settings"], results["windows"]
    unit = f" in {results['unit']}" if results["unit"] else ""
    yield (
        f"errors{unit}: masked, on the {windows['test']:,} test windows, of the epoch with the "
        f"lowest error on the {windows['val']:,} validation windows; without a time ahead they "
        "are averages over the horizon"
    )
    budget = f"{settings['max_epochs']} epochs"
    if settings["minutes_each"] is not None:
        budget = f"{settings['minutes_each']:.3g} minutes on one thread"
    seeds = ", ".join(map(str, settings["seeds"]))
    yield f"training: {budget} each, seed {seeds}, {_unusual(settings['training'], fit)}"
    yield f"model: {_unusual(settings['model'], STMamba)}"
    yield (
        "costs: a training step and a forecast of a batch, after all trainings, in turn on one "
        "thread, median"
    )
    yield f"hardware: {results['device']}"
    yield f"versions: {', '.join(f'{name} {value}' for name, value in results['versions'].items())}"
    for run, reason in results["failures"].items():
        yield f"failed: {run}: {reason}"


def _unusual(options: Mapping[str, Any], function: Callable) -> str:
    r"""Lists the options that are not the defaults of what takes them."""
    usual = {name: item.default for name, item in inspect.signature(function).parameters.items()}
    # As they come back from a file: with lists for tuples.
    usual = {
        name: list(value) if isinstance(value, tuple) else value for name, value in usual.items()
    }
    changed = [f"{name}={value}" for name, value in options.items() if value != usual[name]]
    return ", ".join(changed) + " and the defaults" if changed else "the defaults"
