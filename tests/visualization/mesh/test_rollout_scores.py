import re

import pytest

from pyg_stmamba.visualization.mesh.rollout_scores import score_sections


def scores(rmse, diverged=0, **others):
    horizons = ("1", "100", "all")
    return {
        "velocity_rmse": dict(zip(horizons, rmse)),
        **{metric: dict(zip(horizons, values)) for metric, values in others.items()},
        "rollouts": dict.fromkeys(horizons, 4),
        "diverged": {"1": 0, "100": 0, "all": diverged},
    }


def words(sections) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", " ".join(sections)))


MODEL = scores((0.01, 0.05, 0.2))
STILL = scores((0.1, 0.3, 0.4))


def test_the_verdict_names_the_best_baseline():
    text = words(score_sections("ours", {"test": MODEL, "baselines": {"stand_still": STILL}}))
    assert "ours: velocity RMSE over all steps 0.2, 50.0% below stand still (0.4)." in text
    text = words(score_sections("ours", {"test": STILL, "baselines": {"other": MODEL}}))
    assert "ours: velocity RMSE over all steps 0.4, 100.0% above other (0.2)." in text
    assert "no baseline beside it" in words(score_sections("ours", {"test": MODEL}))
    first = {"one_step_rmse": {"1": 0.003}, **MODEL}
    text = words(score_sections("ours", {"test": first}))
    assert "ours: velocity RMSE over all steps 0.2; no" in text
    assert "Velocity RMSE of single steps RMSE 1 step 1 step" in text
    text = words(score_sections("ours", {"test": MODEL, "baselines": {"same": MODEL}}))
    assert "the best baseline (same) has 0.2." in text


def test_the_least_of_a_column_is_bold():
    html = "".join(score_sections("ours", {"test": MODEL, "baselines": {"still": STILL}}))
    assert re.findall(r"<b>(.*?)</b>", html) == ["0.01", "0.05", "0.2"]
    assert re.findall("<th>(.*?)</th>", html)[2:] == ["1 step", "100 steps", "all steps"]


def test_failures_are_told_and_never_best():
    failed = scores((0.001, 0.001, None), diverged=3)
    sections = score_sections("ours", {"test": MODEL, "baselines": {"rival": failed}})
    # The last column is ours alone.
    assert re.findall(r"<b>(.*?)</b>", "".join(sections)) == ["0.2", "0.001", "0.001"]
    assert "rival: 3 of 4 rollouts diverged. A score" in words(sections)
    text = words(score_sections("ours", {"test": failed, "baselines": {"still": STILL}}))
    assert "ours: the velocity RMSE over all steps is not a number, 3 of 4 rollouts div" in text
    assert "rollouts diverged" not in words(score_sections("ours", {"test": MODEL}))


def test_divergence_stands_beside_the_truths_and_is_no_score():
    beside = {"divergence_rms": (1, 1, 0.7), "divergence_rms_truth": (1, 1, 0.5)}
    test = scores((0.01, 0.05, 0.2), **beside)
    text = words(score_sections("ours", {"test": test, "baselines": {"still": STILL}}))
    assert "Divergence of the velocity, RMS: 0.7 ours, 0.5 truth." in text
    assert "divergence rms" not in text


def test_tables_by_kind_and_fields_without_one():
    test = scores((1, 1, 1), pressure_rmse=(2, 2, 2), lift_error=(3, 3, 3), heat_rmse=(4, 4, 4))
    text = words(score_sections("ours", {"test": test}))
    for piece in ("Velocity RMSE", "Pressure RMSE", "Whole flow lift", "Other fields heat rmse"):
        assert piece in text, piece


def test_the_definition_is_stated():
    text = words(score_sections("ours", {"test": MODEL}))
    assert "over the nodes that are predicted, over all steps up to the horizon" in text
    assert "of the length of the error vector" in text
    text = words(score_sections("ours", {"test": MODEL, "measure": {"nodes": ["a", "b"]}}))
    assert "over the nodes of type a and b, over" in text
    measure = {"nodes": None, "cumulative": False, "per_component": True}
    text = words(score_sections("ours", {"test": MODEL, "measure": measure}))
    assert "over all nodes, at the last step of the horizon, means over components too" in text


@pytest.mark.parametrize("test", [None, {}, {"rollouts": {"1": 3}}, {"velocity_rmse": {}}])
def test_no_results(test):
    assert "no results on a test set" in words(score_sections("ours", {"test": test}))
