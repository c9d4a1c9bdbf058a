import numpy as np
import pytest
import torch

from pyg_stmamba.models.mesh_graph_net import MeshGraphNet
from pyg_stmamba.training.mesh.evaluate_simulator import persistence_of
from pyg_stmamba.training.mesh.rollout import roll_out


def plain_rollout(simulator, flow, start, steps):
    """The same by passing everything from the first frame on through the model again."""
    model, protocol, _ = simulator
    graph = protocol.graph(flow)
    graph.start = torch.tensor([flow.first_frame + start])
    given = torch.from_numpy(flow.frames("velocity", start, start + protocol.history))
    held = given[:, -1]
    predicted = []
    with torch.no_grad():
        for _ in range(steps):
            next_frame = model.prefill(given, graph)[0][:, -1]
            state = torch.where(graph.predicted[:, None], next_frame[:, :2], held)
            predicted.append(torch.cat([state, next_frame[:, 2:]], -1))
            given = torch.cat([given, state[:, None]], 1)
    return torch.stack(predicted).numpy()


@pytest.mark.parametrize("options", [{}, {"spectral_time": 2}, {"temporal": "performer"}])
def test_a_streamed_rollout_is_that_of_the_whole_history(make_simulator, flows, options):
    simulator = make_simulator(**options)
    if "spectral_time" in options:
        simulator.model.spectral_time.fit(torch.sin(torch.arange(64.0))[:, None])
    rollout = roll_out(simulator, flows[1], start=3, steps=12)
    expected = plain_rollout(simulator, flows[1], 3, 12)
    found = np.concatenate([rollout.trajectory.fields[n] for n in ("velocity", "pressure")], -1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(np.diff(expected, axis=0)).max() > 1e-2
    np.testing.assert_allclose(rollout.trajectory.times, flows[1].times[7:19])
    assert rollout.diverged_at is None
    assert rollout.message == ""
    assert rollout.step_seconds.shape == (12,)


def test_a_model_that_does_not_stream_reads_the_last_frames(make_simulator, flows, protocol):
    simulator = make_simulator(temporal="attention", spectral_time=1)
    simulator.model.spectral_time.fit(torch.sin(torch.arange(64.0))[:, None])
    assert not simulator.model.streams
    rollout = roll_out(simulator, flows[0], steps=5)
    graph = protocol.graph(flows[0])
    frames = np.concatenate(
        [flows[0].fields["velocity"][:4], rollout.trajectory.fields["velocity"]]
    )
    for step in range(5):
        given = torch.from_numpy(frames[step : step + 4]).transpose(0, 1)
        graph.start = torch.tensor([1 + step])  # the first frame is at time 0.1
        with torch.no_grad():
            expected = simulator.model.prefill(given, graph)[0][:, -1]
        inside = graph.predicted.numpy()
        np.testing.assert_allclose(frames[4 + step][inside], expected[inside, :2], atol=1e-5)


@pytest.mark.parametrize("boundary", ["held", "data", "array", "function"])
def test_the_state_at_the_borders_follows_the_rule(make_simulator, flows, boundary):
    flow, simulator = flows[1], make_simulator(MeshGraphNet, num_steps=1)
    rng = np.random.default_rng(0)
    array = rng.random((8, flow.num_nodes, 2), dtype=np.float32)
    rules = {"array": array, "function": lambda time: np.full((flow.num_nodes, 2), time)}
    rollout = roll_out(simulator, flow, steps=8, boundary=rules.get(boundary, boundary))
    border = ~flow.mesh.nodes_of("normal", "outflow")
    found = rollout.trajectory.fields["velocity"][:, border]
    times = np.broadcast_to(rollout.trajectory.times[:, None, None], found.shape)
    expected = {
        "held": np.broadcast_to(flow.fields["velocity"][3, border], found.shape),
        "data": flow.fields["velocity"][4:12, border],
        "array": array[:, border],
        "function": times,
    }[boundary]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # What a model reads at the borders has influence inside.
    other = roll_out(simulator, flow, steps=8, boundary="held").trajectory.fields["velocity"]
    inside = rollout.trajectory.fields["velocity"][-1, ~border]
    assert (np.abs(inside - other[-1, ~border]).max() > 1e-4) == (boundary != "held")


def test_persistence_keeps_state_and_outputs(make_simulator, flows):
    flow = flows[2]
    rollout = roll_out(persistence_of(make_simulator()), flow, start=2)
    assert rollout.trajectory.num_frames == 30 - 6
    for name in ("velocity", "pressure"):
        still = np.broadcast_to(flow.fields[name][5], (24, *flow.fields[name].shape[1:]))
        np.testing.assert_allclose(rollout.trajectory.fields[name], still, atol=1e-5)


def test_a_rollout_may_be_longer_than_the_simulation(make_simulator, flows):
    rollout = roll_out(make_simulator(), flows[0], steps=100)
    times = rollout.trajectory.times
    assert len(times) == 100
    np.testing.assert_allclose(times, 0.1 * np.arange(5, 105), rtol=1e-9)


def test_a_rollout_that_diverges_ends_with_a_message(make_simulator, flows):
    simulator = make_simulator()
    simulator.model.decoder.last.bias.data[:2] = 50.0
    rollout = roll_out(simulator, flows[0], steps=20, limit=30.0)
    assert 1 < rollout.diverged_at < 20
    assert rollout.trajectory.num_frames == rollout.diverged_at - 1
    scaled = simulator.model.state_scaler(torch.from_numpy(rollout.trajectory.fields["velocity"]))
    assert scaled.abs().max() <= 30
    assert f"diverged at step {rollout.diverged_at}" in rollout.message
    assert "limit 30" in rollout.message
    simulator.model.decoder.last.bias.data[0] = torch.nan
    rollout = roll_out(simulator, flows[0], steps=20)
    assert (rollout.diverged_at, rollout.trajectory.num_frames) == (1, 0)
    assert "infinitely far away" in rollout.message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 27}, "from frame 27 on reads 4 frames and predicts -1; the simulation has 30"),
        ({"start": 26}, "reads 4 frames and predicts 0"),
        ({"start": -1, "steps": 2}, "from frame -1 on"),
        ({"warm_up": 0}, "reads 0 frames"),
        ({"boundary": "data", "steps": 27}, "values for 26 steps"),
    ],
)
def test_senseless_rollouts_are_refused(make_simulator, flows, options, message):
    with pytest.raises(ValueError, match=message):
        roll_out(make_simulator(), flows[0], **options)


def test_the_model_comes_back_as_it_was(make_simulator, flows):
    simulator = make_simulator()
    simulator.model.train()
    roll_out(simulator, flows[0], steps=1)
    assert simulator.model.training
