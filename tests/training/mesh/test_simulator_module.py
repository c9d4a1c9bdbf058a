import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from pyg_stmamba.models.mesh_graph_net import MeshGraphNet
from pyg_stmamba.models.mesh_simulator import MeshSimulator
from pyg_stmamba.training.mesh.rollout import roll_out
from pyg_stmamba.training.mesh.simulator_data import SimulatorData
from pyg_stmamba.training.mesh.simulator_module import SimulatorModule
from pyg_stmamba.training.schedule import Progress


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


def test_skip_must_leave_a_frame(make_simulator):
    with pytest.raises(ValueError, match="skip=4 must be at least 0 and below the 4 frames"):
        SimulatorModule(make_simulator(), skip=4)


@pytest.mark.parametrize("passes", [0, 1, 3])
def test_pushed_forward_frames_are_predictions_over_that_many_steps(
    module, make_simulator, flows, protocol, passes
):
    windows = protocol._replace(history=9).windows(flows[:1])
    window = windows[5]
    pushed = module.pushed_forward(window, passes)
    # At the frame after that many, all before it are those of a rollout from the first one.
    rollout = roll_out(
        make_simulator(), flows[0], start=5, warm_up=1, steps=passes + 1, boundary="data"
    )
    frames = np.concatenate(
        [flows[0].fields["velocity"][5:6], rollout.trajectory.fields["velocity"][:passes]]
    )
    np.testing.assert_allclose(
        pushed.x[:, : passes + 1].transpose(0, 1), frames, rtol=1e-4, atol=1e-5
    )
    assert torch.equal(pushed.y, window.y)
    border = ~window.predicted
    assert torch.equal(pushed.x[border], window.x[border])
    if passes:
        assert not torch.equal(pushed.x[:, 5], window.x[:, 5])
    assert torch.equal(window.x, windows[5].x)


def test_push_forward_rises_in_the_first_half_of_training(module, monkeypatch, flows, protocol):
    asked = []
    monkeypatch.setattr(
        module, "pushed_forward", lambda batch, passes: asked.append(passes) or batch
    )
    module.push_forward = 3
    batch = Batch.from_data_list([protocol.windows(flows)[0]])
    for fraction, most in ((0.0, 0), (0.25, 2), (0.5, 3), (1.0, 3)):
        monkeypatch.setattr(module, "_progress", lambda _, f=fraction: Progress(f, ()))
        asked.clear()
        for _ in range(40):
            module.training_step(batch, 0)
        assert set(asked) == set(range(most + 1))


def test_push_forward_must_be_shorter_than_a_window(make_simulator):
    with pytest.raises(ValueError, match="push_forward=4 must be at least 0 and below the 4"):
        SimulatorModule(make_simulator(), push_forward=4)
