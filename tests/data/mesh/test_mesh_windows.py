import pickle
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.loader import DataLoader

from pyg_stmamba.data.mesh import Mesh, MeshTrajectory
from pyg_stmamba.data.mesh.mesh_graph import mesh_graph
from pyg_stmamba.data.mesh.mesh_windows import NOISE_KINDS, MeshWindows
from pyg_stmamba.data.mesh_files.npz_trajectory import load_trajectory_npz, save_trajectory_npz


def make_trajectory(lattice, num_frames=12, size=3, seed=0, kind="triangle", mesh=None, **options):
    generator = np.random.default_rng(seed)
    if mesh is None:
        mesh = lattice(kind, size=size, seed=seed)
        border = ((mesh.pos == 0) | (mesh.pos == 1)).any(1)
        mesh = Mesh(mesh.pos, mesh.cells, np.where(border, 6, 0))
    fields = {
        name: generator.normal(size=(num_frames, mesh.num_nodes, channels)).astype(np.float32)
        for name, channels in (("velocity", mesh.dim), ("pressure", 1), ("heat", 1))
    }
    options = {"parameters": {"viscosity": 1e-3 * (1 + seed), "speed": 1.0}, **options}
    return MeshTrajectory(mesh, fields, np.arange(num_frames) * 0.1, **options)


@pytest.fixture
def two(lattice):
    return [make_trajectory(lattice), make_trajectory(lattice, num_frames=9, size=4, seed=1)]


@settings(deadline=None, max_examples=40)
@given(
    history=st.integers(1, 4),
    stride=st.integers(1, 4),
    frames=st.none() | st.tuples(st.integers(0, 2), st.integers(7, 9)),
    order=st.permutations(["velocity", "pressure", "heat"]),
    num_state=st.integers(1, 3),
)
def test_windows_are_the_frames(lattice, history, stride, frames, order, num_state):
    two = [make_trajectory(lattice), make_trajectory(lattice, num_frames=9, size=4, seed=1)]
    state, outputs = tuple(order[:num_state]), tuple(order[num_state:])
    windows = MeshWindows(two, state, outputs, history, stride, frames)
    place = 0
    for number, trajectory in enumerate(two):
        first, stop = frames or (0, trajectory.num_frames)
        joined = {
            names: np.concatenate([trajectory.fields[n] for n in names], axis=2).swapaxes(0, 1)
            for names in (state, (*state, *outputs))
        }
        for start in range(first, stop - history, stride):
            window = windows[place]
            x = joined[state][:, start : start + history]
            y = joined[(*state, *outputs)][:, start + 1 : start + history + 1]
            assert np.array_equal(window.x, x)
            assert np.array_equal(window.y, y)
            assert window.x.is_contiguous()
            assert window.x.dtype == window.y.dtype == torch.float32
            assert (window.trajectory.tolist(), window.start.tolist()) == ([number], [start])
            assert trajectory.first_frame == 0
            place += 1
    assert place == len(windows)


def test_windows_carry_the_graph(lattice):
    static = {"depth": np.arange(16)[:, None]}
    trajectory = make_trajectory(lattice, static=static)
    windows = MeshWindows([trajectory], conditions=["viscosity"], coarse_levels=1)
    wanted = mesh_graph(trajectory, conditions=["viscosity"], coarse_levels=1)
    for graph in (windows[3], windows.graph(0)):
        for key, value in wanted.to_dict().items():
            assert torch.equal(graph[key], value), key
    assert "x" not in windows.graph(0)
    assert set(windows[0].keys()) == {*wanted.keys(), "x", "y", "start"}
    assert windows.state == {"velocity": 2}
    assert windows.outputs == {"pressure": 1}
    assert windows.static == {"depth": 1}
    assert (windows.conditions, windows.edge_channels, windows.dim) == (("viscosity",), 5, 2)
    assert windows.node_types == trajectory.mesh.node_type_names
    assert np.isclose(windows.time_step, 0.1)
    assert MeshWindows([trajectory], outputs=())[0].y.shape == (16, 1, 2)


def test_edges_are_made_once_a_mesh(lattice):
    one = make_trajectory(lattice)
    same = Mesh(one.mesh.pos.copy(), one.mesh.cells, one.mesh.node_type)
    moved = Mesh(one.mesh.pos + 0.1 * one.mesh.pos**2, one.mesh.cells, one.mesh.node_type)
    other_types = Mesh(one.mesh.pos, one.mesh.cells, np.zeros(16, dtype=int))
    meshes = [one.mesh, same, moved, other_types]
    windows = MeshWindows([make_trajectory(lattice, mesh=mesh) for mesh in meshes])
    addresses = [windows.graph(i).edge_attr.data_ptr() for i in range(4)]
    assert addresses[0] == addresses[1]
    assert len(set(addresses)) == 3
    assert windows[0].edge_index.data_ptr() == windows[5].edge_index.data_ptr()
    assert bool(windows.graph(3).predicted.all())
    assert not bool(windows.graph(1).predicted.all())


def test_different_meshes_in_one_batch_equal_one_by_one(two):
    windows = MeshWindows(two, history=2, conditions=["viscosity"], noise=0.1, coarse_levels=1)
    chosen = [0, len(windows) - 1, 3]
    batch = next(iter(DataLoader([windows[i] for i in chosen], batch_size=3)))
    for i, window in zip(chosen, batch.to_data_list()):
        for key, value in windows[i].to_dict().items():
            assert torch.equal(window[key], value), key
    assert batch.conditions.shape == (3, 1)
    assert batch.start.tolist() == [0, 6, 3]


def test_noise_is_on_the_predicted_nodes_of_the_input_only(two):
    clean, noisy = MeshWindows(two, history=3), MeshWindows(two, history=3, noise=0.5)
    for i in (0, len(clean) - 1):
        change = noisy[i].x - clean[i].x
        predicted = clean[i].predicted
        assert bool((change[predicted] != 0).all())
        assert bool((change[~predicted] == 0).all())
        assert torch.equal(noisy[i].y, clean[i].y)


@pytest.mark.parametrize("kind", ["independent", "walk"])
def test_size_of_the_noise(lattice, kind):
    mesh = lattice("quad", size=60)
    trajectory = make_trajectory(lattice, num_frames=6, mesh=mesh)
    options = {"state": ["velocity", "heat", "pressure"], "outputs": [], "history": 4}
    noise = {"velocity": 0.5, "heat": 2.0}
    windows = MeshWindows([trajectory], **options, noise=noise, noise_kind=kind)
    change = (windows[1].x - MeshWindows([trajectory], **options)[1].x).double()
    assert bool((change[..., 3] == 0).all())
    share = torch.arange(1, 5).div(4).sqrt() if kind == "walk" else torch.ones(4)
    wanted = share[:, None].double() * torch.tensor([0.5, 0.5, 2.0])
    assert torch.allclose(change[..., :3].std(0), wanted, rtol=0.05)
    assert bool((change.mean(0).abs() < 0.1).all())
    velocity = change[..., 0].T
    steps = velocity.diff(dim=0) if kind == "walk" else velocity
    correlation = torch.corrcoef(torch.cat([steps, change[..., 1].T[:1], velocity[:1]]))
    apart = correlation[: len(steps), : len(steps)] - torch.eye(len(steps))
    assert bool((apart.abs() < 0.06).all())
    assert abs(float(correlation[-1, -2])) < 0.06


def test_noise_walks_unless_told_otherwise(two):
    default, walk, independent = (
        MeshWindows(two, history=3, noise=0.1, **kind)[0].x
        for kind in ({}, {"noise_kind": "walk"}, {"noise_kind": "independent"})
    )
    assert torch.equal(default, walk)
    assert not torch.equal(default, independent)
    single = [MeshWindows(two, noise=0.1, noise_kind=kind)[0].x for kind in NOISE_KINDS]
    assert torch.equal(*single)


def test_noise_is_drawn_anew(two):
    windows = MeshWindows(two, history=2, noise=0.1)
    first = [windows[i].x for i in range(4)]
    clean = [MeshWindows(two, history=2)[i].x for i in range(4)]
    noise = [x - c for x, c in zip(first, clean)]
    assert not torch.allclose(noise[0], noise[1])
    assert torch.equal(windows[1].x, first[1])
    windows.set_epoch(1)
    assert not torch.equal(windows[1].x, first[1])
    windows.set_epoch(0)
    assert torch.equal(windows[1].x, first[1])
    assert torch.equal(windows[1 - len(windows)].x, first[1])
    assert torch.equal(MeshWindows(two, history=2, noise=0.1)[1].x, first[1])
    assert not torch.equal(MeshWindows(two, history=2, noise=0.1, seed=1)[1].x, first[1])


@pytest.mark.parametrize("persistent", [False, True])
def test_noise_is_the_same_with_workers(two, persistent):
    alone, shared = (MeshWindows(two, noise=0.1) for _ in range(2))
    workers = DataLoader(shared, batch_size=5, num_workers=2, persistent_workers=persistent)
    seen = []
    for epoch in range(2):
        for windows in (alone, shared):
            windows.set_epoch(epoch)
        for one, other in zip(DataLoader(alone, batch_size=5), workers, strict=True):
            assert torch.equal(one.x, other.x)
            assert torch.equal(one.edge_index, other.edge_index)
        seen.append(one.x)
    assert not torch.equal(*seen)


@pytest.mark.slow
def test_workers_that_start_from_nothing(two):
    windows = MeshWindows(two, noise=0.1)
    loader = DataLoader(
        windows,
        batch_size=5,
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context="spawn",
    )
    for epoch in range(2):
        windows.set_epoch(epoch)
        for one, other in zip(DataLoader(windows, batch_size=5), loader, strict=True):
            assert torch.equal(one.x, other.x)


def test_the_frames_stay_as_they_are(lattice):
    trajectory = make_trajectory(lattice, mesh=lattice("quad", size=1))
    before = {name: field.copy() for name, field in trajectory.fields.items()}
    windows = MeshWindows([trajectory], history=1, noise=0.1)
    window = windows[0]
    window.x += 1
    window.y += 1
    for name, field in trajectory.fields.items():
        assert np.array_equal(field, before[name])
    assert torch.equal(windows[0].y, windows[0].y)
    assert not torch.equal(window.y, windows[0].y)


def test_mapped_frames_stay_on_disk(lattice, tmp_path):
    trajectory = make_trajectory(lattice, num_frames=400)
    save_trajectory_npz(trajectory, tmp_path / "run.npz")
    windows = MeshWindows([load_trajectory_npz(tmp_path / "run.npz")], noise=0.1)
    copied = pickle.dumps(windows)
    assert len(copied) < 0.3 * trajectory.fields["velocity"].nbytes
    in_memory = MeshWindows([trajectory], noise=0.1)
    for i in (0, 250):
        assert torch.equal(pickle.loads(copied)[i].x, in_memory[i].x)
        assert torch.equal(windows[i].y, in_memory[i].y)


class Lazy(Sequence):
    """Trajectories that are made when they are asked for."""

    def __init__(self, lattice, num_frames):
        self.lattice, self.num_frames = lattice, num_frames

    def __len__(self):
        return len(self.num_frames)

    def __getitem__(self, i):
        if i >= len(self):
            raise IndexError(i)
        return make_trajectory(self.lattice, num_frames=self.num_frames[i], seed=i)


def test_trajectories_may_be_made_when_asked_for(lattice):
    lazy = Lazy(lattice, [5, 3, 6])
    windows, ready = MeshWindows(lazy), MeshWindows(list(lazy))
    assert len(windows) == 4 + 2 + 5
    for i in range(len(windows)):
        assert torch.equal(windows[i].y, ready[i].y)
        assert torch.equal(windows[i].edge_attr, ready[i].edge_attr)


def test_indices(two):
    windows = MeshWindows(two)
    assert len(windows) == 11 + 8
    assert torch.equal(windows[-1].x, windows[18].x)
    assert torch.equal(windows[np.int64(2)].x, windows[2].x)
    for i in (19, -20):
        with pytest.raises(IndexError, match=f"window {i} of 19"):
            windows[i]
    assert str(windows) == "MeshWindows(19, trajectories=2, history=1)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"history": 0}, "history must be at least 1, got 0"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"noise_kind": "white"}, r"unknown noise_kind 'white'; choose from .*walk"),
        ({"noise": -0.1}, "noise must be a number from 0 up, got -0.1 for velocity"),
        ({"noise": float("nan")}, "noise must be a number from 0 up"),
        ({"noise": {"pressure": 1.0}}, "noise on 'pressure', but the state is velocity"),
        ({"state": ()}, "state must name at least one field"),
        ({"state": "velocity"}, r"state must be a sequence of names, as \('velocity',\)"),
        ({"outputs": ("heat", "heat")}, "outputs must not name anything twice"),
        ({"state": ("heat",), "outputs": ("heat",)}, "a field is state or output, not both"),
        ({"state": ("speed",)}, "no field 'speed'; its fields are velocity, pressure, heat"),
        ({"conditions": ("nu",)}, "no parameter 'nu'; it has viscosity, speed"),
        ({"static": ("depth",)}, "no static field 'depth'; it has none"),
        ({"frames": (0, 10)}, r"within 0 and 9, the frames of trajectory 1, got \(0, 10\)"),
        ({"frames": (-1, 5)}, r"frames must lie within 0 and 12"),
        ({"history": 9}, "needs at least 10 frames, but trajectory 1 gives 9"),
        ({"history": 3, "frames": (2, 5)}, "needs at least 4 frames, but trajectory 0 gives 3"),
        ({"predicted_types": ("handle",)}, "no node is of a predicted type"),
    ],
)
def test_bad_options(two, options, message):
    with pytest.raises(ValueError, match=message):
        MeshWindows(two, **options)


def test_trajectories_that_do_not_fit_together(lattice):
    first = make_trajectory(lattice)
    with pytest.raises(ValueError, match="at least one trajectory, got none"):
        MeshWindows([])
    with pytest.raises(ValueError, match="epoch must be at least 0, got -1"):
        MeshWindows([first]).set_epoch(-1)
    solid = make_trajectory(lattice, kind="tetra")
    with pytest.raises(ValueError, match=r"same channels: .*'velocity': 2.* trajectory 1 has"):
        MeshWindows([first, solid])
    with pytest.raises(ValueError, match="same dimension: the first has 2, trajectory 1 has 3"):
        MeshWindows([first, solid], state=["heat"])
    named = Mesh(first.mesh.pos, first.mesh.cells, None, ("normal", "outflow"))
    with pytest.raises(ValueError, match="same node types"):
        MeshWindows([first, make_trajectory(lattice, mesh=named)])
    slow = MeshTrajectory(first.mesh, first.fields, first.times * 2)
    with pytest.raises(ValueError, match=r"same time step: the first has 0.1, .* has 0.2"):
        MeshWindows([first, slow])
    one = make_trajectory(lattice, static={"depth": np.ones((16, 1))})
    other = make_trajectory(lattice, static={"depth": np.ones((16, 2))})
    with pytest.raises(ValueError, match="same static fields"):
        MeshWindows([one, other])
    with pytest.raises(ValueError, match="no static field 'depth'"):
        MeshWindows([one, first])


def test_frames_that_are_not_finite(lattice):
    trajectory = make_trajectory(lattice)
    trajectory.fields["pressure"][4] = np.nan
    windows = MeshWindows([trajectory])
    assert windows[2].y.isfinite().all()
    with pytest.raises(ValueError, match=r"pressure of the trajectory holds NaN .* in frame 4"):
        windows[3]
