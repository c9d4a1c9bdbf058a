import json
import math
from pathlib import Path

import numpy as np
import pytest

from pyg_stmamba.visualization.run_results import read_run_results


def test_a_whole_run_is_read(make_run) -> None:
    folder = make_run(samples=30, nodes=4, epochs=5)
    run = read_run_results(folder)
    assert run.left_out == []
    assert run.metrics["parameters"] == 131337
    assert (run.unit, run.channel, run.step_seconds, run.model) == ("mph", "speed", 300, "model")
    np.testing.assert_array_equal(run.history["epoch"], np.arange(5))
    assert run.history["val_mae"][0] == pytest.approx(5.0)
    assert run.forecasts["prediction"].shape == (30, 4, 12)
    assert "channels: 64" in run.configuration


@pytest.mark.parametrize("name", ["metrics.json", "metrics.csv", "forecasts.npz", "config.yaml"])
def test_missing_and_broken_pieces_are_noted(make_run, name: str) -> None:
    folder = make_run(samples=5, nodes=2)
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    assert read_run_results(folder).left_out == [f"{name} is not in the folder"]
    (folder / name).write_bytes(b"\xff\xfe" + content[: len(content) // 2])
    left_out = read_run_results(folder).left_out
    assert len(left_out) == 1
    assert left_out[0].startswith(f"{name} cannot be read: ")


def test_a_truncated_array_file_is_noted(make_run) -> None:
    folder = make_run(samples=5, nodes=2)
    path = folder / "forecasts.npz"
    path.write_bytes(path.read_bytes()[:-100])
    assert "forecasts.npz cannot be read" in read_run_results(folder).left_out[0]


def test_pickled_objects_are_not_loaded(make_run) -> None:
    folder = make_run(samples=5, nodes=2)
    np.savez(folder / "forecasts.npz", prediction=np.array([{"a": 1}], dtype=object))
    assert "forecasts.npz cannot be read" in read_run_results(folder).left_out[0]


def test_empty_cells_are_not_numbers(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,train_loss,val_mae\n0,1.5,\n1,nan,2.5\n")
    history = read_run_results(tmp_path).history
    np.testing.assert_array_equal(history["train_loss"], [1.5, math.nan])
    np.testing.assert_array_equal(history["val_mae"], [math.nan, 2.5])


def test_metrics_that_are_no_table_are_noted(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps([1, 2]))
    assert "it holds a list, not a table" in read_run_results(tmp_path).left_out[0]


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"holds no results; a run's folder holds metrics\.json"
    ):
        read_run_results(tmp_path)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        read_run_results(tmp_path / "absent")
