import numpy as np
import pytest

from pyg_stmamba.data.mesh import NODE_TYPES, Mesh, MeshTrajectory
from pyg_stmamba.data.mesh_files.pvd_series import read_pvd, write_pvd

meshio = pytest.importorskip("meshio")
pyvista = pytest.importorskip("pyvista")


@pytest.mark.parametrize("encoding", ["appended", "inline"])
def test_pyvista_and_meshio_read_what_is_written(random_trajectory, tmp_path, encoding):
    trajectory = random_trajectory(num_frames=4)
    write_pvd(tmp_path / "flow & co.pvd", trajectory, encoding=encoding)
    reader = pyvista.get_reader(tmp_path / "flow & co.pvd")
    assert reader.time_values == trajectory.times.tolist()
    for frame, time in enumerate(trajectory.times):
        reader.set_active_time_value(time)
        (grid,) = reader.read()
        assert set(grid.point_data.keys()) == {
            "velocity",
            "pressure",
            "depth",
            "ids",
            "node_type",
        }
        velocity = trajectory.frames("velocity", frame, frame + 1)[:, 0]
        np.testing.assert_array_equal(grid["velocity"], np.pad(velocity, ((0, 0), (0, 1))))
        pressure = trajectory.frames("pressure", frame, frame + 1)[:, 0, 0]
        np.testing.assert_array_equal(grid["pressure"], pressure)
        np.testing.assert_array_equal(grid["depth"], trajectory.static["depth"][:, 0])
        types = np.array(NODE_TYPES)[grid["node_type"]]
        names = np.array(trajectory.mesh.node_type_names)
        np.testing.assert_array_equal(types, names[trajectory.mesh.node_type])
        if encoding == "inline":
            file = meshio.read(tmp_path / "flow & co" / f"flow & co_{frame:06d}.vtu")
            np.testing.assert_array_equal(file.point_data["velocity"], grid["velocity"])


def test_files_and_times_are_read_as_they_are_written(random_trajectory, tmp_path):
    trajectory = random_trajectory(num_frames=3)
    write_pvd(tmp_path / "flow.pvd", trajectory, fields=["pressure"], compress=True)
    series = read_pvd(tmp_path / "flow.pvd")
    np.testing.assert_array_equal(series.times, trajectory.times)
    assert series.name == "flow"
    assert [file.name for file in series.files] == [f"flow_{i:06d}.vtu" for i in range(3)]
    snapshot = series.read(2)
    assert set(snapshot.fields) == {"pressure", "node_type"}
    np.testing.assert_array_equal(
        snapshot.fields["pressure"].reshape(-1, 1), trajectory.frames("pressure", 2, 3)[:, 0]
    )
    np.testing.assert_array_equal(snapshot.cells["triangle"], trajectory.mesh.cells["triangle"])


def test_a_failure_leaves_no_collection(tmp_path):
    mesh = Mesh(np.eye(3, 2), {"triangle": np.array([[0, 1, 2]])})
    values = np.zeros((3, 3, 1))
    write_pvd(tmp_path / "flow.pvd", MeshTrajectory(mesh, {"p": values}, np.arange(3)))
    values[2] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity in frame 2"):
        write_pvd(tmp_path / "flow.pvd", MeshTrajectory(mesh, {"p": values}, np.arange(3)))
    assert not (tmp_path / "flow.pvd").exists()


def test_unknown_fields_are_refused_before_anything_is_lost(random_trajectory, tmp_path):
    trajectory = random_trajectory()
    write_pvd(tmp_path / "flow.pvd", trajectory)
    with pytest.raises(ValueError, match="no field 'speed'; its fields are velocity, pressure"):
        write_pvd(tmp_path / "flow.pvd", trajectory, fields=["speed"])
    with pytest.raises(ValueError, match="unknown encoding 'ascii'"):
        write_pvd(tmp_path / "flow.pvd", trajectory, encoding="ascii")
    assert len(read_pvd(tmp_path / "flow.pvd").files) == 5


HEAD = '<VTKFile type="Collection"><Collection>'
TAIL = "</Collection></VTKFile>"


def test_times_that_are_not_stated_are_counted(random_trajectory, tmp_path):
    write_pvd(tmp_path / "flow.pvd", random_trajectory(num_frames=2))
    sets = "".join(f'<DataSet file="flow/flow_{i:06d}.vtu"/>' for i in range(2))
    (tmp_path / "other.pvd").write_text(HEAD + sets + TAIL)
    assert read_pvd(tmp_path / "other.pvd").times.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a PVD file: no element found"),
        (HEAD, "is not a PVD file: no element found"),
        ("<VTKFile type='ImageData'/>", "expected a VTKFile of type Collection, got a VTKFile of"),
        ("<html/>", "got a html of type None"),
        (HEAD + TAIL, "names no files"),
        (HEAD + '<DataSet timestep="now" file="a.vtu"/>' + TAIL, "the time 'now', which is no num"),
        (HEAD + '<DataSet part="1" file="a.vtu"/>' + TAIL, "several parts at a time; merge them"),
    ],
)
def test_broken_collections(tmp_path, text, message):
    (tmp_path / "a.vtu").touch()
    (tmp_path / "flow.pvd").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_pvd(tmp_path / "flow.pvd")


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"flow.pvd"):
        read_pvd(tmp_path / "flow.pvd")
    (tmp_path / "flow.pvd").write_text(HEAD + '<DataSet timestep="0" file="a.vtu"/>' + TAIL)
    with pytest.raises(FileNotFoundError, match=r"1 of 1 files .* the first is .*a.vtu"):
        read_pvd(tmp_path / "flow.pvd")


def test_external_entities_are_not_read(tmp_path):
    (tmp_path / "secret.txt").write_text("a.vtu")
    (tmp_path / "a.vtu").touch()
    (tmp_path / "flow.pvd").write_text(
        f'<!DOCTYPE a [<!ENTITY x SYSTEM "file://{tmp_path}/secret.txt">]>'
        f'{HEAD}<DataSet timestep="0" file="a.vtu">&x;</DataSet>{TAIL}'
    )
    with pytest.raises(ValueError, match="undefined entity"):
        read_pvd(tmp_path / "flow.pvd")
