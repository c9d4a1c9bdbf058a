import csv
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pyg_stmamba import cli, training, visualization
from pyg_stmamba.data import TemporalGraph
from pyg_stmamba.datasets import DATASETS

SMALL = [
    "--model=st-mamba",
    "--model.channels=4",
    "--model.num-layers=1",
    "--model.d_state=2",
    "--batch-size=16",
    "--window=6",
    "--horizon=4",
    "--split=[0.6,0.2,0.2]",
    "--progress=false",
]

PERFORMER = ["train", "--dataset=mine.npz", "--model=performer-forecaster"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty current folder, holding one's own data in both forms."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    values = 50 + 10 * np.sin(np.arange(120) / 4)[:, None] + rng.normal(size=(120, 3))
    times = np.datetime64("2024-01-01T00:00", "s") + 3600 * np.arange(120)
    edges = np.array([[0, 1], [1, 2]])
    np.savez("mine.npz", values=values, timestamps=times, edge_index=edges)
    with open("mine.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", "a", "b", "c"])
        writer.writerows([time, *row] for time, row in zip(times, values))
    Path("adjacency.csv").write_text("0,1,0\n0,0,1\n1,0,0\n")
    return tmp_path


@pytest.fixture
def fails(capsys):
    def run(*arguments: str) -> str:
        """The one line on standard error of a command that ends with code 2."""
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        out, err = capsys.readouterr()
        assert stop.value.code == 2
        assert out == ""
        assert err.endswith("\n")
        assert err.count("\n") == 1
        return err

    return run


def run_alone(*arguments: str) -> str:
    """What a command prints as a process of its own, which must end well and warn of nothing."""
    paths = [str(Path(cli.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-m", "pyg_stmamba.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def history(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_two_processes_train_the_same_model_as_one(here):
    """Half of each batch goes to each process, and the mean of their gradients is that of the
    whole batch, since no value is missing."""
    # 60 training windows: 30 for each process, in three batches of 10.
    train = ["train", "--dataset", "mine.npz", *SMALL, "--max-epochs=2", "--model.dropout=0"]
    train += ["--accelerator=cpu", "--baselines=false", "--split=[0.54,0.23,0.23]"]
    printed = run_alone(*train, "--batch-size=10", "--devices=2", "--out=two")
    assert printed.count("Errors on the test set") == 1
    assert printed.count("Report: ") == 1
    run_alone(*train, "--batch-size=20", "--devices=1", "--out=one")
    one, two = (json.loads((here / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert one["windows"] == two["windows"]
    assert one["windows"]["train"] == 60
    assert two["device"] == f"2 x {two['device'].removeprefix('2 x ')}"
    assert two["test"]["average"] == pytest.approx(one["test"]["average"], rel=1e-4)
    # Not the weights: where a gradient is zero but for rounding, AdamW goes by its sign.
    for row, other in zip(history(Path("one")), history(Path("two")), strict=True):
        for key in ("train_loss", "val_mae"):
            assert other[key] == pytest.approx(row[key], rel=1e-4)


def test_train_evaluate_predict_and_resume(here, capsys, monkeypatch):
    """One run through the whole command line, the first step as a process of its own."""
    train = ["train", "--dataset", "mine.npz", *SMALL, "--max-epochs", "1", "--out", "runs/a"]
    lines = run_alone(*train).splitlines()
    assert lines[1] == "Errors on the test set"
    assert [line.split()[0] for line in lines[4:6]] == ["st-mamba", "last"]
    run = here / "runs" / "a"
    assert lines[-1] == "Report: runs/a/report.html"
    assert (run / "report.html").exists()
    metrics = json.loads((run / "metrics.json").read_text())
    assert f"{metrics['test']['average']['mae']:.3f}" in lines[4]

    cli.main(["evaluate", "runs/a", "--out", "again.json"])
    again = json.loads((here / "again.json").read_text())
    assert again["test"]["average"] == pytest.approx(metrics["test"]["average"])
    assert again["baselines"].keys() == metrics["baselines"].keys()
    assert "last value" in capsys.readouterr().out
    cli.main(["evaluate", "runs/a", "runs/a/checkpoints/best.ckpt", "--out", "twice.json"])
    twice = json.loads((here / "twice.json").read_text())
    assert twice["test"]["average"] == pytest.approx(again["test"]["average"])
    assert "Ensemble" in capsys.readouterr().out

    cli.main(["predict", "runs/a/checkpoints/last.ckpt", "--starts", "all", "--out", "f"])
    with np.load("f.npz") as arrays:
        assert arrays["prediction"].shape == (115, 3, 4, 1)
    assert len((here / "f.csv").read_text().splitlines()) == 1 + 115 * 3 * 4

    reported = []
    monkeypatch.setattr(visualization, "write_report", reported.append)
    cli.main(["train", "--resume", "runs/a", "--max-epochs", "2"])
    assert json.loads((run / "metrics.json").read_text())["epochs"] == 2
    assert yaml.safe_load((run / "config.yaml").read_text())["max_epochs"] == 2
    cli.main(["train", "--config", "runs/a/config.yaml", "--out", "runs/b"])
    assert reported == [Path("runs/a"), Path("runs/b")]
    with open("runs/b/config.yaml") as one, open("runs/a/config.yaml") as other:
        assert one.read() == other.read()
    assert json.loads((here / "runs/b/metrics.json").read_text())["epochs"] == 2


def test_a_performer_from_training_to_forecasts(here, capsys, monkeypatch):
    """On a record without timestamps, whose clock is the number of the step."""
    monkeypatch.setattr(visualization, "write_report", Path)
    steps = np.arange(130)
    values = np.stack([np.sin(2 * np.pi * steps / 9 + phase) for phase in (0, 1, 2)], 1)
    edges = np.array([[0, 1], [1, 2]])
    np.savez("probes.npz", values=values[:120], edge_index=edges)
    np.savez("later.npz", values=values, edge_index=edges)
    np.savez("other.npz", values=values[:, :2], edge_index=edges[:, :1])
    run = ["train", "--dataset=probes.npz", "--model=performer-forecaster", "--model.d-model=8"]
    run += ["--model.n-heads=2", "--model.redraw-interval=2", "--model.start-len=2", *SMALL[4:]]
    cli.main([*run, "--max-epochs=1", "--out=a"])
    metrics = json.loads((here / "a" / "metrics.json").read_text())
    assert "performer-forecaster" in capsys.readouterr().out

    cli.main(["evaluate", "a", "--out", "again.json"])
    again = json.loads((here / "again.json").read_text())
    assert again["test"]["average"] == pytest.approx(metrics["test"]["average"])

    # No targets are needed, and the clock goes on where the record ends.
    cli.main(["predict", "a", "--out", "last"])
    cli.main(["predict", "a", "--dataset=later.npz", "--starts=all", "--out=all"])
    with np.load("last.npz") as last, np.load("all.npz") as every:
        assert last["prediction"].shape == (1, 3, 4, 1)
        assert last["timestamps"].tolist() == [[120, 121, 122, 123]]
        np.testing.assert_allclose(every["prediction"][114], last["prediction"][0], rtol=1e-4)
    with pytest.raises(SystemExit):
        cli.main(["predict", "a", "--dataset=other.npz"])
    assert "nodes: trained on 3 with an embedding each, given 2" in capsys.readouterr().err


def test_a_transformer_from_training_to_forecasts(here, capsys, monkeypatch):
    monkeypatch.setattr(visualization, "write_report", Path)
    run = ["train", "--dataset=mine.npz", "--model=transformer-forecaster", "--model.d-model=8"]
    run += ["--model.nhead=2", "--model.num-encoder-layers=1", "--model.use-moe=true"]
    run += ["--model.num-experts=3", "--model.teacher-forcing=0.5", *SMALL[4:]]
    cli.main([*run, "--max-epochs=1", "--out=t"])
    metrics = json.loads((here / "t" / "metrics.json").read_text())
    assert "transformer-forecaster" in capsys.readouterr().out
    cli.main(["evaluate", "t", "--out", "again.json"])
    again = json.loads((here / "again.json").read_text())
    assert again["test"]["average"] == pytest.approx(metrics["test"]["average"])
    cli.main(["predict", "t", "--out", "last"])
    with np.load("last.npz") as last:
        assert np.isfinite(last["prediction"]).all()


COMPARE = ["compare", "--dataset=mine.npz", *SMALL[1:]]


def test_compare_and_resume(here, capsys, monkeypatch):
    """From the series to the table and its picture."""
    some = ["--temporal=[mamba]", "--spatial=[gat, none]", "--max-epochs=1", "--repeats=1"]
    cli.main([*COMPARE, *some, "--out=runs/c"])
    printed = capsys.readouterr().out
    run = here / "runs" / "c"
    table = (run / "comparison.md").read_text()
    assert table in printed
    assert printed.endswith("Table: runs/c/comparison.md\nPicture: runs/c/accuracy_cost.png\n")
    assert (run / "accuracy_cost.png").exists()
    rows = json.loads((run / "comparison.json").read_text())["combinations"]
    assert {(row["temporal"], row["spatial"]) for row in rows} == {
        ("mamba", "gat"),
        ("mamba", "none"),
    }
    config = yaml.safe_load((run / "mamba-none" / "config.yaml").read_text())
    assert (config["model"]["channels"], config["model"]["spatial"]) == (4, None)
    assert (config["batch_size"], config["window"], config["max_epochs"]) == (16, 6, 1)

    trained = []
    fit = training.operator_runs.fit
    monkeypatch.setattr(
        training.operator_runs, "fit", lambda *a, **o: trained.append(o["out"]) or fit(*a, **o)
    )
    cli.main(["compare", "--resume=runs/c", "--temporal=[mamba, attention]"])
    assert trained == [Path("runs/c/attention-gat"), Path("runs/c/attention-none")]
    again = json.loads((run / "comparison.json").read_text())["combinations"]
    assert len(again) == 4
    before = {(row["temporal"], row["spatial"]): row["test"] for row in rows}
    after = {(row["temporal"], row["spatial"]): row["test"] for row in again}
    assert before.items() <= after.items()

    # A combination is a run as any other.
    cli.main(["evaluate", "runs/c/mamba-none", "--out", "again.json"])
    again = json.loads((here / "again.json").read_text())
    assert again["test"]["average"] == pytest.approx(before["mamba", "none"]["average"])


def test_options_reach_a_comparison(here, monkeypatch, fails, capsys):
    found = {}

    @functools.wraps(training.compare)
    def compare(graph, protocol, **options):
        found.update(options, graph=graph, protocol=protocol)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "compare", compare)
    options = ["--temporal=[mamba, null]", "--pairs=cross", "--minutes=90", "--workers=2"]
    options += ["--seeds=[1,2]", "--learning-rate=0.01", "--ema-decay=0.9", "--out=x"]
    with pytest.raises(SystemExit) as stop:
        cli.main([*COMPARE, *options])
    assert stop.value.code == 130
    assert "Go on with: pyg-stmamba compare --resume x" in capsys.readouterr().err
    assert (found["temporal"], found["spatial"]) == (["mamba", None], None)
    assert (found["pairs"], found["minutes"], found["workers"]) == ("cross", 90, 2)
    assert (found["learning_rate"], found["ema_decay"]) == (0.01, 0.9)
    assert (found["batch_size"], found["max_epochs"], list(found["seeds"])) == (16, None, [1, 2])
    assert (found["model"]["channels"], found["model"]["norm"]) == (4, "pre")
    assert found["protocol"].horizon == 4
    assert found["graph"].num_nodes == 3
    assert (found["out"], found["resume"], found["progress"]) == (Path("x"), False, False)
    assert found["config"]["dataset"] == "mine.npz"
    assert not {"out", "resume", "patience"} & set(found["config"])


@pytest.fixture
def fitted(monkeypatch):
    """What reaches :func:`fit`, which does nothing."""
    found = {}

    def fit(model, graph, protocol, **options):
        found.update(options, model=model, graph=graph, protocol=protocol)
        raise ValueError("enough")

    monkeypatch.setattr(training, "fit", functools.wraps(training.fit)(fit))
    return found


def test_options_reach_model_data_and_training(here, fitted, fails):
    fails(
        *["train", "--dataset=mine.csv", "--adjacency=adjacency.csv", "--window=8", "--horizon=3"],
        *["--split=[0.5,0.2,0.3]", "--order=series-first", "--model.spatial=null"],
        *["--model.num_layers=3", "--max-time=00:01:30", "--milestones=[3,4]", "--devices=1"],
        *["--patience=null", "--seed=5", "--ema-decay=0.99", "--out=x"],
    )
    model, graph, protocol = (fitted[key] for key in ("model", "graph", "protocol"))
    assert model.config()["spatial"] is None
    assert model.config()["num_layers"] == 3
    assert (model.window, model.horizon, model.num_nodes, model.steps_per_day) == (8, 3, 3, 24)
    assert graph.node_id == ["a", "b", "c"]
    assert graph.num_edges == 3
    assert protocol.split == (0.5, 0.2, 0.3)
    assert (protocol.window, protocol.horizon, protocol.order) == (8, 3, "series-first")
    assert not protocol.scale_missing
    assert fitted["max_time"] == "00:01:30"
    assert list(fitted["milestones"]) == [3, 4]
    assert fitted["patience"] is None
    assert fitted["ema_decay"] == 0.99
    assert not fitted["resume"]
    assert fitted["out"] == Path("x")
    assert fitted["config"]["model"]["num_layers"] == 3
    assert fitted["config"]["max_time"] == "00:01:30"


def test_a_configuration_comes_back_as_it_went(here, fitted, fails):
    fails("train", "--dataset=mine.npz", "--max-time=00:01:30", "--model.channels=12", "--seed=3")
    first = dict(fitted)
    Path("config.yaml").write_text(yaml.safe_dump(first["config"]))
    fails("train", "--config", "config.yaml")
    assert fitted["config"] == first["config"]
    assert fitted["max_time"] == "00:01:30"
    same = first["model"].state_dict()
    assert all(torch.equal(same[name], v) for name, v in fitted["model"].state_dict().items())
    assert "enough" in fails("train", "--config=config.yaml", "--model.channels", "8")
    assert fitted["model"].channels == 8
    assert fitted["config"]["seed"] == 3


def test_an_interrupted_run_says_how_to_go_on(here, monkeypatch, capsys):
    @functools.wraps(training.fit)
    def fit(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", fit)
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--dataset=mine.npz", "--out=runs/x"])
    assert stop.value.code == 130
    assert "pyg-stmamba train --resume runs/x" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dance"], "unknown command 'dance'; choose from train, compare, evaluate"),
        (["train"], "give --dataset: one of metr-la"),
        (["train", "--dataset=metr"], "unknown data set 'metr'; choose one of metr-la, pems-bay"),
        (["train", "--dataset=no.npz"], "no file no.npz"),
        (["train", "--dataset=mine.npz", "--model=rnn"], "unknown model 'rnn'; choose from st-ma"),
        (["train", "--dataset=mine.npz", "--model.width=3"], "arguments: --model.width=3"),
        (["train", "--dataset=mine.npz", "--model.in_channels=3"], "--model.in_channels=3"),
        (["train", "--dataset=mine.npz", "--model.num_nodes=3"], "--model.num_nodes=3"),
        (["train", "--dataset=mine.npz", "--model.spatial=x"], "unknown spatial operator 'x'"),
        ([*PERFORMER, "--model.attention=x"], "attention 'x' is unknown; choose 'performer'"),
        ([*PERFORMER, "--model.time-embedding=x"], "time_embedding='x' is unknown"),
        ([*PERFORMER, "--model.start-len=99"], "start_len=99 last steps of the window must lie"),
        ([*PERFORMER, "--model.scheduled-sampling=5"], "needs autoregressive=True"),
        ([*PERFORMER, "--model.use-seasonal-decomp=true"], "got linear_window=0"),
        (["train", "--dataset=mine.npz", "--max-epochs=x"], '"max_epochs"'),
        (["train", "--dataset=mine.npz", "--devices=4096"], "devices='4096'"),
        (["train", "--dataset=mine.npz", "--accelerator=x"], "accelerator='x' is unknown"),
        (["train", "--dataset=mine.npz", "--precision=7"], "7"),
        (["train", "--dataset=mine.npz", "--order=x"], "unknown order 'x'"),
        (["train", "--dataset=mine.npz", "--window=500"], "fewer than one window"),
        (["train", "--dataset=mine.npz", "--window=0"], "window must be at least 1"),
        (["train", "--dataset=mine.npz", "--horizon=0"], "--horizon 0 must be at least 1"),
        (["train", "--config=no.yaml"], "no.yaml"),
        (["train", "--resume=no"], "there is no no/config.yaml, so no run to go on with"),
        (["compare"], "give --dataset: one of metr-la"),
        ([*COMPARE, "--temporal=[rnn]", "--minutes=1"], "unknown temporal operator 'rnn'; choose"),
        (COMPARE, "give one of them, minutes for equal time or max_epochs for equal epochs"),
        ([*COMPARE, "--model.temporal=mamba"], "--model.temporal=mamba"),
        ([*COMPARE, "--pairs=x"], "pairs"),
        (["compare", "--resume=no"], "there is no no/config.yaml, so no run to go on with"),
        (["evaluate", "no"], "no does not exist: no checkpoint to load"),
        (["predict", "mine.npz"], "mine.npz is not a checkpoint of a forecaster"),
        (["predict", "x", "--device=cuda:77"], "device='cuda:77' is not there"),
        (["simulate", "rain"], "unknown simulation 'rain'; choose from freeway"),
    ],
)
def test_wrong_input_ends_in_one_line(here, fails, arguments, message):
    assert message in fails(*arguments)
    assert not Path("runs").exists() or not any(Path("runs").iterdir())


def test_broken_configurations(here, fails):
    Path("broken.yaml").write_text("model: [")
    assert "broken.yaml is not YAML" in fails("train", "--config=broken.yaml")
    Path("wrong.yaml").write_text("depth: 3")
    assert "depth" in fails("train", "--config=wrong.yaml", "--dataset=mine.npz")


def test_simulate_and_its_cache(here, capsys, monkeypatch):
    calls = []

    class Small(DATASETS["freeway"]):
        def read(self) -> TemporalGraph:
            calls.append((self.num_weeks, self.seed))
            return TemporalGraph.from_arrays(np.ones((4, 2)), edge_index=[[0], [1]])

    monkeypatch.setattr("pyg_stmamba.datasets.FreewayTraffic", Small)
    for _ in range(2):
        cli.main(["simulate", "freeway", "--root=made", "--num-weeks=1", "--seed=7"])
    assert calls == [(1, 7)]
    assert "2 nodes, 1 edges, 4 steps: made" in capsys.readouterr().out


def test_info_names_versions_devices_and_implementations(capsys):
    cli.main(["info"])
    out = capsys.readouterr().out
    assert torch.__version__ in out
    assert "cpu (" in out
    lines = [line.split() for line in out.splitlines() if line.startswith("  selective_scan")]
    running = [line for line in lines if line[1] == "cpu" and line[-1] == "runs"]
    assert len(running) == 1
    assert any("needs CUDA" in " ".join(line) for line in lines)


def test_help_comes_without_torch():
    program = "import sys; from pyg_stmamba import cli; cli.main(['--help']); " + (
        "assert not {'lightning', 'jsonargparse', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(cli.__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    for command in cli.COMMANDS:
        assert f"\n  {command}" in done.stdout


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    assert f"usage: pyg-stmamba {command}" in capsys.readouterr().out


def test_version(capsys):
    cli.main(["--version"])
    assert capsys.readouterr().out.startswith("pyg-stmamba 0.")
