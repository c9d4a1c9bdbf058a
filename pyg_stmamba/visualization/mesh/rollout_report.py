"""The report of a run on meshes: its pictures as files and one page that needs nothing beside
it."""

import base64
import math
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from pyg_stmamba.data.whole_file import written_whole
from pyg_stmamba.visualization.circumstances import circumstances, number
from pyg_stmamba.visualization.mesh.animation import animate_rollout
from pyg_stmamba.visualization.mesh.frame_pairs import frame_pairs
from pyg_stmamba.visualization.mesh.mesh_run_pictures import PICTURES, shown_field
from pyg_stmamba.visualization.mesh.mesh_run_results import MeshRunResults, read_mesh_run_results
from pyg_stmamba.visualization.mesh.rollout_scores import score_sections
from pyg_stmamba.visualization.page import (
    bullets,
    facts,
    heading,
    page,
    picture,
)
from pyg_stmamba.visualization.style import png

SHOWN_ELSEWHERE = ("test", "baselines", "versions", "rollouts", "windows", "measure")
LARGEST_ANIMATION = 2_000_000
ANIMATED_FRAMES = 40


def write_rollout_report(run_folder: str | Path) -> Path:
    r"""Draws a run's pictures and an animation into :obj:`pictures/` and writes them, with the
    errors beside the baselines' and everything needed to repeat the run, into one
    :obj:`report.html`.

    The page inlines its pictures and loads nothing. Whatever the run did not store is left out
    and named in the page.

    Args:
        run_folder (str or pathlib.Path): Folder with :obj:`metrics.json`, :obj:`metrics.csv`,
            :obj:`rollout_errors.npz`, :obj:`config.yaml`, and :obj:`rollouts/`, or some of them.

    Returns:
        pathlib.Path: The page.

    Raises:
        FileNotFoundError: If the folder holds none of these files.
    """
    run = read_mesh_run_results(run_folder)
    left_out = list(run.left_out)
    pictures = [*_animation(run, left_out), *_pictures(run, left_out)]
    sections = [
        *score_sections(run.model, run.metrics),
        *([heading("Pictures"), *pictures] if pictures else []),
    ]
    sections += _rollouts(run)
    sections += circumstances(run.metrics, run.versions, run.configuration, SHOWN_ELSEWHERE)
    if left_out:
        sections += [heading("Left out"), bullets(left_out)]
    path = run.path / "report.html"
    with written_whole(path) as temporary:
        temporary.write_text(page(f"Run {run.path.resolve().name}", sections), encoding="utf-8")
    return path


def _pictures(run: MeshRunResults, left_out: list[str]) -> list[str]:
    figures = []
    for name, (draw, caption) in PICTURES.items():
        path = run.path / "pictures" / f"{name}.png"
        try:
            drawn = png(draw(run))
        except ValueError as reason:
            left_out.append(f"{name.replace('_', ' ')}: {reason}")
            path.unlink(missing_ok=True)
            continue
        with written_whole(path) as temporary:
            temporary.write_bytes(drawn)
        figures.append(picture(drawn, name.replace("_", " "), caption))
    return figures


def _animation(run: MeshRunResults, left_out: list[str]) -> list[str]:
    """A short one; where it grows too large for a page, with fewer frames and colours."""
    if not run.rollouts:
        return []
    name, (prediction, truth) = next(iter(run.rollouts.items()))
    path = run.path / "pictures" / "animation.gif"
    field = shown_field(truth)
    try:
        every = math.ceil(len(frame_pairs(prediction, truth)) / ANIMATED_FRAMES)
        for colors, skip in ((64, every), (32, 2 * every), (16, 4 * every)):
            animate_rollout(
                prediction,
                truth,
                path,
                field=field,
                every=skip,
                width=640,
                colors=colors,
                progress=False,
            )
            if path.stat().st_size <= LARGEST_ANIMATION:
                break
        else:
            left_out.append("animation: it is larger than 2 MB, see pictures/animation.gif")
            return []
    except ValueError as reason:
        left_out.append(f"animation: {reason}")
        path.unlink(missing_ok=True)
        return []
    caption = (
        f"{field.capitalize()} of trajectory {truth.name or name}: prediction, truth and their "
        "difference on one colour scale" + (f", one of {skip} frames." if skip > 1 else ".")
    )
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return [
        f'<figure><img alt="animation" src="data:image/gif;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    ]


def _rollouts(run: MeshRunResults) -> list[str]:
    rows = [
        (str(rollout.get("name") or place), _rollout(rollout))
        for place, rollout in enumerate(run.metrics.get("rollouts") or [])
    ]
    return [heading("Trajectories"), facts(rows)] if rows else []


def _rollout(rollout: Mapping[str, Any]) -> str:
    told = [f"{rollout.get('frames', '?')} steps"]
    if rollout.get("diverged_at") is not None:
        told.append(f"diverged at step {rollout['diverged_at']}")
    for signal, found in (rollout.get("oscillations") or {}).items():
        frequencies = [number(found.get(name)) for name in ("frequency", "frequency_truth")]
        if not math.isfinite(frequencies[1]):
            continue
        own = f"{frequencies[0]:.3g} Hz" if math.isfinite(frequencies[0]) else "no oscillation"
        line = f"{signal.replace('_', ' ')} {own} (truth {frequencies[1]:.3g} Hz)"
        lag, periods = number(found.get("lag_seconds")), number(found.get("lag_periods"))
        if math.isfinite(lag):
            way = "late" if lag >= 0 else "early"
            line += f", {way} by {abs(lag):.3g} s or {abs(periods):.2f} periods"
        told.append(line)
    return "; ".join(told)
