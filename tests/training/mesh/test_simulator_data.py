import pytest
import torch

from pyg_stmamba.training.mesh.simulator_data import SimulatorData


def test_training_windows_are_drawn_anew_each_epoch(split, protocol):
    data = SimulatorData(split, protocol, batch_size=3, windows_per_epoch=9, noise=0.1, seed=4)
    seen = []
    for epoch in range(2):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        assert [batch.num_graphs for batch in batches] == [3, 3, 3]
        pairs = torch.cat([torch.stack([b.trajectory, b.start], 1) for b in batches]).tolist()
        assert len({tuple(pair) for pair in pairs}) == 9
        seen.append(pairs)
    assert seen[0] != seen[1]
    assert len(SimulatorData(split, protocol, stride=4).train_dataloader().dataset) == 2 * 7


def test_validation_windows_hold_history_and_rollout(split, protocol, flows):
    data = SimulatorData(split, protocol, noise=0.5, val_steps=10, val_rollouts=3)
    batches = list(data.val_dataloader())
    # 30 frames give 17 windows of 4 frames and 10 steps; three are spread over them. By the clock
    # the first frame, at time 0.1, has number 1.
    assert torch.cat([batch.start for batch in batches]).tolist() == [1, 9, 17]
    window = data.val_windows[8]
    assert window.x.shape == (16, 13, 2)
    assert torch.equal(window.x, torch.from_numpy(flows[2].frames("velocity", 8, 21)))
    assert SimulatorData(split, protocol, val_steps=99).val_steps == 26


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"windows_per_epoch": 0}, "windows_per_epoch=0"),
        ({"val_steps": 0}, "val_steps=0"),
        ({"val_rollouts": 0}, "val_rollouts=0"),
    ],
)
def test_senseless_options_are_refused(split, protocol, options, message):
    with pytest.raises(ValueError, match=message):
        SimulatorData(split, protocol, **options)


def test_too_short_simulations_are_refused(split, protocol, flows):
    short = split._replace(val=[flows[0].between(0, 4)])
    with pytest.raises(ValueError, match="for validation has 4 frames, fewer than the 4 that the"):
        SimulatorData(short, protocol)
