import sys

import numpy as np
import pytest
import torch

from pyg_stmamba.data import Scaler
from pyg_stmamba.data.mesh import Mesh, MeshCalculus, MeshTrajectory
from pyg_stmamba.data.mesh.frame_statistics import frame_statistics
from pyg_stmamba.data.mesh.mesh_windows import MeshWindows


def make_trajectory(lattice, num_frames=12, size=3, seed=0, offset=0.0, **options):
    generator = np.random.default_rng(seed)
    mesh = lattice("triangle", size=size, seed=seed)
    border = ((mesh.pos == 0) | (mesh.pos == 1)).any(1)
    mesh = Mesh(mesh.pos, mesh.cells, np.where(border, 6, 0))
    velocity = offset + generator.normal(size=(num_frames, mesh.num_nodes, 2)) * [1.0, 5.0]
    pressure = generator.normal(3.0, 2.0, size=(num_frames, mesh.num_nodes, 1))
    fields = {"velocity": velocity.astype(np.float32), "pressure": pressure.astype(np.float32)}
    options = {
        "parameters": {"viscosity": 1e-6 * (1 + 0.1 * seed), "speed": 2.0},
        "static": {"depth": generator.normal(size=(mesh.num_nodes, 1))},
        **options,
    }
    return MeshTrajectory(mesh, fields, np.arange(num_frames) * 0.1, **options)


@pytest.fixture
def two(lattice):
    return [make_trajectory(lattice), make_trajectory(lattice, num_frames=9, size=4, seed=1)]


def check(moments, values, std=None):
    values = np.concatenate([np.asarray(v, dtype=np.float64) for v in values])
    assert moments.mean.dtype == moments.std.dtype == moments.rms.dtype == torch.float64
    assert np.allclose(moments.mean, values.mean(0), rtol=1e-10, atol=1e-12)
    assert np.allclose(moments.std, values.std(0) if std is None else std, rtol=1e-10)
    assert np.allclose(moments.rms, np.sqrt((values**2).mean(0)), rtol=1e-10)


@pytest.mark.parametrize("values_at_once", [1 << 22, 100, 1])
def test_equals_brute_force_over_pairs_of_frames(two, monkeypatch, values_at_once):
    # The function of this name hides its module.
    monkeypatch.setattr(sys.modules[frame_statistics.__module__], "VALUES_AT_ONCE", values_at_once)
    # History, stride and noise make no difference.
    windows = MeshWindows(
        two, history=3, stride=2, noise=0.5, frames=(1, 8), conditions=["viscosity", "speed"]
    )
    given = frame_statistics(windows)
    pairs = list(MeshWindows(two, frames=(1, 8), conditions=["viscosity", "speed"]))
    assert len(pairs) == 12
    check(given.state, [pair.x[:, 0] for pair in pairs])
    check(given.outputs, [pair.y[:, 0, 2:] for pair in pairs])
    change = [(pair.y[:, 0, :2].double() - pair.x[:, 0].double())[pair.predicted] for pair in pairs]
    check(given.change, change)
    check(given.edge_attr, [pairs[0].edge_attr, pairs[-1].edge_attr])
    check(given.static, [pairs[0].static, pairs[-1].static])
    assert given.derivatives.mean.numel() == 0
    conditions = np.concatenate([pairs[0].conditions, pairs[-1].conditions]).astype(np.float64)
    check(given.conditions, [conditions], std=[conditions[:, 0].std(), 1.0])


@pytest.mark.parametrize("values_at_once", [1 << 22, 100])
def test_derivatives_are_those_of_the_frames(two, monkeypatch, values_at_once):
    monkeypatch.setattr(sys.modules[frame_statistics.__module__], "VALUES_AT_ONCE", values_at_once)
    given = frame_statistics(MeshWindows(two, history=2, noise=0.5, gradients=True)).derivatives
    rows = []
    for trajectory in two:
        velocity = np.asarray(trajectory.fields["velocity"], dtype=np.float64)[:-1].swapaxes(0, 1)
        gradient = MeshCalculus(trajectory.mesh).node_gradient(velocity)
        advection = np.einsum("ntsd,ntd->nts", gradient, velocity)
        rows += [np.c_[gradient.reshape(-1, 4), advection.reshape(-1, 2)]]
    values = np.concatenate(rows)
    np.testing.assert_allclose(given.mean, values.mean(0), atol=1e-5)
    np.testing.assert_allclose(given.std, values.std(0), rtol=1e-6)


def test_agrees_with_the_scaler_of_series(two):
    given = frame_statistics(MeshWindows(two[:1], outputs=()))
    frames = torch.from_numpy(two[0].frames("velocity", 0, 11))
    scaler = Scaler(2).fit(frames)
    assert torch.allclose(given.state.mean.float(), scaler.mean)
    assert torch.allclose(given.state.std.float(), scaler.std)


def test_frames_outside_the_range_do_not_count(lattice):
    clean, spoilt = make_trajectory(lattice), make_trajectory(lattice)
    for name in spoilt.fields:
        spoilt.fields[name][:2] = np.nan
        spoilt.fields[name][9:] = 1e9
    one, other = (frame_statistics(MeshWindows([t], frames=(2, 9))) for t in (clean, spoilt))
    for a, b in zip(one, other):
        assert torch.equal(a.mean, b.mean)
        assert torch.equal(a.std, b.std)


def test_what_is_not_there_has_no_channels(lattice):
    trajectory = make_trajectory(lattice, static={})
    given = frame_statistics(MeshWindows([trajectory], outputs=()))
    for nothing in (given.outputs, given.conditions, given.static):
        assert [each.shape for each in nothing] == [(0,)] * 3


def test_sums_do_not_lose_small_variations(lattice):
    # Sums of squares would lose all digits of a variance of 1 beside a mean of 1e6.
    trajectory = make_trajectory(lattice, offset=1e6)
    given = frame_statistics(MeshWindows([trajectory]))
    check(given.state, [trajectory.fields["velocity"][:-1].reshape(-1, 2)])


def test_constant_channels(lattice):
    trajectory = make_trajectory(lattice)
    shape = trajectory.fields["velocity"].shape
    generator = np.random.default_rng(0)
    velocity = trajectory.fields["velocity"]
    velocity[..., 1] = 0.1
    trajectory.fields["pressure"][:] = 0
    given = frame_statistics(MeshWindows([trajectory]))
    assert float(given.state.std[1]) == 1
    assert float(given.state.std[0]) != 1
    assert given.change.std[1] == given.change.rms[1] == 1
    assert (given.outputs.mean, given.outputs.std, given.outputs.rms) == (0, 1, 1)

    # Rounding of a flow in a plane, in the third direction, is no variation beside the others.
    velocity[..., 1] = generator.normal(size=shape[:2]) * 1e-12
    given = frame_statistics(MeshWindows([trajectory]))
    assert given.state.std[1] == given.state.rms[1] == given.change.std[1] == 1
    # But a field that is small as a whole is a matter of units.
    trajectory.fields["pressure"][:] = 1e-12 * generator.normal(size=(*shape[:2], 1))
    given = frame_statistics(MeshWindows([trajectory]))
    assert 0.5e-12 < float(given.outputs.std) < 2e-12


def test_a_steady_flow_does_not_change(lattice):
    trajectory = make_trajectory(lattice, num_frames=6)
    velocity = trajectory.fields["velocity"]
    velocity[:] = velocity[:1] * np.array([1.0, 1 + 4e-8])[np.arange(6) % 2, None, None]
    assert np.diff(velocity, axis=0).any()  # what is left is rounding
    given = frame_statistics(MeshWindows([trajectory]))
    assert given.change.std.tolist() == given.change.rms.tolist() == [1, 1]


def test_a_steady_drift_is_no_spread_but_has_a_size(lattice):
    trajectory = make_trajectory(lattice)
    trajectory.fields["velocity"][:] = np.arange(12)[:, None, None] * np.array([0.5, -2.0])
    given = frame_statistics(MeshWindows([trajectory]))
    assert given.change.mean.tolist() == [0.5, -2.0]
    assert given.change.std.tolist() == [1.0, 1.0]
    assert given.change.rms.tolist() == [0.5, 2.0]


def test_values_that_are_not_finite_are_named(two):
    two[1].fields["pressure"][3, 2] = np.inf
    windows = MeshWindows(two)
    with pytest.raises(ValueError, match="pressure of the trajectory holds NaN or infinity"):
        frame_statistics(windows)


def test_progress(two, capsys):
    frame_statistics(MeshWindows(two))
    assert capsys.readouterr() == ("", "")
    frame_statistics(MeshWindows(two), progress=True)
    assert "Statistics: 100%" in capsys.readouterr().err
