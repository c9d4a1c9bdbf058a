from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCORES = {"MAE": "{:.3f}", "RMSE": "{:.3f}", "MAPE": "{:.2%}"}


def score_table(
    test: Mapping[str, Any],
    baselines: Mapping[str, Mapping[str, Any]],
    step_seconds: float | None = None,
    model: str = "model",
) -> str:
    r"""Writes the errors of a model and of the baselines as a table for a terminal.

    Args:
        test (dict): Errors of the model, as :func:`evaluate` returns them.
        baselines (dict): Errors of each baseline.
        step_seconds (float, optional): Length of a step; without it steps are numbered.
            (default: :obj:`None`)
        model (str, optional): Name of the model. (default: :obj:`"model"`)
    """
    rows = {model: test, **{name.replace("_", " "): value for name, value in baselines.items()}}
    titles = [lead_time(int(step), step_seconds) for step in test["horizons"]] + ["average"]
    width = max(len(name) for name in rows) + 2
    head = " " * width + "".join(f"{title:>27}" for title in titles)
    names = " " * width + "".join(f"{name:>9}" for name in SCORES) * len(titles)
    return "\n".join([head, names, *(_line(name, rows[name], width) for name in rows)])


def _line(name: str, scores: Mapping[str, Any], width: int) -> str:
    groups = [*scores["horizons"].values(), scores["average"]]
    cells = [form.format(group[key.lower()]) for group in groups for key, form in SCORES.items()]
    return f"{name:<{width}}" + "".join(f" {cell:>8}" for cell in cells)


def lead_time(steps: int, step_seconds: float | None) -> str:
    r"""Returns how far ahead a step of the horizon lies, in the words of a table."""
    if not step_seconds:
        return f"step {steps}"
    minutes = steps * step_seconds / 60
    return f"{minutes:g} min" if minutes < 120 else f"{minutes / 60:g} h"
