import pickle

import numpy as np
import pytest

from pyg_stmamba.data.mesh_files.pyvista_series import PyvistaSeries, snapshot_of_grid

pyvista = pytest.importorskip("pyvista")


def write_ensight(folder, mesh, values, times):
    """Writes triangles and a scalar over time as EnSight Gold, in text."""
    numbers = "\n".join(f"{number:12.5e}" for column in mesh.pos.T for number in column)
    cells = "\n".join("".join(f"{node + 1:10d}" for node in row) for row in mesh.cells["triangle"])
    (folder / "flow.geo").write_text(
        f"flow\nmesh\nnode id off\nelement id off\npart\n{1:10d}\nall\ncoordinates\n"
        f"{mesh.num_nodes:10d}\n{numbers}\n"
        + f"{0:12.5e}\n" * mesh.num_nodes
        + f"tria3\n{mesh.num_cells:10d}\n{cells}\n"
    )
    for frame, column in enumerate(values):
        text = "\n".join(f"{number:12.5e}" for number in column)
        (folder / f"p{frame:02d}.scl").write_text(f"p\npart\n{1:10d}\ncoordinates\n{text}\n")
    (folder / "flow.case").write_text(
        "FORMAT\ntype: ensight gold\nGEOMETRY\nmodel: flow.geo\nVARIABLE\n"
        "scalar per node: 1 p p**.scl\nTIME\ntime set: 1\n"
        f"number of steps: {len(times)}\nfilename start number: 0\nfilename increment: 1\n"
        f"time values: {' '.join(map(str, times))}\n"
    )
    return folder / "flow.case"


def test_ensight_over_time(lattice, tmp_path):
    mesh = lattice("triangle", size=3)
    values = np.random.default_rng(0).normal(size=(3, mesh.num_nodes))
    file = write_ensight(tmp_path, mesh, values, [0.5, 1.0, 4.0])
    series = pickle.loads(pickle.dumps(PyvistaSeries(file)))
    assert series.times.tolist() == [0.5, 1.0, 4.0]
    assert series.where(2) == "t = 4 of flow.case"
    for frame in (2, 0, 1):
        snapshot = series.read(frame)
        np.testing.assert_allclose(snapshot.points[:, :2], mesh.pos, atol=1e-5)
        np.testing.assert_array_equal(snapshot.cells["triangle"], mesh.cells["triangle"])
        np.testing.assert_allclose(np.ravel(snapshot.fields["p"]), values[frame], rtol=1e-4)


def test_files_without_times_are_a_frame(lattice, tmp_path):
    mesh = lattice("tetra", size=2)
    grid = pyvista.UnstructuredGrid({10: mesh.cells["tetra"]}, mesh.pos)
    grid["p"] = mesh.pos[:, 0]
    grid.save(tmp_path / "one.vtk")
    series = PyvistaSeries(tmp_path / "one.vtk")
    assert series.times.tolist() == [0]
    snapshot = series.read(0)
    np.testing.assert_array_equal(snapshot.cells["tetra"], mesh.cells["tetra"])
    np.testing.assert_array_equal(snapshot.fields["p"], mesh.pos[:, 0])


def test_blocks_are_joined():
    left = pyvista.UnstructuredGrid({5: np.array([[0, 1, 2]])}, np.eye(3))
    right = pyvista.UnstructuredGrid({5: np.array([[0, 1, 2]])}, np.eye(3) + [1, 0, 0])
    snapshot = snapshot_of_grid(pyvista.MultiBlock([left, right]))
    assert len(snapshot.cells["triangle"]) == 2


def test_unknown_files(tmp_path):
    (tmp_path / "notes.docx").touch()
    with pytest.raises(
        ValueError, match=r"notes.docx is of an unknown kind .* what can be read is"
    ):
        PyvistaSeries(tmp_path / "notes.docx")
