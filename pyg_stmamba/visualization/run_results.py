"""What a finished run left in its folder, read leniently: a missing piece is noted, not fatal."""

import csv
import json
import math
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class RunResults(NamedTuple):
    """The pieces of a run; those that are missing are empty, with the reason in :obj:`left_out`."""

    path: Path
    metrics: dict[str, Any]
    history: dict[str, np.ndarray]
    forecasts: dict[str, np.ndarray]
    configuration: str
    left_out: list[str]

    @property
    def model(self) -> str:
        return str(self.metrics.get("model") or "model")

    @property
    def channel(self) -> str:
        return str(self.forecasts.get("channel", "")) or "value"

    @property
    def unit(self) -> str:
        return str(self.forecasts.get("unit", ""))

    @property
    def step_seconds(self) -> float | None:
        """Seconds from one step to the next, if the run knows them."""
        seconds = float(self.forecasts.get("step_seconds", 0))
        return seconds if math.isfinite(seconds) and seconds > 0 else None


def read_run_results(path: Path) -> RunResults:
    r"""Reads :obj:`metrics.json`, :obj:`metrics.csv`, :obj:`forecasts.npz` and
    :obj:`config.yaml`, whichever are there.

    Args:
        path (pathlib.Path): Folder that a training or an evaluation wrote.

    Raises:
        FileNotFoundError: If it is not a folder or holds none of the four files.
    """
    path = Path(path)
    readers = {
        "metrics.json": _read_metrics,
        "metrics.csv": _read_history,
        "forecasts.npz": _read_forecasts,
        "config.yaml": _read_text,
    }
    if not any((path / name).is_file() for name in readers):
        raise FileNotFoundError(
            f"asked for a report of '{path}', which "
            + ("is no folder" if not path.is_dir() else "holds no results")
            + f"; a run's folder holds {', '.join(readers)}"
        )
    pieces: dict[str, Any] = {}
    left_out = []
    for name, read in readers.items():
        pieces[name] = "" if name == "config.yaml" else {}
        if not (path / name).is_file():
            left_out.append(f"{name} is not in the folder")
            continue
        try:
            pieces[name] = read(path / name)
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            left_out.append(f"{name} cannot be read: {error}")
    metrics, history, forecasts, configuration = pieces.values()
    return RunResults(path, metrics, history, forecasts, configuration, left_out)


def _read_metrics(path: Path) -> dict[str, Any]:
    metrics = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(metrics, dict):
        raise ValueError(f"it holds a {type(metrics).__name__}, not a table of results")
    return metrics


def _read_history(path: Path) -> dict[str, np.ndarray]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return {}
    columns = [name for name in rows[0] if name]
    return {name: np.array([_number(row[name]) for row in rows]) for name in columns}


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _read_forecasts(path: Path) -> dict[str, np.ndarray]:
    # Opened here, because numpy leaves a broken archive open.
    with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
