import numpy as np
import pytest

from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.data.mesh.trajectory import MeshTrajectory
from pyg_stmamba.training.mesh.matched_frames import MatchedRollout, roles_of


@pytest.fixture
def truth(make_trajectory):
    velocity = np.random.default_rng(0).normal(size=(20, make_trajectory(u=ones(1)).num_nodes, 2))
    return make_trajectory(velocity=velocity, pressure=velocity[..., :1] ** 2)


def ones(frames: int, nodes: int = 205, channels: int = 1) -> np.ndarray:
    return np.ones((frames, nodes, channels))


def part_of(truth, frames: slice, **change) -> MeshTrajectory:
    fields = {name: np.array(field[:][frames]) for name, field in truth.fields.items()}
    return MeshTrajectory(truth.mesh, {**fields, **change}, truth.times[frames])


def joined(rollout: MatchedRollout, side: str, name: str) -> np.ndarray:
    chunks = list(rollout.chunks())
    assert [chunk.steps.start for chunk in chunks[1:]] == [c.steps.stop for c in chunks[:-1]]
    return np.concatenate([getattr(chunk, side)[name] for chunk in chunks], axis=1)


@pytest.mark.parametrize("chunk", [1, 205 * 2 * 3, 2**22])
@pytest.mark.parametrize("frames", [slice(4, None), slice(3, 17), slice(2, None, 3)])
def test_frames_meet_by_their_times(truth, monkeypatch, chunk, frames):
    monkeypatch.setattr("pyg_stmamba.training.mesh.matched_frames.CHUNK", chunk)
    rollout = MatchedRollout(part_of(truth, frames), truth, ["velocity", "pressure"])
    assert np.allclose(rollout.times, truth.times[frames])
    for name in ("velocity", "pressure"):
        wanted = np.float32(truth.fields[name][frames]).transpose(1, 0, 2)
        assert np.array_equal(joined(rollout, "truth", name), wanted)
        assert np.allclose(joined(rollout, "prediction", name), wanted, atol=1e-6)
    assert (rollout.num_steps, rollout.reached) == (len(truth.times[frames]),) * 2
    assert rollout.diverged_at is None
    chunks = np.concatenate(list(rollout.true_chunks("velocity")), axis=1)
    assert np.array_equal(chunks, joined(rollout, "truth", "velocity"))


def test_a_rollout_longer_than_the_truth_is_compared_up_to_its_end(truth):
    short = part_of(truth, slice(0, 12))
    long = part_of(truth, slice(5, None))
    assert MatchedRollout(long, short, ["velocity"]).num_steps == 7
    assert MatchedRollout(long, short, ["velocity"], steps=15).num_steps == 7
    assert MatchedRollout(long, short, ["velocity"], steps=5).num_steps == 5


def test_what_is_not_finite_ends_the_rollout(truth):
    velocity = np.array(truth.fields["velocity"][:])[4:]
    velocity[6, 3, 1] = np.nan
    rollout = MatchedRollout(part_of(truth, slice(4, None), velocity=velocity), truth, ["velocity"])
    assert (rollout.diverged_at, rollout.reached, rollout.num_steps) == (7, 6, 16)
    predicted = joined(rollout, "prediction", "velocity")
    assert np.isfinite(predicted[:, :6]).all()
    assert np.isnan(predicted[:, 6:]).all()
    assert np.isfinite(joined(rollout, "truth", "velocity")).all()
    velocity[2, 0, 0] = np.inf
    rollout = MatchedRollout(part_of(truth, slice(4, None), velocity=velocity), truth, ["velocity"])
    assert rollout.diverged_at == 3


def test_a_rollout_that_was_given_up_has_the_steps_it_was_to_have(truth):
    prediction = part_of(truth, slice(4, 8))
    rollout = MatchedRollout(prediction, truth, ["velocity"], diverged_at=5)
    assert (rollout.diverged_at, rollout.reached, rollout.num_steps) == (5, 4, 16)
    rollout = MatchedRollout(prediction, truth, ["velocity"], diverged_at=5, steps=10)
    assert (rollout.diverged_at, rollout.reached, rollout.num_steps) == (5, 4, 10)
    assert np.allclose(rollout.times, truth.times[4:14])
    rollout = MatchedRollout(part_of(truth, slice(4, 10, 2)), truth, ["velocity"], diverged_at=4)
    assert np.allclose(rollout.times, truth.times[4::2])


def test_a_divergence_after_the_steps_that_count_does_not_count(truth):
    rollout = MatchedRollout(
        part_of(truth, slice(4, 12)), truth, ["velocity"], diverged_at=7, steps=6
    )
    assert (rollout.diverged_at, rollout.reached, rollout.num_steps) == (None, 6, 6)


def test_a_rollout_without_a_single_frame(truth):
    nothing = part_of(truth, slice(0, 0))
    rollout = MatchedRollout(nothing, truth, ["velocity"], diverged_at=1, steps=15)
    assert (rollout.reached, rollout.num_steps) == (0, 15)
    assert np.allclose(rollout.times, truth.times[5:])
    assert np.isnan(joined(rollout, "prediction", "velocity")).all()
    assert MatchedRollout(nothing, truth, ["velocity"], diverged_at=1).num_steps == 19


def test_bad_input(truth, make_trajectory):
    def match(prediction, fields=("velocity",), **options):
        return MatchedRollout(prediction, truth, fields, **options)

    whole = part_of(truth, slice(None))
    square = Mesh(np.eye(4, 2), {})
    with pytest.raises(ValueError, match="one mesh, got 4 and 205 nodes"):
        match(MeshTrajectory(square, {"velocity": ones(2, 4, 2)}, [0, 1]))
    moved = Mesh(truth.mesh.pos + 0.1, truth.mesh.cells, truth.mesh.node_type)
    with pytest.raises(ValueError, match="one mesh, but their nodes differ"):
        match(MeshTrajectory(moved, whole.fields, whole.times))
    with pytest.raises(ValueError, match="velocity has 1 channels in the prediction and 2 in"):
        match(make_trajectory(velocity=ones(20)))
    with pytest.raises(ValueError, match="no field 'heat'; its fields are velocity, pressure"):
        match(whole, ("heat",))
    with pytest.raises(ValueError, match=r"a frame at t = 0.35, .* t = 0 to 1.9, 0.1 apart"):
        match(make_trajectory(first=0.35, velocity=ones(3, channels=2)))
    with pytest.raises(ValueError, match="no frame within the truth"):
        match(make_trajectory(first=2.0, velocity=ones(3, channels=2)))
    with pytest.raises(ValueError, match="no frame within the truth"):
        match(part_of(truth, slice(0, 0)))
    with pytest.raises(ValueError, match="diverged_at counts steps from 1, got 0"):
        match(whole, diverged_at=0)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        match(whole, steps=0)
    with pytest.raises(ValueError, match=r"to have 9 steps, but it has 8 .* diverged_at="):
        match(part_of(truth, slice(0, 8)), steps=9)


def test_fields_are_reported_by_what_they_are(make_trajectory):
    truth = make_trajectory(
        U=ones(2, channels=2),
        T=ones(2),
        tau=ones(2, channels=3),
        p=ones(2),
        velocity=ones(2, channels=2),
    )
    assert roles_of(truth, "U", "p") == {"U": "velocity", "p": "pressure"}
    assert roles_of(truth, ("T", "U"), ("tau", "p")) == {
        "T": "T",
        "U": "velocity",
        "tau": "tau",
        "p": "pressure",
    }
    assert roles_of(truth, "T", None) == {"T": "T"}
    assert roles_of(truth, ("U", "velocity"), ()) == {"U": "U", "velocity": "velocity"}
    with pytest.raises(ValueError, match="no field 'V'"):
        roles_of(truth, "V", None)
