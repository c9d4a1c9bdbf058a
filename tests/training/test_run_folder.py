import csv
import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pyg_stmamba.training.run_folder import RunFolder, WholeCheckpoints, versions


class FailsMidway:
    def __reduce__(self):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_checkpoint_that_fails_midway_leaves_the_old_one(tmp_path: Path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"epoch": 1, "weight": torch.ones(100)}, path)
    with pytest.raises(OSError, match="No space"):
        WholeCheckpoints().save_checkpoint({"epoch": 2, "weight": FailsMidway()}, path)
    assert WholeCheckpoints().load_checkpoint(path)["epoch"] == 1
    assert [item.name for item in path.parent.iterdir()] == ["last.ckpt"]


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path):
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": Path("x")}, path)
    with pytest.raises(Exception, match="Weights only load failed"):
        WholeCheckpoints().load_checkpoint(path)


def test_files_hold_what_was_written(tmp_path: Path):
    folder = RunFolder(tmp_path / "runs" / "one")
    config = {"max_time": "00:30:00", "model": {"name": "st-mamba", "spatial": None}, "split": [1]}
    rows = [{"epoch": 1, "val_mae": 0.1 + 0.2}, {"epoch": 2, "val_mae": float("nan")}]
    folder.write_config(config)
    folder.write_versions()
    folder.write_history(rows)
    folder.write_metrics({"seed": 3})
    folder.write_forecasts({"prediction": np.arange(3.0)})
    assert yaml.safe_load(folder.config.read_text()) == config
    assert json.loads(folder.versions.read_text()) == versions()
    with folder.history.open(newline="") as file:
        read = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert read[0] == rows[0]
    assert np.isnan(read[1]["val_mae"])
    assert json.loads(folder.metrics.read_text()) == {"seed": 3}
    assert np.load(folder.forecasts)["prediction"].tolist() == [0, 1, 2]
    assert not list(folder.path.rglob("*.tmp"))


def test_versions_name_this_package_and_torch():
    assert versions()["torch"] == torch.__version__
    assert set(versions()) >= {"pyg-stmamba", "python", "torch-geometric", "lightning"}
