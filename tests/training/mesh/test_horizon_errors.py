import numpy as np
import pytest

from pyg_stmamba.training.mesh.horizon_errors import errors_at_horizons, is_scored

STEPS = {
    "velocity_rmse": np.array([3.0, 4.0, 0.0, 12.0]),
    "velocity_relative_l2": np.array([0.5, 0.25, np.nan, 0.1]),
    "velocity_l2": np.array([1.0, 2.0, 2.0, 4.0]),
    "velocity_l2_truth": np.array([2.0, 8.0, 0.0, 40.0]),
    "lift": np.array([0.0, 1.0, 2.0, 3.0]),
    "lift_truth": np.array([0.0, 1.0, 2.0, 3.0]),
    "lift_error": np.zeros(4),
    "divergence_rms_truth": np.ones(4),
}


def test_a_horizon_is_the_root_mean_square_up_to_it():
    found = errors_at_horizons(STEPS, (1, 2, None))
    assert list(found) == ["1", "2", "all"]
    assert [part["velocity_rmse"] for part in found.values()] == pytest.approx(
        [3, np.sqrt(12.5), 6.5]
    )


def test_a_relative_error_is_that_of_the_norms():
    found = errors_at_horizons(STEPS, (1, 2, 4))
    wanted = [0.5, np.sqrt(5 / 68), np.sqrt(25 / 1668)]
    assert [part["velocity_relative_l2"] for part in found.values()] == pytest.approx(wanted)


def test_or_the_error_of_the_step_alone():
    found = errors_at_horizons(STEPS, (2, 4, None), cumulative=False)
    assert [part["velocity_rmse"] for part in found.values()] == [4, 12, 12]
    assert [part["velocity_relative_l2"] for part in found.values()] == pytest.approx(
        [0.25, 0.1, 0.1]
    )
    assert np.isnan(errors_at_horizons(STEPS, (3,), False)["3"]["velocity_relative_l2"])


def test_what_diverged_is_infinite():
    steps = {"velocity_rmse": np.array([1.0, 1.0, np.inf, np.inf])}
    found = errors_at_horizons(steps, (2, 3, None))
    assert [part["velocity_rmse"] for part in found.values()] == [1, np.inf, np.inf]


def test_only_errors_have_horizons():
    metrics = errors_at_horizons(STEPS, (1,))["1"]
    assert set(metrics) == {
        "velocity_rmse",
        "velocity_relative_l2",
        "lift_error",
        "divergence_rms_truth",
    }
    assert not is_scored("velocity_l2")


def test_a_horizon_beyond_the_rollout_is_left_out():
    assert list(errors_at_horizons(STEPS, (4, 5, 100, None))) == ["4", "all"]


def test_bad_input():
    with pytest.raises(ValueError, match="at least 1 step, or None for all, got 0"):
        errors_at_horizons(STEPS, (0,))
