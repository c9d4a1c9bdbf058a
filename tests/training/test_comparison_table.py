import csv
import io
import json
import math
from pathlib import Path

import pytest

from pyg_stmamba.training.comparison_table import as_csv, as_markdown, comparison_rows
from pyg_stmamba.training.cost import Cost
from pyg_stmamba.training.operator_runs import OperatorRun


def scores(mae: float) -> dict:
    def score(value: float) -> dict:
        return {"mae": value, "rmse": 2 * value, "mape": value / 100}

    horizons = {"3": score(mae - 1), "12": score(mae + 1)}
    return {"horizons": horizons, "average": score(mae)}


@pytest.fixture
def make_run(tmp_path):
    def make(temporal: str, mae: float, validation=(8.0, 6.5, 7.0), seed: int = 0) -> OperatorRun:
        folder = tmp_path / f"{temporal}-{seed}"
        folder.mkdir()
        lines = [f"{number + 1},{value}" for number, value in enumerate(validation)]
        (folder / "metrics.csv").write_text("\n".join(["epoch,val_mae", *lines]))
        metrics = {"test": scores(mae), "epochs": len(validation), "seconds": 60.0}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        return OperatorRun(temporal, "gat", seed, Path(folder))

    return make


@pytest.fixture
def results(make_run) -> dict:
    runs = [make_run("mamba", 3.0), make_run("lost", math.nan), make_run("attention", 2.0)]
    runs.append(make_run("none", 5.0, (math.nan, 9.25)))
    costs = {
        (run.temporal, "gat"): Cost(1234 + number, 0.5 + number, 0.25 * (number + 1))
        for number, run in enumerate(runs)
    }
    return {
        "combinations": comparison_rows(runs, costs),
        "baselines": {"last_value": scores(4.0)},
        "settings": {
            "model": {"channels": 64, "num_layers": 1, "target_channels": [0]},
            "training": {"batch_size": 32, "milestones": [20, 30]},
            "minutes_each": 4.5,
            "max_epochs": None,
            "seeds": [0],
        },
        "windows": {"train": 24000, "val": 3400, "test": 6800},
        "step_seconds": 300,
        "unit": "mph",
        "failures": {"x-gat": "ValueError: no"},
        "device": "cpu (one)",
        "versions": {"torch": "2"},
    }


def test_the_lowest_test_error_comes_first_and_no_number_last(results):
    rows = results["combinations"]
    assert [row["temporal"] for row in rows] == ["attention", "mamba", "none", "lost"]
    assert [row["val_mae"] for row in rows] == [6.5, 6.5, 9.25, 6.5]
    assert [row["parameters"] for row in rows] == [1236, 1234, 1237, 1235]
    assert rows[0]["train_seconds_per_1000_windows"] == 2.5
    assert rows[0]["inference_milliseconds_per_window"] == 0.75
    assert rows[0]["test"] == scores(2.0)


def test_markdown(results):
    table, notes = as_markdown(results).split("\n\n")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert lines[0][:7] == [
        *("temporal", "spatial", "MAE 15 min", "MAE 60 min", "MAE", "RMSE", "validation MAE"),
    ]
    assert lines[0][7:9] == ["epochs", "parameters"]
    assert lines[0][9:] == ["training [s / 1,000 windows]", "inference [ms / window]"]
    assert lines[2] == [
        *("attention", "gat", "1.000", "3.000", "2.000", "4.000", "6.500", "3", "1,236"),
        *("2.5", "0.75"),
    ]
    assert [line[0] for line in lines[2:]] == ["attention", "mamba", "none", "lost", "last value"]
    assert lines[-1] == ["last value", "", "3.000", "5.000", "4.000", "8.000", *["–"] * 5]
    assert {len(line) for line in lines} == {11}
    for said in (
        "errors in mph: masked, on the 6,800 test windows, of the epoch with the lowest error on "
        "the 3,400 validation windows",
        "4.5 minutes on one thread each, seed 0, batch_size=32 and the defaults",
        "model: num_layers=1 and the defaults",
        "hardware: cpu (one)",
        "versions: torch 2",
        "failed: x-gat: ValueError: no",
    ):
        assert said in notes


def test_seeds_make_a_mean_and_its_spread(results, make_run):
    runs = [make_run("two", 3.0, seed=1), make_run("two", 4.0, (1.5,), seed=2)]
    (row,) = comparison_rows(runs, {("two", "gat"): Cost(1, 1.0, 1.0)})
    assert row["test"] == scores(3.5)
    assert row["mae_std"] == pytest.approx(0.5**0.5)
    assert row["val_mae"] == 4.0
    assert row["epochs"] == 2
    assert row["runs"] == 2
    text = as_markdown({**results, "combinations": [row]})
    assert "| two | gat | 2.500 | 4.500 | 3.500 ± 0.707 | 7.000 | 4.000 | 2 |" in text


def test_csv_keeps_all_digits(results):
    results["combinations"][0]["val_mae"] = 1 / 3
    rows = list(csv.DictReader(io.StringIO(as_csv(results))))
    assert [row["temporal"] for row in rows] == ["attention", "mamba", "none", "lost"]
    assert list(rows[0])[:5] == ["temporal", "spatial", "mae", "rmse", "mape"]
    assert float(rows[0]["val_mae"]) == 1 / 3
    assert float(rows[0]["mae"]) == 2.0
    assert float(rows[0]["rmse_step_12"]) == 6.0
    assert float(rows[0]["train_seconds_per_1000_windows"]) == 2.5
