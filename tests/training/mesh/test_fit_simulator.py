import inspect
import json
import math

import numpy as np
import pytest
import torch
import yaml

from pyg_stmamba.data.mesh.mesh_protocol import MeshProtocol
from pyg_stmamba.data.mesh.mesh_windows import MeshWindows
from pyg_stmamba.data.mesh_files.npz_trajectory import load_trajectory_npz
from pyg_stmamba.models.mesh_graph_net import MeshGraphNet
from pyg_stmamba.models.mesh_simulator import MeshSimulator
from pyg_stmamba.training.mesh.evaluate_simulator import SimulatorEvaluation
from pyg_stmamba.training.mesh.fit_simulator import (
    fit_simulator,
    fit_spectral_time,
    write_evaluation,
)
from pyg_stmamba.training.mesh.rollout import roll_out
from pyg_stmamba.training.mesh.simulator import load_simulator
from pyg_stmamba.training.mesh.simulator_data import SimulatorData
from pyg_stmamba.training.run_folder import RunFolder

QUICK = {"progress": False, "accelerator": "cpu", "val_steps": 8, "windows_per_epoch": 12}


@pytest.fixture
def make_model(flows, protocol):
    def make(kind=MeshSimulator, **options):
        torch.manual_seed(1)
        sizes = {"channels": 8, "num_layers": 1, "d_state": 4, "dropout": 0.2}
        sizes = sizes if kind is MeshSimulator else {"channels": 8, "num_steps": 1}
        return kind(**protocol.model_arguments(flows[0]), **{**sizes, **options})

    return make


@pytest.mark.parametrize("takes", [fit_simulator, SimulatorData, MeshProtocol.windows, MeshWindows])
def test_noise_walks_unless_told_otherwise(takes):
    assert inspect.signature(takes).parameters["noise_kind"].default == "walk"


class Kill(Exception):
    pass


def test_a_resumed_run_ends_as_an_uninterrupted_one(make_model, split, protocol, tmp_path):
    from lightning.pytorch import Callback

    class KillAfterTwo(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                raise Kill

    options = {**QUICK, "max_epochs": 4, "noise": 0.05, "ema_decay": 0.9, "seed": 3}
    whole = fit_simulator(make_model(), split, protocol, **options)
    with pytest.raises(Kill):
        fit_simulator(
            make_model(), split, protocol, out=tmp_path, callbacks=[KillAfterTwo()], **options
        )
    resumed = fit_simulator(make_model(), split, protocol, out=tmp_path, resume=True, **options)
    for row, expected in zip(resumed.history, whole.history, strict=True):
        for name in ("train_loss", "val_rmse", "val_rollout_rmse", "learning_rate"):
            assert row[name] == expected[name]
    weights = whole.simulator.model.state_dict()
    for name, value in resumed.simulator.model.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_what_a_run_leaves_behind(make_model, split, protocol, tmp_path, capsys):
    model = make_model()
    before = torch.random.get_rng_state()
    result = fit_simulator(
        model,
        split,
        protocol,
        out=tmp_path,
        max_epochs=2,
        noise={"velocity": 0.01},
        seed=5,
        boundary="data",
        **QUICK,
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert capsys.readouterr().out == ""
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics == result.metrics
    assert metrics["model"] == "MeshSimulator"
    assert metrics["test"]["velocity_rmse"]["10"] > 0
    assert set(metrics["baselines"]) == {"persistence"}
    assert metrics["simulations"] == {"train": 2, "val": 1, "test": 1}
    arrays = np.load(tmp_path / "rollout_errors.npz")
    assert arrays["model_velocity_rmse"].shape == (1, 22)
    predicted = load_trajectory_npz(tmp_path / "rollouts" / "000_prediction.npz")
    truth = load_trajectory_npz(tmp_path / "rollouts" / "000_truth.npz")
    assert (predicted.num_frames, truth.num_frames, truth.name) == (22, 26, "flow 7")
    border = ~truth.mesh.nodes_of("normal", "outflow")
    there = truth.frames("velocity", 4, 26)[border]
    np.testing.assert_array_equal(predicted.frames("velocity")[border], there)
    assert (metrics["boundary"], metrics["seed"]) == ("data", 5)
    assert metrics["measure"]["nodes"] == ["normal", "outflow"]
    assert metrics["seconds"] == sum(row["seconds"] for row in result.history) > 0
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["model"]["name"] == "mesh-simulator"
    assert config["model"]["channels"] == 8
    assert config["noise"] == {"velocity": 0.01}
    assert config["history"] == 4
    again = load_simulator(tmp_path)
    weights = result.simulator.model.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in again.model.state_dict().items())


@pytest.mark.parametrize("kind", [MeshSimulator, MeshGraphNet])
def test_training_learns_a_wave(make_model, split, protocol, kind):
    # Without dropout; a wave is a linear function of two frames.
    options = {"dropout": 0.0} if kind is MeshSimulator else {}
    result = fit_simulator(
        make_model(kind, channels=16, **options),
        split,
        protocol,
        max_epochs=12,
        learning_rate=5e-3,
        **{**QUICK, "windows_per_epoch": None},
    )
    test, still = result.metrics["test"], result.metrics["baselines"]["persistence"]
    share = {MeshSimulator: 0.5, MeshGraphNet: 0.9}[kind]
    assert test["one_step_rmse"]["1"] < share * still["one_step_rmse"]["1"]
    losses = [row["train_loss"] for row in result.history]
    assert losses[-1] < 0.5 * losses[0]


def test_scalers_are_fitted_on_the_training_simulations(make_model, split, protocol):
    result = fit_simulator(make_model(), split, protocol, max_epochs=1, **QUICK)
    model = result.simulator.model
    frames = np.concatenate([f.frames("velocity", 0, 29).reshape(-1, 2) for f in split.train])
    np.testing.assert_allclose(model.state_scaler.mean, frames.mean(0), rtol=1e-4)
    np.testing.assert_allclose(model.state_scaler.std, frames.std(0), rtol=1e-4)


def test_spectral_time_is_fitted_on_the_training_simulations(make_model, make_flow, protocol):
    model = make_model(spectral_time=1)
    flows = [make_flow(5, 260), make_flow(6, 250)]
    for flow in flows:
        # Where nothing is predicted, there may be anything.
        border = ~flow.mesh.nodes_of("normal", "outflow")
        flow.fields["velocity"][:, border] += 50 * np.sin(np.arange(flow.num_frames))[:, None, None]
    fit_spectral_time(model, flows, protocol)
    # The waves turn by 0.3 a frame.
    assert float(model.spectral_time.freqs[0]) == pytest.approx(0.3 / (2 * math.pi), rel=0.02)


def test_a_run_is_not_written_over(make_model, split, protocol, tmp_path):
    config = {"dataset": "mine"}
    options = {**QUICK, "max_epochs": 1, "keep": 0, "config": config}
    fit_simulator(make_model(), split, protocol, out=tmp_path, **options)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == config
    assert not (tmp_path / "rollouts").exists()
    with pytest.raises(ValueError, match="holds a run already; resume it"):
        fit_simulator(make_model(), split, protocol, out=tmp_path, max_epochs=1, **QUICK)


class Seen(Exception):
    pass


def test_each_option_goes_where_it_belongs(make_model, split, protocol, monkeypatch):
    made_in, seen = inspect.getmodule(fit_simulator), {}

    def watch(name, then):
        signature = inspect.signature(getattr(made_in, name))

        def watched(*args, **options):
            seen.update(signature.bind(*args, **options).arguments)
            return then(*args, **options)

        monkeypatch.setattr(made_in, name, watched)

    def stop(*args, **options):
        raise Seen

    watch("SimulatorData", made_in.SimulatorData)
    watch("SimulatorModule", made_in.SimulatorModule)
    watch("fit_spectral_time", made_in.fit_spectral_time)
    watch("train_in_folder", stop)
    shape = {"warmup": 0.1, "milestones": (1, 2), "decay": 0.3}
    options = {
        "batch_size": 3,
        "windows_per_epoch": 7,
        "stride": 2,
        "noise": 0.5,
        "noise_kind": "independent",
        "val_steps": 6,
        "val_rollouts": 4,
        "seed": 8,
        "num_workers": 9,
        "learning_rate": 0.02,
        "weight_decay": 0.03,
        "skip": 1,
        "unroll": 2,
        "max_epochs": 10,
        "patience": 11,
        "gradient_clip": 0.7,
        "ema_decay": 0.8,
        "precision": "bf16-mixed",
        "accelerator": "cpu",
        "devices": 1,
        "progress": False,
        "callbacks": [None],
    }
    with pytest.raises(Seen):
        fit_simulator(
            make_model(),
            split,
            protocol,
            **options,
            **shape,
            max_time="00:01:30",
            schedule="plateau",
            plateau_patience=12,
        )
    assert {name: seen[name] for name in options} == options
    assert seen["schedule"] == ("plateau", *shape.values(), 12)
    assert seen["max_seconds"] == 90
    assert seen["trajectories"] is split.train


def test_a_rollout_that_diverged_at_once_leaves_no_files(make_simulator, flows, tmp_path):
    rollout = roll_out(make_simulator(), flows[0], limit=0.0)
    assert rollout.trajectory.num_frames == 0
    arrays = {"model_velocity_rmse": np.ones((1, 3))}
    evaluation = SimulatorEvaluation({}, {}, [], arrays, [(rollout, flows[0])])
    write_evaluation(RunFolder(tmp_path), evaluation)
    assert [path.name for path in tmp_path.iterdir()] == ["rollout_errors.npz"]
