import csv
import functools
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback

from pyg_stmamba.data import Protocol
from pyg_stmamba.models import STMamba
from pyg_stmamba.nn.spatial.resolver import SPATIAL_OPERATORS
from pyg_stmamba.nn.temporal.resolver import TEMPORAL_OPERATORS
from pyg_stmamba.training import compare, fit, load_forecaster, operator_runs

PROTOCOL = Protocol(window=6, horizon=4, split=(0.6, 0.2, 0.2), report_steps=(1, 4))
SIZES = {"channels": 4, "num_layers": 1, "num_heads": 2, "d_state": 2, "dropout": 0.2}
# So high a rate, and constant, that the last epoch is not always the best.
TRAINING = {"batch_size": 16, "learning_rate": 0.05, "schedule": "constant"}
OPTIONS = {**TRAINING, "model": SIZES, "repeats": 1, "progress": False}
GRID = {"temporal": ["mamba", "attention"], "spatial": ["gat", "dot"], "max_epochs": 3}


@pytest.fixture(scope="module")
def shared_graph(make_graph):
    return make_graph()


@pytest.fixture(scope="module")
def compared(shared_graph, tmp_path_factory):
    """Two temporal and two spatial operators, each trained for three epochs."""
    out = tmp_path_factory.mktemp("compared") / "out"
    return compare(shared_graph, PROTOCOL, out=out, **GRID, **OPTIONS)


@pytest.fixture
def fits(monkeypatch):
    """The calls of fit, which go through; `before` may raise in its stead."""

    class Calls(list):
        before = staticmethod(lambda options: None)

    calls = Calls()

    @functools.wraps(fit)
    def spy(model, *arguments, **options):
        first = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        seen = {"model": model, "first": first, "threads": torch.get_num_threads()}
        calls.append({**options, **seen})
        calls.before(options)
        return fit(model, *arguments, **options)

    monkeypatch.setattr(operator_runs, "fit", spy)
    return calls


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def history_of(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def errors(compared) -> dict[tuple[str, str], dict]:
    rows = compared.results["combinations"]
    return {(row["temporal"], row["spatial"]): row["test"] for row in rows}


def test_rows_hold_what_the_runs_left(compared):
    rows = compared.results["combinations"]
    pairs = {(row["temporal"], row["spatial"]) for row in rows}
    assert pairs == {(time, place) for time in GRID["temporal"] for place in GRID["spatial"]}
    assert len(rows) == 4
    best = []
    for row in rows:
        folder = compared.folder / f"{row['temporal']}-{row['spatial']}"
        metrics, history = metrics_of(folder), history_of(folder)
        assert row["test"] == metrics["test"]
        assert row["epochs"] == len(history) == 3
        assert row["seconds"] == metrics["seconds"]
        assert row["parameters"] == metrics["parameters"]
        validation = [epoch["val_mae"] for epoch in history]
        assert row["val_mae"] == min(validation)
        best.append(validation.index(min(validation)))
        assert row["mae_std"] is None
        assert row["runs"] == 1
        for cost in ("train_seconds_per_1000_windows", "inference_milliseconds_per_window"):
            assert row[cost] > 0
    assert set(best) != {2}
    assert json.loads((compared.folder / "comparison.json").read_text()) == compared.results
    assert (compared.folder / "comparison.md").read_text() == compared.table
    assert not compared.results["failures"]


def test_each_combination_is_trained_as_it_would_be_alone(compared, shared_graph):
    assert len({str(test) for test in errors(compared).values()}) == 4
    for temporal, spatial in (("mamba", "dot"), ("attention", "gat")):
        torch.manual_seed(0)
        arguments = STMamba.data_arguments(shared_graph, PROTOCOL)
        model = STMamba(**arguments, **SIZES, temporal=temporal, spatial=spatial)
        options = {**TRAINING, "accelerator": "cpu", "devices": 1}
        alone = fit(model, shared_graph, PROTOCOL, max_epochs=3, progress=False, **options)
        assert errors(compared)[temporal, spatial] == alone.metrics["test"]
        baselines = {name: alone.metrics["baselines"][name] for name in ("last_value",)}
        assert baselines.items() <= compared.results["baselines"].items()
        kept = load_forecaster(compared.folder / f"{temporal}-{spatial}").model
        assert kept.config()["temporal"] == temporal
        assert kept.config()["spatial"] == spatial


def test_what_is_finished_is_not_trained_again(compared, shared_graph, fits, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(compared.folder, out)
    options = {**OPTIONS, "out": out, "resume": True}
    again = compare(shared_graph, PROTOCOL, **GRID, **options)
    assert not fits
    assert errors(again) == errors(compared)
    more = {**GRID, "spatial": ["gat", "dot", "none"]}
    compare(shared_graph, PROTOCOL, **more, **options)
    assert [call["out"].name for call in fits] == ["mamba-none", "attention-none"]


class InterruptAt(Callback):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt


def test_an_interrupted_comparison_goes_on(compared, shared_graph, monkeypatch, fits, tmp_path):
    out = tmp_path / "out"

    def interrupt_the_third(options):
        if len(fits) == 3:
            options["callbacks"] = [InterruptAt(1)]

    fits.before = interrupt_the_third
    with pytest.raises(KeyboardInterrupt):
        compare(shared_graph, PROTOCOL, out=out, **GRID, **OPTIONS)
    assert [call["out"].name for call in fits] == ["mamba-gat", "mamba-dot", "attention-gat"]
    first_epoch = history_of(out / "attention-gat")
    assert len(first_epoch) == 1
    with pytest.raises(ValueError, match="holds a comparison already; resume it"):
        compare(shared_graph, PROTOCOL, out=out, **GRID, **OPTIONS)

    fits.clear()
    fits.before = lambda options: None
    whole = compare(shared_graph, PROTOCOL, out=out, resume=True, **GRID, **OPTIONS)
    assert [call["out"].name for call in fits] == ["attention-gat", "attention-dot"]
    assert history_of(out / "attention-gat")[0] == first_epoch[0]
    assert errors(whole) == errors(compared)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learning_rate": 0.1}, r"training was .*0\.05.*, now it is .*0\.1"),
        ({"model": {**SIZES, "channels": 8}}, "model was .*'channels': 4.*'channels': 8"),
        ({"max_epochs": 4}, "max_epochs was 3, now it is 4"),
        ({"max_epochs": None, "minutes": 4}, r"minutes_each was None, now it is 1\.0"),
        ({"seeds": [1]}, r"seeds was \[0\], now it is \[1\]"),
    ],
)
def test_other_settings_do_not_mix(compared, shared_graph, fits, change, said):
    options = {**GRID, **OPTIONS, **change}
    with pytest.raises(ValueError, match=f"cannot be resumed with other settings: {said}"):
        compare(shared_graph, PROTOCOL, out=compared.folder, resume=True, **options)
    assert not fits


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temporal": ["mamba", "rnn"]}, r"unknown temporal operator 'rnn'; choose from 'mamba'"),
        ({"spatial": ["gcn"]}, r"unknown spatial operator 'gcn'; choose from 'gat', .*'none'"),
        ({"spatial": []}, r"spatial=\[\] names no operator"),
        ({"pairs": "some"}, "pairs='some' is unknown; choose from 'grid', 'cross'"),
        ({"minutes": 3}, "got minutes=3 and max_epochs=1; give one of them"),
        ({"max_epochs": None}, "got minutes=None and max_epochs=None; give one of them"),
        ({"max_epochs": 0}, "max_epochs=0 must be at least 1"),
        ({"max_epochs": None, "minutes": 0}, "minutes=0 must be above 0"),
        ({"workers": 0}, "workers=0 must be at least 1"),
        ({"repeats": 0}, "repeats=0 must be at least 1"),
        ({"seeds": []}, "seeds=0 must be at least 1"),
        ({"model": {"width": 3}}, "unknown model option 'width'; choose from channels"),
        ({"model": {"temporal": "mamba"}}, "unknown model option 'temporal'"),
        ({"speed": 3}, "unknown training option 'speed'; choose from decay"),
        ({"patience": 3}, "unknown training option 'patience'"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_trained(
    shared_graph, fits, tmp_path, options, said
):
    with pytest.raises(ValueError, match=said):
        compare(shared_graph, PROTOCOL, out=tmp_path / "x", **{"max_epochs": 1, **options})
    assert not fits
    assert not (tmp_path / "x").exists()


def test_a_combination_that_fails_takes_no_other_with_it(shared_graph, tmp_path):
    # Three heads do not divide four channels.
    options = {**OPTIONS, "model": {**SIZES, "num_heads": 3}, "max_epochs": 1}
    options |= {"temporal": ["mamba"], "spatial": ["gat", None, "dot"]}
    result = compare(shared_graph, PROTOCOL, out=tmp_path, **options)
    (row,) = result.results["combinations"]
    assert (row["temporal"], row["spatial"]) == ("mamba", "none")
    failures = result.results["failures"]
    assert list(failures) == ["mamba-gat", "mamba-dot"]
    assert "channels (4) must be divisible by heads (3)" in failures["mamba-gat"]
    assert f"failed: mamba-gat: {failures['mamba-gat']}" in result.table

    with pytest.raises(ValueError, match=r"every training failed, the first one with ValueError: "):
        compare(shared_graph, PROTOCOL, out=tmp_path / "all", **{**options, "spatial": ["gat"]})

    # What failed is tried again.
    result = compare(shared_graph, PROTOCOL, out=tmp_path, resume=True, **options)
    assert list(result.results["failures"]) == ["mamba-gat", "mamba-dot"]


def planned(fits, graph, out, **options) -> list[dict]:
    """The calls of fit that a comparison would make."""

    def skip(_):
        raise RuntimeError("skipped")

    fits.clear()
    fits.before = skip
    with pytest.raises(ValueError, match="every training failed"):
        compare(graph, PROTOCOL, out=out, **{**OPTIONS, **options})
    return list(fits)


def operators(calls: list[dict]) -> list[tuple[str | None, str | None]]:
    described = [call["model"].config() for call in calls]
    return [(each["temporal"], each["spatial"]) for each in described]


def test_which_pairs_are_trained(shared_graph, fits, tmp_path):
    plan = functools.partial(planned, fits, shared_graph, max_epochs=1)
    every = operators(plan(tmp_path / "a"))
    assert every == [(time, place) for time in TEMPORAL_OPERATORS for place in SPATIAL_OPERATORS]
    cross = operators(plan(tmp_path / "b", pairs="cross"))
    assert cross[: len(TEMPORAL_OPERATORS)] == [(time, "gat") for time in TEMPORAL_OPERATORS]
    places = [place for place in SPATIAL_OPERATORS if place != "gat"]
    assert cross[len(TEMPORAL_OPERATORS) :] == [("mamba", place) for place in places]
    calls = plan(tmp_path / "c", temporal=["none", "mamba", None], spatial=["dot", "dot"])
    assert operators(calls) == [(None, "dot"), ("mamba", "dot")]
    assert [call["out"].name for call in calls] == ["none-dot", "mamba-dot"]


def test_time_is_shared_equally(shared_graph, fits, tmp_path):
    calls = planned(
        fits, shared_graph, tmp_path / "a", **{**GRID, "max_epochs": None}, minutes=12, seeds=[4, 5]
    )
    assert [call["max_time"] for call in calls] == [1.5] * 8
    assert min(call["max_epochs"] for call in calls) > 10_000
    assert [call["seed"] for call in calls] == [4, 5] * 4
    epochs = planned(fits, shared_graph, tmp_path / "b", **GRID)
    assert [call["max_time"] for call in epochs] == [None] * 4
    assert [call["max_epochs"] for call in epochs] == [3] * 4
    for call in (*calls, *epochs):
        assert call["patience"] is None
        assert (call["batch_size"], call["learning_rate"]) == (16, 0.05)
        assert (call["accelerator"], call["devices"]) == ("cpu", 1)


def test_equal_time_ends_training_and_compiling_is_no_part_of_it(
    shared_graph, monkeypatch, fits, tmp_path
):
    order = []
    warm_up = operator_runs.training_step
    monkeypatch.setattr(
        operator_runs, "training_step", lambda *given: order.append("step") or warm_up(*given)
    )
    fits.before = lambda _: order.append("fit")
    options = {**OPTIONS, "temporal": ["mamba"], "spatial": ["gat", "none"], "minutes": 1.0 / 60}
    result = compare(shared_graph, PROTOCOL, out=tmp_path, **options)
    assert order == ["step", "fit"] * 2
    for row in result.results["combinations"]:
        assert 0.5 <= row["seconds"] < 3
    assert "0.00833 minutes on one thread each" in result.table


def test_one_thread_and_no_trace_outside(shared_graph, fits, tmp_path, capsys):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        options = {**OPTIONS, "temporal": ["mamba"], "spatial": ["none"], "max_epochs": 1}
        result = compare(shared_graph, PROTOCOL, out=tmp_path, **options)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert [call["threads"] for call in fits] == [1]
    assert "1 thread)" in result.results["device"]
    assert torch.equal(torch.get_rng_state(), state)
    assert capsys.readouterr() == ("", "")


def test_seeds_are_averaged(shared_graph, fits, tmp_path):
    options = {**OPTIONS, "temporal": ["mamba"], "spatial": ["none"], "max_epochs": 1}
    result = compare(shared_graph, PROTOCOL, out=tmp_path, seeds=[0, 7], **options)
    runs = [metrics_of(tmp_path / "mamba-none" / f"seed-{seed}") for seed in (0, 7)]
    assert [run["seed"] for run in runs] == [0, 7]
    one, other = (run["test"]["average"]["mae"] for run in runs)
    assert one != other
    (row,) = result.results["combinations"]
    assert row["test"]["average"]["mae"] == pytest.approx((one + other) / 2)
    assert row["mae_std"] == pytest.approx(abs(one - other) / 2**0.5)
    assert row["runs"] == 2
    assert not torch.equal(*(call["first"] for call in fits))


def test_configurations_tell_where_the_data_lie(shared_graph, tmp_path):
    config = {"dataset": "mine.npz", "root": None, "temporal": ["mamba"], "learning_rate": 0.05}
    options = {**OPTIONS, "temporal": ["mamba"], "spatial": ["none"], "max_epochs": 1}
    compare(shared_graph, PROTOCOL, out=tmp_path, config=config, **options)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == config
    of_run = yaml.safe_load((tmp_path / "mamba-none" / "config.yaml").read_text())
    assert of_run["dataset"] == "mine.npz"
    assert of_run["model"] == {"name": "st-mamba", **SIZES, "temporal": "mamba", "spatial": None}
    assert of_run["learning_rate"] == 0.05
    assert "workers" not in of_run
    assert "out" not in of_run


@pytest.mark.slow
def test_processes_find_the_same_errors(compared, shared_graph, tmp_path):
    both = compare(shared_graph, PROTOCOL, out=tmp_path, workers=2, **GRID, **OPTIONS)
    assert errors(both) == errors(compared)


@pytest.mark.slow
def test_every_operator_can_be_compared(shared_graph, tmp_path):
    result = compare(shared_graph, PROTOCOL, out=tmp_path, max_epochs=1, **OPTIONS)
    assert not result.results["failures"]
    number = len(TEMPORAL_OPERATORS) * len(SPATIAL_OPERATORS)
    assert len({str(test) for test in errors(result).values()}) == number
