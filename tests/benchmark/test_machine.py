import subprocess

import torch

from pyg_stmamba.benchmark import describe_machine, machine


def test_it_names_hardware_versions_commit_and_implementations(cpu):
    lines = describe_machine(cpu, "abc").splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        *("- hardware", "- versions", "- commit", "- ours")
    ]
    assert f"{torch.get_num_threads()} thread" in lines[0]
    assert f"torch {torch.__version__}" in lines[1]
    assert lines[2] == "- commit: abc"
    assert "selective_scan by " in lines[3]


def test_the_commit_of_the_checkout_and_of_no_other(monkeypatch, tmp_path):
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", tmp_path, *arguments], check=True, capture_output=True)

    package = tmp_path / "pyg_stmamba" / "benchmark"
    package.mkdir(parents=True)
    monkeypatch.setattr(machine, "__file__", str(package / "machine.py"))
    assert machine.checked_out_commit() is None
    git("init")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "-m", "a")
    commit = machine.checked_out_commit()
    assert commit is not None
    assert 7 <= len(commit) <= 40
    inside = tmp_path / "venv" / "pyg_stmamba" / "benchmark"
    inside.mkdir(parents=True)
    monkeypatch.setattr(machine, "__file__", str(inside / "machine.py"))
    assert machine.checked_out_commit() is None


def test_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert machine.checked_out_commit() is None
