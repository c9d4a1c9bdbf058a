import sys

import numpy as np
import pytest
import torch

from pyg_stmamba.models.mesh_graph_net import MeshGraphNet
from pyg_stmamba.training.mesh.evaluate_simulator import (
    evaluate_simulator,
    persistence_of,
    squared_step_errors,
)
from pyg_stmamba.training.mesh.rollout import roll_out


def test_single_steps_from_true_frames(make_simulator, flows, protocol, monkeypatch):
    # The function of this name hides its module.
    monkeypatch.setattr(sys.modules[evaluate_simulator.__module__], "CHUNK", 7)
    simulator, flow = make_simulator(spectral_time=1), flows[1]
    simulator.model.spectral_time.fit(torch.sin(torch.arange(64.0))[:, None])
    found = squared_step_errors(simulator, flow, warm_up=4)
    graph = protocol.graph(flow)
    graph.start = torch.ones(1, dtype=torch.long)  # the first frame is at time 0.1
    frames = torch.from_numpy(flow.frames("velocity"))
    with torch.no_grad():
        predicted = simulator.model.prefill(frames[:, :-1], graph)[0][..., :2]
    error = (predicted - frames[:, 1:])[graph.predicted, 3:]
    expected = error.square().sum(-1).mean(0)
    assert found.shape == (26,)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_all_methods_are_measured_on_the_same_frames(make_simulator, flows):
    simulator, rival = make_simulator(), make_simulator(MeshGraphNet, num_steps=1)
    rival = rival._replace(protocol=rival.protocol._replace(history=1))
    result = evaluate_simulator(
        simulator, flows[2:], rivals={"mgn": rival}, horizons=(1, 5, None), boundary="data", keep=9
    )
    assert set(result.baselines) == {"mgn", "persistence"}
    assert list(result.test["velocity_rmse"]) == ["1", "5", "all"]
    for name, method in (("persistence", persistence_of(simulator)), ("mgn", rival)):
        errors = []
        for flow in flows[2:]:
            predicted = roll_out(method, flow, warm_up=4, boundary="data", steps=5).trajectory
            inside = flow.mesh.nodes_of("normal", "outflow")
            error = predicted.fields["velocity"] - flow.fields["velocity"][4:9]
            errors.append(np.sqrt((error[:, inside] ** 2).sum(-1).mean()))
        assert result.baselines[name]["velocity_rmse"]["5"] == pytest.approx(np.mean(errors), 1e-4)
    # The change from frame to frame is the error of persistence in a single step.
    changes = [np.diff(f.fields["velocity"][3:], axis=0) for f in flows[2:]]
    inside = [f.mesh.nodes_of("normal", "outflow") for f in flows[2:]]
    squares = [(c[:, i] ** 2).sum(-1).mean() for c, i in zip(changes, inside)]
    one_step = result.baselines["persistence"]["one_step_rmse"]["1"]
    assert one_step == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-4)
    assert [truth.name for _, truth in result.kept] == ["flow 4", "flow 7"]
    assert len(result.rollouts) == 2
    assert result.arrays["model_velocity_rmse"].shape == (2, 26)


def test_a_diverged_rollout_is_counted(make_simulator, flows):
    simulator = make_simulator()
    simulator.model.decoder.last.bias.data[:2] = 50.0
    result = evaluate_simulator(simulator, flows[2:3], horizons=(1, None))
    assert result.test["velocity_rmse"]["all"] is None
    assert result.test["diverged"] == {"1": 0, "all": 1}
    assert result.rollouts[0]["diverged_at"] > 1
