import io
import json

import numpy as np
import pytest

from pyg_stmamba.training.mesh.horizon_errors import errors_at_horizons
from pyg_stmamba.training.mesh.rollout_errors import RolloutErrors
from pyg_stmamba.training.mesh.rollout_table import (
    format_rollout_table,
    rollout_arrays,
    rollout_scores,
    rollout_summaries,
)
from pyg_stmamba.training.mesh.spectrum import Oscillation, PhaseLag


def errors(name, values, diverged_at=None, **others):
    steps = {"velocity_rmse": np.array(values, dtype=float), **others}
    return RolloutErrors(
        name,
        2.0 + 0.1 * np.arange(len(values)),
        steps,
        errors_at_horizons(steps, (1, 3, None)),
        {"lift": Oscillation(3.0, np.nan, PhaseLag(0.1, 0.3, 0.9))},
        diverged_at,
    )


GOOD = errors("good", [1, 1, 1, 3])
WORSE = errors("worse", [3, 3, 3, 3])
FAILED = errors("failed", [1, 1, np.inf, np.inf], 3)
SHORT = errors("short", [5, 5])


def test_scores_are_means_over_trajectories():
    scores = rollout_scores([GOOD, WORSE])
    assert scores["velocity_rmse"] == pytest.approx({"1": 2, "3": 2, "all": (3**0.5 + 3) / 2})
    assert scores["rollouts"] == {"1": 2, "3": 2, "all": 2}
    assert scores["diverged"] == {"1": 0, "3": 0, "all": 0}


def test_a_failure_is_counted_and_never_averaged_away():
    scores = rollout_scores([GOOD, FAILED])
    assert scores["velocity_rmse"] == {"1": 1, "3": None, "all": None}
    assert scores["diverged"] == {"1": 0, "3": 1, "all": 1}


def test_a_short_rollout_counts_where_it_reaches():
    scores = rollout_scores([SHORT, WORSE])
    assert list(scores["velocity_rmse"]) == ["1", "3", "all"]
    assert scores["velocity_rmse"] == pytest.approx({"1": 4, "3": 3, "all": 4})
    assert scores["rollouts"] == {"1": 2, "3": 1, "all": 2}


def test_a_metric_that_not_all_have_has_no_mean():
    with_heat = errors("heat", [1, 1, 1, 1], heat_rmse=np.ones(4))
    assert rollout_scores([with_heat, GOOD])["heat_rmse"] == {"1": None, "3": None, "all": None}


def test_arrays_for_the_file():
    arrays = rollout_arrays({"model": [GOOD, SHORT], "persistence": [WORSE, FAILED]})
    assert np.allclose(arrays["time"], [0.1, 0.2, 0.3, 0.4])
    assert arrays["names"].tolist() == ["good", "short"]
    assert arrays["methods"].tolist() == ["model", "persistence"]
    assert np.array_equal(
        arrays["model_velocity_rmse"], [[1, 1, 1, 3], [5, 5, np.nan, np.nan]], equal_nan=True
    )
    assert np.isposinf(arrays["persistence_velocity_rmse"][1, 2:]).all()
    file = io.BytesIO()
    np.savez(file, **arrays)
    file.seek(0)
    assert set(np.load(file, allow_pickle=False)) == set(arrays)
    one = rollout_arrays({"model": [errors("single", [1])]})
    assert one["time"].tolist() == [1]


def test_summaries_are_fit_for_strict_json():
    told = json.loads(json.dumps(rollout_summaries([GOOD, FAILED]), allow_nan=False))
    assert [part["name"] for part in told] == ["good", "failed"]
    assert [part["diverged_at"] for part in told] == [None, 3]
    assert [part["frames"] for part in told] == [4, 4]
    assert told[0]["horizons"]["3"]["velocity_rmse"] == 1
    assert told[1]["horizons"]["3"]["velocity_rmse"] is None
    assert told[0]["oscillations"]["lift"] == {
        "frequency": 3.0,
        "frequency_truth": None,
        "lag_seconds": 0.1,
        "lag_periods": 0.3,
        "correlation": 0.9,
    }
    json.dumps(rollout_scores([GOOD, FAILED]), allow_nan=False)


def test_a_table_for_the_terminal():
    text = format_rollout_table(
        rollout_scores([GOOD, WORSE]),
        {"mesh_graph_net": rollout_scores([GOOD, FAILED]), "other": {}},
        "mesh-simulator",
    )
    lines = text.splitlines()
    assert lines[0].split() == ["1", "step", "3", "steps", "all", "steps"]
    assert lines[1] == "velocity RMSE"
    assert lines[2].split() == ["mesh-simulator", "2", "2", "2.366"]
    assert " ".join(lines[3].split()) == "mesh graph net 1 1 of 2 diverged 1 of 2 diverged"
    assert lines[4].split() == ["other", "-", "-", "-"]
    assert len({len(line) for line in (lines[0], *lines[2:])}) == 1
    assert len(lines) == 5


def test_bad_input():
    with pytest.raises(ValueError, match="no trajectory was rolled out"):
        rollout_scores([])
    with pytest.raises(ValueError, match=r"same trajectories, got \{'model': 2, 'other': 1\}"):
        rollout_arrays({"model": [GOOD, WORSE], "other": [GOOD]})
    with pytest.raises(ValueError, match="no trajectory"):
        rollout_arrays({"model": []})
