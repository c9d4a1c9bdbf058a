"""The report of a run: its pictures as PNG files and one page that needs nothing beside it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyg_stmamba.data.whole_file import written_whole

from .circumstances import circumstances, number
from .lead_time import lead_time
from .page import bullets, facts, heading, page, paragraph, picture, score_table
from .run_pictures import PICTURES
from .run_results import RunResults, read_run_results
from .style import png

SCORES = {"mae": ".3f", "rmse": ".3f", "mape": ".2%"}
SHOWN_ELSEWHERE = ("test", "baselines", "versions", "windows")


def write_report(run_folder: str | Path) -> Path:
    r"""Draws a run's pictures into :obj:`pictures/` and writes them, with the metrics beside the
    baselines and everything needed to repeat the run, into one :obj:`report.html`.

    The page inlines its pictures and loads nothing. Whatever the run did not store is left out
    and named in the page.

    Args:
        run_folder (str or pathlib.Path): Folder with :obj:`metrics.json`, :obj:`metrics.csv`,
            :obj:`forecasts.npz` and :obj:`config.yaml`, or some of them.

    Returns:
        pathlib.Path: The page.

    Raises:
        FileNotFoundError: If the folder holds none of these files.
    """
    run = read_run_results(Path(run_folder))
    left_out = [*run.left_out, *_unknown(run)]
    figures = [heading("Pictures")]
    (run.path / "pictures").mkdir(exist_ok=True)
    for name, (draw, caption) in PICTURES.items():
        path = run.path / "pictures" / f"{name}.png"
        try:
            figure = draw(run)
        except ValueError as reason:
            left_out.append(f"{name.replace('_', ' ')}: {reason}")
            path.unlink(missing_ok=True)
            continue
        drawn = png(figure)
        with written_whole(path) as temporary:
            temporary.write_bytes(drawn)
        figures.append(picture(drawn, name.replace("_", " "), caption))
    sections = [*_scores(run), *(figures if len(figures) > 1 else []), *_circumstances(run)]
    if left_out:
        sections += [heading("Left out"), bullets(left_out)]
    path = run.path / "report.html"
    with written_whole(path) as temporary:
        temporary.write_text(page(f"Run {run.path.resolve().name}", sections), encoding="utf-8")
    return path


def _unknown(run: RunResults) -> list[str]:
    """What the pictures make do without."""
    unknown = []
    if "prediction" in run.forecasts and not _any(run, "start_timestamps"):
        unknown.append("dates: the data have no timestamps, so forecasts are shown by window")
    if "node_mae" in run.forecasts and not _any(run, "positions"):
        unknown.append("a true map: the nodes have no positions, so they are laid out by edges")
    average = (run.metrics.get("test") or {}).get("average") or {}
    if not all(math.isfinite(number(value)) for value in average.values()):
        unknown.append("errors that are not numbers, shown as –")
    return unknown


def _any(run: RunResults, name: str) -> bool:
    return name in run.forecasts and run.forecasts[name].size > 0


def _scores(run: RunResults) -> list[str]:
    """The sentence and the table that answer whether the run was worth it."""
    test = run.metrics.get("test") or {}
    if not test:
        return [paragraph("metrics.json holds no results on a test set.")]
    methods = {run.model: test}
    for name, scores in (run.metrics.get("baselines") or {}).items():
        methods[name.replace("_", " ")] = scores
    unit = run.unit
    rows: dict[str, list[float]] = {name: [] for name in methods}
    groups: dict[str, list[str]] = {}
    formats: list[str] = []
    for title, horizon in _reported(run, test):
        groups[title] = [name.upper() for name in SCORES]
        formats += SCORES.values()
        for method, scores in methods.items():
            part = (scores.get("horizons") or {}).get(horizon) if horizon else scores.get("average")
            rows[method] += [number((part or {}).get(name)) for name in SCORES]
    return [
        paragraph(_verdict(methods, unit), "lead"),
        heading("Errors on the test set"),
        score_table(groups, rows, formats),
        paragraph(
            (f"MAE and RMSE in {unit}. " if unit else "")
            + "Less is better; the least of each column is in bold.",
            "faint",
        ),
    ]


def _reported(run: RunResults, test: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Title and key of each reported horizon; no key means the average."""
    horizons = sorted(test.get("horizons") or {}, key=int)
    titles = [lead_time(int(step), run.step_seconds) for step in horizons]
    return [*zip(titles, horizons), ("average of all steps", None)]


def _verdict(methods: Mapping[str, Mapping[str, Any]], unit: str) -> str:
    averages = {
        name: number((scores.get("average") or {}).get("mae")) for name, scores in methods.items()
    }
    (model, own), *others = averages.items()
    others = [(name, value) for name, value in others if math.isfinite(value)]
    if not math.isfinite(own):
        return f"{model}: the average error on the test set is not a number."
    sentence = f"{model}: average absolute error {own:.3f} {unit}".rstrip()
    if not others:
        return sentence + "; no baseline beside it."
    name, best = min(others, key=lambda other: other[1])
    if best == 0 or own == best:
        return sentence + f"; the best baseline ({name}) has {best:.3f}."
    share = abs(own / best - 1)
    return sentence + (
        f", {share:.1%} {'below' if own < best else 'above'} the best baseline "
        f"({name}, {best:.3f})."
    )


def _circumstances(run: RunResults) -> list[str]:
    windows = run.metrics.get("windows") or {}
    of_data = [heading("Windows of data"), facts(list(windows.items()))] if windows else []
    versions = run.metrics.get("versions") or {}
    return of_data + circumstances(run.metrics, versions, run.configuration, SHOWN_ELSEWHERE)
