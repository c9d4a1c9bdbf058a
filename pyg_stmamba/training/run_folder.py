from __future__ import annotations

import csv
import importlib.metadata
import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lightning.pytorch.plugins.io import TorchCheckpointIO

from pyg_stmamba.data.whole_file import written_whole


class RunFolder:
    r"""The files of one training run.

    .. code-block:: none

        config.yaml            the options, readable by ``pyg-stmamba train --config``
        versions.json          the versions that ran
        metrics.csv            one row an epoch
        checkpoints/best.ckpt  the epoch with the lowest validation error
        checkpoints/last.ckpt  the last finished epoch, from which a run resumes
        metrics.json           errors on the test set, beside those of the baselines
        forecasts.npz          forecasts and truth of the test set, for pictures

    Each file is written under a temporary name and then renamed, so that a kill or a full disk
    leaves the file that was there.

    Args:
        path (str or Path): The folder; made at the first write.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.versions = self.path / "versions.json"
        self.history = self.path / "metrics.csv"
        self.metrics = self.path / "metrics.json"
        self.forecasts = self.path / "forecasts.npz"
        self.best = self.path / "checkpoints" / "best.ckpt"
        self.last = self.path / "checkpoints" / "last.ckpt"

    def write_config(self, config: Mapping[str, Any]) -> None:
        with written_whole(self.config) as path:
            path.write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")

    def write_versions(self) -> None:
        write_json(self.versions, versions())

    def write_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        r"""Writes the whole table of epochs anew."""
        with (
            written_whole(self.history) as path,
            path.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, list(rows[0]) if rows else [])
            writer.writeheader()
            writer.writerows(rows)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        write_json(self.metrics, metrics)

    def write_forecasts(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.write_arrays(self.forecasts.name, arrays)

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        r"""Writes a :obj:`.npz` file into the folder."""
        with written_whole(self.path / name) as path, path.open("wb") as file:
            np.savez_compressed(file, **dict(arrays))  # type: ignore[arg-type]

    def copy_last_to_best(self) -> None:
        with written_whole(self.best) as path:
            shutil.copyfile(self.last, path)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({str(self.path)!r})"


class WholeCheckpoints(TorchCheckpointIO):
    r"""Writes the checkpoints of Lightning under a temporary name first, and reads them with
    :obj:`weights_only=True`."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        with written_whole(path) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any | None = "cpu",
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)


def versions() -> dict[str, str]:
    r"""Returns the versions of this package and of what it computes with."""
    from pyg_stmamba import __version__

    names = ("torch", "torch-geometric", "lightning", "numpy")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"pyg-stmamba": __version__, "python": platform.python_version(), **found}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    r"""Writes a :obj:`.json` file as a whole."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
