import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback

from pyg_stmamba.models.weekly_profile import WeeklyProfile
from pyg_stmamba.nn import PerformerAttention
from pyg_stmamba.training import evaluate, fit, load_forecaster
from pyg_stmamba.training.forecast_data import windows_of
from pyg_stmamba.training.run import seconds_of

OPTIONS = {"max_epochs": 4, "batch_size": 16, "progress": False, "baselines": False}


class Killed(RuntimeError):
    pass


class KillAt(Callback):
    def __init__(self, epoch: int, batch: int) -> None:
        self.epoch, self.batch = epoch, batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.batch):
            raise Killed


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


AVERAGE = {"ema_decay": 0.9, "num_workers": 1}
PLATEAU = {"schedule": "plateau", "plateau_patience": 1, "warmup": 0.0, "learning_rate": 0.1}


@pytest.mark.parametrize(
    ("options", "batch"),
    [({}, 0), ({}, 2), (AVERAGE, 0), (PLATEAU, 2)],
    ids=["between epochs", "within an epoch", "average", "plateau"],
)
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    graph, protocol, make_model, tmp_path, options, batch
):
    options = {**OPTIONS, **options}
    whole = fit(make_model(graph), graph, protocol, out=tmp_path / "whole", **options)

    torch.manual_seed(77)
    kill = [KillAt(2, batch)]
    with pytest.raises(Killed):
        fit(make_model(graph), graph, protocol, out=tmp_path / "cut", callbacks=kill, **options)
    assert len(torch.load(tmp_path / "cut/checkpoints/last.ckpt")["history"]) == 2
    torch.manual_seed(78)
    cut = fit(make_model(graph), graph, protocol, out=tmp_path / "cut", resume=True, **options)

    for row in (*whole.history, *cut.history):
        del row["seconds"]
    assert whole.history == cut.history
    assert len(whole.history) == 4
    for name in ("last.ckpt", "best.ckpt"):
        paths = (tmp_path / folder / "checkpoints" / name for folder in ("whole", "cut"))
        assert_equal(*map(weights, paths))
    assert whole.metrics["test"] == cut.metrics["test"]
    rows = (tmp_path / "cut" / "metrics.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["epoch", "1", "2", "3", "4"]


SAMPLED = {"autoregressive": True, "scheduled_sampling": 5.0, "use_revin": True, "start_len": 2}


@pytest.mark.parametrize(
    ("model_options", "options"),
    [(SAMPLED, {"ema_decay": 0.9}), ({"time_embedding": "spectral"}, {})],
    ids=["sampled, averaged", "spectral"],
)
def test_a_resumed_performer_draws_as_an_uninterrupted_one(
    graph, protocol, make_performer, tmp_path, model_options, options
):
    options = {**OPTIONS, **options, "max_epochs": 2}

    def run(name, **more):
        model = make_performer(graph, **model_options)
        return fit(model, graph, protocol, out=tmp_path / name, **options, **more)

    whole = run("whole")
    torch.manual_seed(77)
    with pytest.raises(Killed):
        run("cut", callbacks=[KillAt(1, 3)])
    torch.manual_seed(78)
    cut = run("cut", resume=True)
    for name in ("last.ckpt", "best.ckpt"):
        paths = (tmp_path / folder / "checkpoints" / name for folder in ("whole", "cut"))
        assert_equal(*map(weights, paths))
    assert whole.metrics["test"] == cut.metrics["test"]
    last = weights(tmp_path / "cut/checkpoints/last.ckpt")
    passes = 2 * 5
    assert (
        last["model.performer.training_passes"] == ("scheduled_sampling" in model_options) * passes
    )
    draws = {int(value) for name, value in last.items() if name.endswith("draws")}
    assert draws == {(passes - 1) // 3}


EXPERTS = {"use_moe": True, "num_experts": 3, "teacher_forcing": 0.5}


@pytest.mark.parametrize("model_options", [EXPERTS, {"use_gradient_checkpointing": True}])
def test_a_resumed_transformer_is_taught_as_an_uninterrupted_one(
    graph, protocol, make_transformer, tmp_path, model_options
):
    options = {**OPTIONS, "max_epochs": 2}

    def run(name, **more):
        model = make_transformer(graph, **model_options)
        return fit(model, graph, protocol, out=tmp_path / name, **options, **more)

    whole = run("whole")
    torch.manual_seed(77)
    with pytest.raises(Killed):
        run("cut", callbacks=[KillAt(1, 3)])
    torch.manual_seed(78)
    cut = run("cut", resume=True)
    for name in ("last.ckpt", "best.ckpt"):
        paths = (tmp_path / folder / "checkpoints" / name for folder in ("whole", "cut"))
        assert_equal(*map(weights, paths))
    assert whole.metrics["test"] == cut.metrics["test"]


def test_an_average_keeps_the_features_of_the_last_draw(graph, protocol, make_performer, tmp_path):
    options = {**OPTIONS, "max_epochs": 2, "ema_decay": 0.9, "out": tmp_path}
    fit(make_performer(graph), graph, protocol, **options)
    checkpoint = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    model = make_performer(graph)
    state = checkpoint["state_dict"].items()
    model.load_state_dict({name.removeprefix("model."): value for name, value in state})
    attentions = [module for module in model.modules() if isinstance(module, PerformerAttention)]
    assert attentions
    for attention in attentions:
        assert attention.draws == 3
        kept = attention.projection.clone()
        attention._draw()
        assert torch.equal(attention.projection, kept)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_in_either_precision(graph, protocol, make_performer, precision):
    norms, fused = [], []

    class Spy(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            gradients = [parameter.grad for parameter in pl_module.parameters()]
            norms.append(torch.nn.utils.get_total_norm(gradients).item())
            fused.append(trainer.optimizers[0].defaults["fused"])

    before = make_performer(graph)
    result = fit(
        make_performer(graph), graph, protocol, precision=precision, gradient_clip=1e-3,
        callbacks=[Spy()], **{**OPTIONS, "max_epochs": 1},
    )  # fmt: skip
    assert math.isfinite(result.metrics["test"]["average"]["mae"])
    assert not torch.equal(
        result.model.performer.transformer.head.weight, before.performer.transformer.head.weight
    )
    assert set(fused) == {precision == "32-true"}
    assert norms == pytest.approx([1e-3] * 5, rel=1e-3)


def test_a_run_killed_in_its_first_epoch_starts_anew(graph, protocol, make_model, tmp_path):
    options = {**OPTIONS, "max_epochs": 1}
    whole = fit(make_model(graph), graph, protocol, **options)
    with pytest.raises(Killed):
        fit(make_model(graph), graph, protocol, out=tmp_path, callbacks=[KillAt(0, 1)], **options)
    cut = fit(make_model(graph), graph, protocol, out=tmp_path, resume=True, **options)
    assert whole.metrics["test"] == cut.metrics["test"]


def test_more_epochs_can_be_added_to_a_finished_run(graph, protocol, make_model, tmp_path):
    options = {**OPTIONS, "schedule": "constant", "warmup": 0.0}
    whole = fit(make_model(graph), graph, protocol, **{**options, "max_epochs": 2})
    fit(make_model(graph), graph, protocol, out=tmp_path, **{**options, "max_epochs": 2})
    again = fit(
        make_model(graph),
        graph,
        protocol,
        out=tmp_path,
        resume=True,
        **{**options, "max_epochs": 2},
    )
    assert again.metrics["test"] == whole.metrics["test"]


def test_the_weekly_profile_is_fitted_and_given_without_its_week(
    graph, protocol, make_model, tmp_path
):
    given = []
    model = make_model(graph, weekly_profile=True, time_embedding=False)
    forward = model.encoder.forward

    def spy(x, x_mask, time_of_day, day_of_week, batch, profile):
        given.append((model.training, profile))
        return forward(x, x_mask, time_of_day, day_of_week, batch, profile)

    model.encoder.forward = spy
    result = fit(model, graph, protocol, out=tmp_path, **{**OPTIONS, "max_epochs": 1})
    assert {training: profile is not None for training, profile in given} == {
        True: True,
        False: False,
    }
    del model.encoder.forward
    train = windows_of(graph, protocol)["train"]
    expected = WeeklyProfile(smoothing=10).fit(train).mean
    assert torch.equal(result.model.weekly_profile.mean, expected)
    loaded = load_forecaster(tmp_path).model
    assert torch.equal(loaded.weekly_profile.mean, expected)
    window = windows_of(graph, protocol)["test"][0]
    assert torch.equal(loaded(window), result.model(window))


def test_what_a_run_leaves_behind(graph, protocol, make_model, tmp_path, capsys):
    random_state = torch.get_rng_state()
    model = make_model(graph)
    torch.set_rng_state(random_state)
    options = {**OPTIONS, "max_epochs": 2, "baselines": True}
    result = fit(model, graph, protocol, out=tmp_path / "run", **options)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert capsys.readouterr() == ("", "")
    assert result.model is model
    assert not model.training
    assert result.folder == tmp_path / "run"

    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics == result.metrics
    assert set(metrics) == {
        "test", "baselines", "parameters", "epochs", "seconds", "device", "kernels", "windows",
        "seed", "versions",
    }  # fmt: skip
    scores = {"mae", "rmse", "mape"}
    assert {"last_value", "historical_average", "linear_autoregression"} < set(metrics["baselines"])
    for entry in (metrics["test"], *metrics["baselines"].values()):
        assert set(entry) == {"horizons", "average"}
        assert set(entry["horizons"]) == {"1", "4"}
        for score in (entry["average"], *entry["horizons"].values()):
            assert set(score) == scores
            assert all(math.isfinite(value) for value in score.values())
    assert metrics["parameters"] == sum(p.numel() for p in model.parameters())
    assert metrics["epochs"] == 2
    assert metrics["windows"] == {"train": 67, "val": 22, "test": 22}
    assert metrics["seed"] == 0
    assert metrics["device"].startswith("cpu")
    assert "graph_attention" in metrics["kernels"]
    assert metrics["seconds"] == pytest.approx(sum(row["seconds"] for row in result.history))

    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["model"]["name"] == "st-mamba"
    assert config["model"]["channels"] == 4
    assert "num_nodes" not in config["model"]
    assert config["batch_size"] == 16
    found = {path.name for path in (tmp_path / "run").iterdir()}
    assert found == {
        "checkpoints", "config.yaml", "forecasts.npz", "metrics.csv", "metrics.json",
        "versions.json",
    }  # fmt: skip


class SpoilAfter(Callback):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            with torch.no_grad():
                pl_module.model.head.last.bias += 1000.0


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_the_best_checkpoint_has_the_validation_error_of_the_best_epoch(
    graph, protocol, make_model, tmp_path, ema_decay
):
    options = {**OPTIONS, "ema_decay": ema_decay, "callbacks": [SpoilAfter(2)]}
    result = fit(make_model(graph), graph, protocol, out=tmp_path, **options)
    errors = [row["val_mae"] for row in result.history]
    assert min(errors[2:]) > 2 * errors[1]
    loaded = load_forecaster(tmp_path)
    again = evaluate(loaded.model, graph, protocol, split="val", baselines=False)
    assert again.test["average"]["mae"] == pytest.approx(min(errors), rel=1e-6)
    test = evaluate(loaded.model, graph, protocol, baselines=False, batch_size=3)
    assert test.test["average"]["mae"] == pytest.approx(result.metrics["test"]["average"]["mae"])
    if ema_decay is not None:
        checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
        averaged, current = checkpoint["state_dict"], checkpoint["current_model_state"]
        name = "model.head.first.weight"
        assert not torch.equal(averaged[name], current[name])


@pytest.mark.parametrize("loss", ["mae", "mse"])
def test_the_weights_are_those_of_a_plain_loop(graph, protocol, make_model, loss):
    """Oracle: the same model, order and rates in fifteen lines of plain torch."""
    from pyg_stmamba.nn.losses import LOSSES
    from pyg_stmamba.training import ForecastData
    from pyg_stmamba.training.forecast_data import fit_scaler

    options = {"schedule": "constant", "warmup": 0.0, "weight_decay": 0.0, "gradient_clip": 0.5}
    model = make_model(graph, dropout=0.0)
    options |= {"max_epochs": 1, "learning_rate": 0.01, "loss": loss}
    fit(model, graph, protocol, **{**OPTIONS, **options})

    peer = make_model(graph, dropout=0.0)
    data = ForecastData(graph, protocol, batch_size=16)
    fit_scaler(peer, data.windows["train"], protocol)
    adam = torch.optim.Adam(peer.parameters(), lr=0.01)
    norms = []
    for batch in data.train_dataloader():
        adam.zero_grad()
        LOSSES[loss](peer(batch), batch.y, batch.y_mask).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(peer.parameters(), 0.5)))
        adam.step()
    assert max(norms) > 0.5
    for (name, one), other in zip(model.named_parameters(), peer.parameters()):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=name)


def test_patience_ends_a_run(graph, protocol, make_model):
    # Without any learning, no epoch improves on the first.
    options = {**OPTIONS, "learning_rate": 0.0, "max_epochs": 50, "patience": 3}
    result = fit(make_model(graph), graph, protocol, **options)
    assert result.metrics["epochs"] == 4


def test_a_run_without_patience_left_does_not_go_on(graph, protocol, make_model, tmp_path):
    options = {**OPTIONS, "learning_rate": 0.0, "max_epochs": 50, "patience": 2, "out": tmp_path}
    fit(make_model(graph), graph, protocol, **options)
    again = fit(make_model(graph), graph, protocol, resume=True, **options)
    assert again.metrics["epochs"] == 3


class Clock:
    """A clock that moves by one second at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_time_ends_a_run_within_an_epoch(graph, protocol, make_model, tmp_path, monkeypatch):
    monkeypatch.setattr("pyg_stmamba.training.run_module.time.monotonic", Clock())
    options = {**OPTIONS, "max_epochs": 1000, "out": tmp_path, "patience": None}
    result = fit(make_model(graph), graph, protocol, max_time="00:00:25", **options)
    seconds = result.metrics["seconds"]
    assert 25 <= seconds < 30
    rates = [row["learning_rate"] for row in result.history]
    # The cosine runs over the time, which is used up, not over the epochs, which are not.
    assert rates[-1] < 0.1 * rates[0]
    # The epoch that was cut short counts, but a resumed run would start it anew.
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert len(last["history"]) == len(result.history) - 1
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert len(best["history"]) == min(
        result.history, key=lambda row: row["val_mae"]
    )["epoch"]  # fmt: skip


def test_a_diverged_run_says_so(graph, protocol, make_model):
    model = make_model(graph)
    with torch.no_grad():
        model.encoder.value_embedding.weight.fill_(math.nan)
    with pytest.raises(ValueError, match="training diverged: the validation error was never"):
        fit(model, graph, protocol, **OPTIONS)


def test_a_run_is_not_written_over(graph, protocol, make_model, tmp_path):
    options = {**OPTIONS, "max_epochs": 1, "out": tmp_path}
    fit(make_model(graph), graph, protocol, **options)
    before = (tmp_path / "metrics.json").read_bytes()
    with pytest.raises(ValueError, match="holds a run already; resume it, or choose another"):
        fit(make_model(graph), graph, protocol, **options)
    assert (tmp_path / "metrics.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_epochs": 0}, "max_epochs=0 must be at least 1"),
        ({"devices": 4096}, "devices=4096 .* not there"),
        ({"schedule": "cyclic"}, "schedule='cyclic' is unknown"),
        ({"loss": "l2"}, "loss='l2' is unknown; choose from 'mae', 'mse', 'huber', 'smape'"),
        ({"max_time": "soon"}, "max_time='soon' must be minutes"),
    ],
)
def test_senseless_options_are_refused(graph, protocol, make_model, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        fit(make_model(graph), graph, protocol, **{**OPTIONS, **options, "out": tmp_path / "run"})
    assert not (tmp_path / "run").exists()


def test_ctrl_c_is_an_interrupt_as_usual(graph, protocol, make_model, tmp_path):
    import signal

    class Interrupt(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(make_model(graph), graph, protocol, callbacks=[Interrupt()], **OPTIONS)
    assert signal.getsignal(signal.SIGINT) is handler


def test_the_progress_bar_names_epoch_and_errors(graph, protocol, make_model, capsys):
    fit(make_model(graph), graph, protocol, **{**OPTIONS, "progress": True, "max_epochs": 2})
    out, err = capsys.readouterr()
    assert out == ""
    assert "epoch 2/2: 100%" in err
    assert "best" in err


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, None), (1.5, 90), ("2", 120), ("00:00:30", 30), ("01:02:03", 3723)]
)
def test_times(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["1:2", "0", "-3", "00:00:00"])
def test_senseless_times(text):
    with pytest.raises(ValueError, match="must be minutes"):
        seconds_of(text)
