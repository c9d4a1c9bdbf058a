from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from pyg_stmamba.models.mesh_graph_net import MeshGraphNet
from pyg_stmamba.models.mesh_simulator import MeshSimulator
from pyg_stmamba.training.mesh.rollout import roll_out
from pyg_stmamba.training.mesh.simulator_data import SimulatorData
from pyg_stmamba.training.mesh.simulator_module import SimulatorModule
from pyg_stmamba.training.schedule import Progress, Schedule


@pytest.fixture
def module(make_simulator):
    module = SimulatorModule(make_simulator())
    module.trainer = type("Alone", (), {"world_size": 1})()
    module._loss_sum, module._loss_count = torch.zeros(2)
    return module


@pytest.mark.parametrize(
    ("kind", "options"), [(MeshSimulator, {}), (MeshGraphNet, {"num_steps": 2})]
)
def test_validation_measures_one_step_and_a_rollout(
    make_simulator, split, protocol, flows, kind, options
):
    module = SimulatorModule(make_simulator(kind, **options))
    module.trainer = type("Alone", (), {"world_size": 1})()
    data = SimulatorData(split, protocol, val_steps=6, val_rollouts=2)
    module.on_validation_epoch_start()
    for batch in data.val_dataloader():
        module.validation_step(batch, 0)
    module.on_validation_epoch_end()
    simulator, flow = make_simulator(kind, **options), flows[2]
    inside = flow.mesh.nodes_of("normal", "outflow")
    one_step, rollouts = [], []
    for start in (0, 20):
        window = data.val_windows[start]
        with torch.no_grad():
            error = (simulator.model(window)[:, 3:, :2] - window.y[:, 3:, :2]).numpy()
        one_step.append((error[inside] ** 2).sum(-1))
        rollout = roll_out(simulator, flow, start=start, steps=6, boundary="data")
        truth = flow.fields["velocity"][start + 4 : start + 10]
        error = rollout.trajectory.fields["velocity"] - truth
        rollouts.append((error[:, inside] ** 2).sum(-1))
    assert module.validation["rmse"] == pytest.approx(np.sqrt(np.mean(one_step)), rel=1e-4)
    assert module.validation["rollout_rmse"] == pytest.approx(np.sqrt(np.mean(rollouts)), rel=1e-5)


def test_the_loss_is_that_of_the_model(module, make_simulator, split, protocol):
    windows = protocol.windows(split.train)
    batch = Batch.from_data_list([windows[0], windows[30]])
    module.skip = 2
    loss = module.training_step(batch, 0)
    assert loss.item() == pytest.approx(make_simulator().model.loss(batch, 2).item(), rel=1e-5)
    assert module.train_loss() == pytest.approx(loss.item(), rel=1e-5)


def test_the_loss_of_an_epoch_is_that_of_its_windows(module, flows, protocol, monkeypatch):
    monkeypatch.setattr(module.model, "get_aux_loss", lambda: torch.tensor(0.5))
    windows = protocol.windows(flows)
    batches = [Batch.from_data_list([windows[i] for i in part]) for part in ([0], [30, 31, 32])]
    losses = [module.model.loss(batch).item() for batch in batches]
    steps = [module.training_step(batch, 0).item() for batch in batches]
    # Balancing experts is trained for, but no error of the forecast.
    assert steps == pytest.approx([loss + 0.5 for loss in losses], rel=1e-5)
    assert module.train_loss() == pytest.approx((losses[0] + 3 * losses[1]) / 4, rel=1e-5)


def test_noise_is_another_in_each_epoch(module, flows, protocol):
    windows = protocol.windows(flows, noise=0.1)
    module.trainer.global_rank = 0
    module.trainer.datamodule = SimpleNamespace(train_windows=windows)
    seen = []
    for finished in (0, 1, 1):
        module.history = [{"seconds": 1.0}] * finished
        module.on_train_epoch_start()
        seen.append(windows[0].x)
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[1], seen[2])


def test_what_all_training_has_in_common_is_passed_on(make_simulator):
    given = (0.1, 0.2, Schedule("constant"), 5.0, 7)
    module = SimulatorModule(make_simulator(), *given)
    names = ("learning_rate", "weight_decay", "schedule", "max_seconds", "seed")
    assert tuple(getattr(module, name) for name in names) == given


def test_skip_must_leave_a_frame(make_simulator):
    with pytest.raises(ValueError, match="skip=4 must be at least 0 and below the 4 frames"):
        SimulatorModule(make_simulator(), skip=4)


def test_unrolling_begins_after_a_quarter_of_training(module, monkeypatch, flows, protocol):
    asked = []
    monkeypatch.setattr(
        module.model,
        "loss",
        lambda batch, skip, unroll: asked.append((skip, unroll)) or torch.zeros(()),
    )
    module.skip, module.unroll = 1, 2
    batch = Batch.from_data_list([protocol.windows(flows)[0]])
    for fraction in (0.0, 0.25, 0.35, 0.4, 0.5, 1.0):
        progress = {3: Progress(fraction, ())}
        monkeypatch.setattr(module, "_progress", progress.__getitem__)
        module.training_step(batch, 3)
    assert asked == [(1, 0), (1, 0), (1, 1), (1, 1), (1, 2), (1, 2)]


def test_unroll_must_leave_a_frame(make_simulator):
    with pytest.raises(
        ValueError, match="unroll=3 must be at least 0 and at most 2, so that skip=1"
    ):
        SimulatorModule(make_simulator(), skip=1, unroll=3)
