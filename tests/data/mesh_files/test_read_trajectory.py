import pickle
import sys

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from pyg_stmamba.data.mesh import NODE_TYPES, Mesh, MeshTrajectory
from pyg_stmamba.data.mesh_files.hdf5_trajectory import save_trajectory_hdf5
from pyg_stmamba.data.mesh_files.npz_trajectory import save_trajectory_npz
from pyg_stmamba.data.mesh_files.pvd_series import write_pvd
from pyg_stmamba.data.mesh_files.read_trajectory import read_trajectory
from pyg_stmamba.data.mesh_files.vtu_file import write_vtu
from pyg_stmamba.data.mesh_files.xdmf_file import write_xdmf

meshio = pytest.importorskip("meshio")


@pytest.fixture
def channel(lattice):
    """A flow through a unit square from the left to the right."""
    mesh = lattice("triangle", size=6)
    x, y = mesh.pos.T
    wall = np.isclose(y, 0) | np.isclose(y, 1)
    frames = np.arange(5)[:, None]
    speed = (~wall * y * (1 - y) * (1 + 0.1 * frames)).astype(np.float32)
    generator = np.random.default_rng(0)
    types = np.where(wall, NODE_TYPES.index("wall"), 0)
    types[~wall & np.isclose(x, 0)] = NODE_TYPES.index("inflow")
    types[~wall & np.isclose(x, 1)] = NODE_TYPES.index("outflow")
    return MeshTrajectory(
        Mesh(mesh.pos, mesh.cells, types),
        {
            "velocity": np.stack([speed, 0 * speed], axis=2),
            "pressure": generator.normal(size=(5, mesh.num_nodes, 1)).astype(np.float32),
        },
        np.array([0, 0.1, 0.2, 0.30000000000000004, 1]),
        static={"depth": generator.normal(size=(mesh.num_nodes, 1)).astype(np.float32)},
    )


def assert_same_flow(one, other):
    np.testing.assert_array_equal(one.mesh.pos, other.mesh.pos)
    assert one.mesh.cells.keys() == other.mesh.cells.keys()
    for kind, block in one.mesh.cells.items():
        np.testing.assert_array_equal(block, other.mesh.cells[kind])
    np.testing.assert_array_equal(one.mesh.node_type, other.mesh.node_type)
    np.testing.assert_array_equal(one.times, other.times)
    for name in one.fields:
        np.testing.assert_array_equal(one.frames(name), other.frames(name))


@pytest.mark.parametrize("kind", ["pvd", "pvd appended", "xdmf", "xdmf binary"])
def test_what_is_written_is_read_back(channel, tmp_path, kind):
    if kind.startswith("pvd"):
        path = tmp_path / "flow.pvd"
        write_pvd(path, channel, encoding="appended" if "appended" in kind else "inline")
    else:
        path = tmp_path / "flow.xdmf"
        write_xdmf(path, channel, data="binary" if "binary" in kind else "hdf5")
    trajectory = read_trajectory(path, static=["depth"])
    assert list(trajectory.fields) == ["velocity", "pressure"]
    assert trajectory.name == "flow"
    assert_same_flow(channel, trajectory)
    np.testing.assert_array_equal(trajectory.static["depth"], channel.static["depth"])
    assert_same_flow(channel, pickle.loads(pickle.dumps(trajectory)))
    assert list(read_trajectory(path).fields) == ["depth", "velocity", "pressure"]


@pytest.mark.parametrize("kind", ["quad", "tetra", "pyramid", "wedge", "hexahedron"])
def test_other_cells_are_read_back(lattice, tmp_path, kind):
    mesh = lattice(kind, size=2, shake=0)
    values = np.random.default_rng(0).normal(size=(2, mesh.num_nodes, mesh.dim))
    trajectory = MeshTrajectory(mesh, {"u": values.astype(np.float32)}, np.array([1, 2]))
    write_pvd(tmp_path / "a.pvd", trajectory)
    write_xdmf(tmp_path / "a.xdmf", trajectory)
    for name in ("a.pvd", "a.xdmf"):
        assert_same_flow(trajectory, read_trajectory(tmp_path / name))


def test_node_types(channel, tmp_path):
    path = tmp_path / "flow.pvd"
    untyped = Mesh(channel.mesh.pos, channel.mesh.cells)
    write_pvd(path, channel)
    expected = channel.mesh.node_type
    assert (read_trajectory(path).mesh.node_type == expected).all()
    assert (read_trajectory(path, node_types="node_type").mesh.node_type == expected).all()
    assert (read_trajectory(path, node_types=expected).mesh.node_type == expected).all()
    # Without the array they come from the flow, or from rules.
    write_pvd(path, MeshTrajectory(untyped, channel.fields, channel.times))
    for file in (tmp_path / "flow").iterdir():
        points = meshio.read(file)
        points.point_data.pop("node_type")
        points.write(file)
    assert (read_trajectory(path).mesh.node_type == expected).all()
    assert (read_trajectory(path, velocity="velocity").mesh.node_type == expected).all()
    rules = {
        "wall": "boundary & (speed == 0)",
        "inflow": "boundary & (x < 1e-6)",
        "outflow": "boundary & (velocity_x > 0)",
    }
    assert (read_trajectory(path, node_types=rules).mesh.node_type == expected).all()
    assert not read_trajectory(path, fields=["pressure"]).mesh.node_type.any()
    own = read_trajectory(path, node_types={"rim": "boundary"}, node_type_names=["core", "rim"])
    assert own.mesh.node_type_names == ("core", "rim")
    assert own.mesh.nodes_of("rim").sum() == 24


@pytest.mark.parametrize("suffix", ["pvd", "xdmf"])
def test_types_of_other_names_are_not_mistaken(channel, tmp_path, suffix):
    names, own = ("normal", "wall", "inflow", "outflow"), ("core", "rim")
    write = {"pvd": write_pvd, "xdmf": write_xdmf}[suffix]
    path = tmp_path / f"flow.{suffix}"
    mesh, fields = channel.mesh, channel.fields
    types = np.array([names.index(NODE_TYPES[number]) for number in mesh.node_type])
    fewer = Mesh(mesh.pos, mesh.cells, types, names)
    write(path, MeshTrajectory(fewer, fields, channel.times))
    np.testing.assert_array_equal(read_trajectory(path).mesh.node_type, mesh.node_type)
    other = Mesh(mesh.pos, mesh.cells, np.arange(mesh.num_nodes) % 2, own)
    write(path, MeshTrajectory(other, fields, channel.times))
    np.testing.assert_array_equal(read_trajectory(path).mesh.node_type, mesh.node_type)
    read = read_trajectory(path, node_types="own_node_type", node_type_names=own)
    np.testing.assert_array_equal(read.mesh.node_type, other.node_type)


def test_rules_about_places_read_no_frames(channel, tmp_path, monkeypatch):
    path = tmp_path / "flow.pvd"
    write_pvd(path, channel)
    # The function has taken the name of its module in the package.
    module = sys.modules[read_trajectory.__module__]
    monkeypatch.setattr(module, "summarize_flow", lambda *_: pytest.fail("read all"))
    read_trajectory(path, node_types={"wall": "boundary & (y < 0.5)"})
    with pytest.raises(pytest.fail.Exception, match="read all"):
        read_trajectory(path, node_types={"wall": "speed == 0"})


def test_fields_times_and_frames(channel, tmp_path):
    path = tmp_path / "flow.pvd"
    write_pvd(path, channel)
    trajectory = read_trajectory(
        path,
        fields={"u": "velocity"},
        time_step=0.01,
        frames=slice(1, 4),
        parameters={"viscosity": 1e-3},
        name="run 7",
    )
    assert list(trajectory.fields) == ["u"]
    np.testing.assert_allclose(trajectory.times, channel.times[1:4] * 0.01)
    np.testing.assert_array_equal(trajectory.frames("u"), channel.frames("velocity", 1, 4))
    assert trajectory.parameters == {"viscosity": 1e-3}
    assert trajectory.name == "run 7"


def test_frames_with_other_meshes(channel, tmp_path):
    path = tmp_path / "flow.pvd"
    write_pvd(path, channel)
    file = tmp_path / "flow" / "flow_000002.vtu"
    mesh = channel.mesh
    velocity = channel.frames("velocity", 2, 3)[:, 0]
    write_vtu(file, mesh.pos + 0.01, mesh.cells, {"velocity": velocity})
    rules = {"wall": "boundary"}
    with pytest.raises(ValueError, match=r"frame 2 \(flow_000002.vtu\) has a different mesh than"):
        read_trajectory(path, node_types=rules).frames("velocity")
    trajectory = read_trajectory(path, fields=["velocity"], node_types=rules, mesh="first")
    np.testing.assert_array_equal(trajectory.frames("velocity"), channel.frames("velocity"))
    write_vtu(file, np.eye(3, 2), {"triangle": np.array([[0, 1, 2]])}, {"velocity": np.eye(3)})
    with pytest.raises(ValueError, match=r"frame 2 \(flow_000002.vtu\).* 3 points instead of 49"):
        read_trajectory(path, node_types=rules, mesh="first").frames("velocity")


def test_frames_with_nan_are_refused_when_asked_for(channel, tmp_path):
    path = tmp_path / "flow.pvd"
    write_pvd(path, channel)
    mesh = channel.mesh
    values = np.full((mesh.num_nodes, 3), np.nan, np.float32)
    write_vtu(tmp_path / "flow" / "flow_000003.vtu", mesh.pos, mesh.cells, {"velocity": values})
    trajectory = read_trajectory(path, fields=["velocity"])
    trajectory.frames("velocity", 0, 3)
    with pytest.raises(ValueError, match=r"velocity of the trajectory 'flow' holds NaN .* frame 3"):
        trajectory.frames("velocity")


class Windows(Dataset):
    def __init__(self, trajectory):
        self.trajectory = trajectory

    def __len__(self):
        return self.trajectory.num_frames - 1

    def __getitem__(self, start):
        return self.trajectory.frames(["velocity", "pressure"], start, start + 2)


@pytest.mark.parametrize("suffix", ["pvd", "xdmf"])
def test_several_workers_share_a_trajectory(channel, tmp_path, suffix):
    {"pvd": write_pvd, "xdmf": write_xdmf}[suffix](tmp_path / f"flow.{suffix}", channel)
    windows = Windows(read_trajectory(tmp_path / f"flow.{suffix}"))
    loader = DataLoader(windows, batch_size=None, num_workers=2)
    expected = Windows(channel)
    for start, window in enumerate(loader):
        np.testing.assert_array_equal(window, expected[start])


def test_files_of_this_package(random_trajectory, tmp_path, assert_same_trajectory):
    trajectory = random_trajectory()
    save_trajectory_npz(trajectory, tmp_path / "a.npz")
    save_trajectory_hdf5(trajectory, tmp_path / "a.h5")
    for path in (tmp_path / "a.npz", tmp_path / "a.h5"):
        assert_same_trajectory(read_trajectory(path), trajectory)
        assert_same_trajectory(read_trajectory([str(path)]), trajectory)
        assert list(read_trajectory(path, fields=["pressure"]).fields) == ["pressure"]
        with pytest.raises(
            ValueError, match="holds a whole trajectory; frames, name cannot be giv"
        ):
            read_trajectory(path, frames=slice(3), name="b")
        renamed = read_trajectory(path, fields={"speed": "velocity"})
        np.testing.assert_array_equal(renamed.field("speed")[:], trajectory.field("velocity")[:])


def test_one_of_several_in_a_file(random_trajectory, channel, tmp_path, assert_same_trajectory):
    first, second = random_trajectory(), random_trajectory().between(1, 3)
    path = tmp_path / "two.h5"
    save_trajectory_hdf5({"a": first, "b": second}, path)
    assert_same_trajectory(read_trajectory(path, group="b"), second)
    chosen = read_trajectory(path, group="a", fields={"p": "pressure"})
    np.testing.assert_array_equal(chosen.field("p")[:], first.field("pressure")[:])
    with pytest.raises(ValueError, match=r"has 2 trajectories, say which with group=\.\.\.: a, b"):
        read_trajectory(path)
    save_trajectory_npz(first, tmp_path / "one.npz")
    with pytest.raises(ValueError, match=r"one\.npz holds one trajectory, there is no group 'a'"):
        read_trajectory(tmp_path / "one.npz", group="a")
    write_pvd(tmp_path / "flow.pvd", channel)
    with pytest.raises(ValueError, match="group='a' is for HDF5 files of several trajectories"):
        read_trajectory(tmp_path / "flow.pvd", group="a")


def test_bad_input(channel, tmp_path):
    path = tmp_path / "flow.pvd"
    write_pvd(path, channel)
    with pytest.raises(
        ValueError, match="flow has no field 'u'; its fields are depth, node_type, ve"
    ):
        read_trajectory(path, fields={"velocity": "u"})
    with pytest.raises(ValueError, match="flow has no field 'kind'; its fields are"):
        read_trajectory(path, node_types="kind")
    with pytest.raises(ValueError, match="flow has no field 'area'; its fields are"):
        read_trajectory(path, static=["area"])
    with pytest.raises(
        ValueError, match="no field 'u' for velocity; fields are depth, velocity, pr"
    ):
        read_trajectory(path, velocity="u", node_types={"wall": "boundary"})
    with pytest.raises(ValueError, match="unknown mesh 'any'; choose from same, first"):
        read_trajectory(path, mesh="any")
    with pytest.raises(ValueError, match="time_step must be positive, got 0"):
        read_trajectory(path, time_step=0)
    with pytest.raises(ValueError, match=r"node_type must be \[49\], one a node, got \[3\]"):
        read_trajectory(path, node_types=np.zeros(3))
    with pytest.raises(ValueError, match="unknown type"):
        read_trajectory(path, node_type_names=("normal", "wall"))
    with pytest.raises(FileNotFoundError):
        read_trajectory([path, tmp_path / "pressure.pvd"])
    write_vtu(tmp_path / "bad.vtu", channel.mesh.pos, {"triangle": np.array([[0, 1, 99]])}, {})
    with pytest.raises(
        ValueError, match=r"name the points 0 to 99, but there are the points 0 to 48"
    ):
        read_trajectory(tmp_path / "bad.vtu")


def test_a_real_series_of_fenics(shared_data, tmp_path):
    folder = shared_data / "cfd" / "lshape_fenics" / "results"
    if not folder.exists():
        pytest.skip(f"no real data: {folder} is absent")
    trajectory = read_trajectory([folder / "velocity.pvd", folder / "pressure.pvd"], time_step=0.01)
    assert repr(trajectory) == ("MeshTrajectory(137 nodes, 300 frames, velocity[2], pressure[1])")
    assert trajectory.mesh.num_cells == 232
    np.testing.assert_allclose(trajectory.times, np.arange(300) * 0.01)
    for frame in (0, 7, 299):
        for name, array in {"velocity": "f_13288", "pressure": "f_13291"}.items():
            file = meshio.read(folder / f"{name}{frame:06d}.vtu")
            values = file.point_data[array].reshape(137, -1)
            read = trajectory.frames(name, frame, frame + 1)[:, 0]
            np.testing.assert_array_equal(read, values[:, : read.shape[1]].astype(np.float32))
    x, y = trajectory.mesh.pos.T
    top, right = y == 1, x == 1
    mesh = trajectory.mesh
    np.testing.assert_array_equal(mesh.nodes_of("inflow"), top & (x > 0) & (x < 0.5))
    np.testing.assert_array_equal(mesh.nodes_of("outflow"), right & (y > 0) & (y < 0.5))
    corner = (x == 0) | (y == 0) | ((x == 0.5) & (y >= 0.5)) | ((y == 0.5) & (x >= 0.5))
    np.testing.assert_array_equal(mesh.nodes_of("wall"), corner)

    fields = {"u": "f_13288", "p": "f_13291"}
    some = read_trajectory(
        folder, fields=fields, node_types={"wall": "y == 0"}, frames=slice(0, 9, 2)
    )
    np.testing.assert_array_equal(some.frames("u"), trajectory.frames("velocity", 0, 9)[:, ::2])
    write_pvd(tmp_path / "copy.pvd", some)
    assert_same_flow(some, read_trajectory(tmp_path / "copy.pvd"))
