import numpy as np
import pytest

from pyg_stmamba.data.mesh import Mesh, MeshTrajectory
from pyg_stmamba.data.mesh_files.xdmf_file import write_xdmf
from pyg_stmamba.data.mesh_files.xdmf_series import XdmfSeries

h5py = pytest.importorskip("h5py")
meshio = pytest.importorskip("meshio")
pyvista = pytest.importorskip("pyvista")


def moving(mesh, num_frames=3):
    generator = np.random.default_rng(0)
    shape = (num_frames, mesh.num_nodes)
    return MeshTrajectory(
        mesh,
        {
            "velocity": generator.normal(size=(*shape, mesh.dim)).astype(np.float32),
            "p: <kPa>/1": generator.normal(size=(*shape, 1)).astype(np.float32),
        },
        np.array([0.1, 1 / 3, 2.0])[:num_frames],
        static={"depth": generator.normal(size=(mesh.num_nodes, 1))},
    )


@pytest.mark.parametrize("data", ["hdf5", "binary"])
@pytest.mark.parametrize("kind", ["triangle", "quad", "tetra", "pyramid", "wedge", "hexahedron"])
def test_pyvista_reads_what_is_written(lattice, tmp_path, kind, data):
    trajectory = moving(lattice(kind, size=2))
    mesh = trajectory.mesh
    write_xdmf(tmp_path / "new" / "flow.xdmf", trajectory, data=data)
    reader = pyvista.get_reader(tmp_path / "new" / "flow.xdmf")
    assert reader.time_values == trajectory.times.tolist()
    for frame, time in enumerate(trajectory.times):
        reader.set_active_time_value(time)
        grid = reader.read()
        points = np.pad(mesh.pos, ((0, 0), (0, 3 - mesh.dim)))
        np.testing.assert_array_equal(grid.points, points)
        np.testing.assert_array_equal(next(iter(grid.cells_dict.values())), mesh.cells[kind])
        for name in trajectory.fields:
            values = trajectory.frames(name, frame, frame + 1)[:, 0]
            assert grid[name].dtype == np.float32
            np.testing.assert_array_equal(
                grid[name].reshape(len(points), -1)[:, : values.shape[1]], values
            )
        assert grid["velocity"].shape == (len(points), 3)
        np.testing.assert_array_equal(grid["depth"], trajectory.static["depth"][:, 0])
        np.testing.assert_array_equal(grid["node_type"], mesh.node_type)


def test_meshio_reads_what_is_written(lattice, tmp_path):
    trajectory = moving(lattice("triangle", size=3))
    trajectory.fields["pressure"] = trajectory.fields.pop("p: <kPa>/1")
    write_xdmf(tmp_path / "flow.xdmf", trajectory)
    with meshio.xdmf.TimeSeriesReader(tmp_path / "flow.xdmf") as reader:
        points, cells = reader.read_points_cells()
        np.testing.assert_array_equal(points[:, :2], trajectory.mesh.pos)
        np.testing.assert_array_equal(cells[0].data, trajectory.mesh.cells["triangle"])
        for frame in range(3):
            time, values, _ = reader.read_data(frame)
            assert time == trajectory.times[frame]
            for name, width in {"velocity": 2, "pressure": 1}.items():
                expected = trajectory.frames(name, frame, frame + 1)[:, 0]
                np.testing.assert_array_equal(values[name][:, :width], expected)


@pytest.mark.parametrize("data", ["hdf5", "binary"])
def test_cells_of_several_types(tmp_path, data):
    pos = np.array([[0, 0], [1, 0], [2, 0], [0, 1], [1, 1]], dtype=float)
    cells = {
        "triangle": np.array([[1, 2, 4]]),
        "line": np.array([[0, 1]]),
        "quad": np.array([[0, 1, 4, 3]]),
    }
    trajectory = moving(Mesh(pos, cells), num_frames=1)
    write_xdmf(tmp_path / "flow.xdmf", trajectory, data=data)
    grid = pyvista.read(tmp_path / "flow.xdmf")
    assert grid.cells.tolist() == [3, 1, 2, 4, 4, 0, 1, 4, 3]
    snapshot = XdmfSeries(tmp_path / "flow.xdmf").read(0)
    assert {kind: block.tolist() for kind, block in snapshot.cells.items()} == {
        "triangle": [[1, 2, 4]],
        "quad": [[0, 1, 4, 3]],
    }


def test_the_mesh_is_stored_once(lattice, tmp_path):
    mesh = lattice("triangle", size=10)
    sizes = []
    for frames in (1, 3):
        write_xdmf(tmp_path / "flow.xdmf", moving(mesh, frames), fields=["velocity"], data="binary")
        sizes.append((tmp_path / "flow.bin").stat().st_size)
    assert sizes[1] - sizes[0] == 2 * mesh.num_nodes * 3 * 4


def test_a_failure_leaves_nothing(lattice, tmp_path):
    trajectory = moving(lattice("triangle", size=2))
    write_xdmf(tmp_path / "flow.xdmf", trajectory)
    with pytest.raises(ValueError, match="no field 'p'; its fields are velocity, p: <kPa>/1"):
        write_xdmf(tmp_path / "flow.xdmf", trajectory, fields=["p"])
    with pytest.raises(ValueError, match="unknown data 'xml'; choose from hdf5, binary"):
        write_xdmf(tmp_path / "flow.xdmf", trajectory, data="xml")
    assert len(XdmfSeries(tmp_path / "flow.xdmf").times) == 3
    trajectory.fields["velocity"][1] = np.inf
    with pytest.raises(ValueError, match="NaN or infinity in frame 1"):
        write_xdmf(tmp_path / "flow.xdmf", trajectory)
    assert [file.name for file in tmp_path.iterdir()] == ["flow.h5"]
