import os
from pathlib import Path

import pytest
import torch

from pyg_stmamba.models import STMamba
from pyg_stmamba.training import operator_runs
from pyg_stmamba.training.operator_runs import OperatorRun, Recipe, one_thread, train_runs


@pytest.fixture
def recipe(graph, protocol) -> Recipe:
    model = {**STMamba.data_arguments(graph, protocol), "channels": 4, "num_layers": 1}
    return Recipe(graph, protocol, model, {"batch_size": 16}, None, 1, True, {})


def test_a_run_tells_where_it_stands(tmp_path):
    run = OperatorRun("mamba", "gat", 0, tmp_path / "mamba-gat")
    assert not run.is_finished
    assert run.failure == "not trained"
    run.fail("out of\nmemory")
    assert run.failure == "out of memory"
    (run.path / "metrics.json").write_text("{}")
    assert run.is_finished
    assert run.failure is None


def test_one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_process_that_dies_is_a_failure(recipe, tmp_path, monkeypatch):
    """As when memory runs out: nobody is left to write why."""

    def die(work, jobs, workers):
        assert workers == 2
        yield 1, -9
        work(*jobs[0])
        yield 0, 0

    monkeypatch.setattr(operator_runs, "in_processes", die)
    runs = [OperatorRun("none", place, 0, tmp_path / place) for place in ("none", "gat")]
    train_runs(recipe, runs, workers=2, progress=False)
    assert runs[0].is_finished
    assert runs[1].failure == "its process ended with exit code -9"
    # The next sitting leaves no trace of it.
    train_runs(recipe, runs, progress=False)
    assert runs[1].is_finished
    assert not (tmp_path / "gat" / "error.txt").exists()


def test_the_bar_counts_runs(recipe, tmp_path, capsys):
    run = OperatorRun("none", "none", 0, Path(tmp_path))
    for _ in range(2):
        train_runs(recipe, [run])
        assert "1/1" in capsys.readouterr().err


def test_processes_are_asked_for_only_where_there_are_several(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(operator_runs, "in_processes", None)
    run = OperatorRun("none", "none", 0, Path(tmp_path))
    train_runs(recipe, [run], workers=1, progress=False)
    assert run.is_finished
    assert os.listdir(tmp_path)
