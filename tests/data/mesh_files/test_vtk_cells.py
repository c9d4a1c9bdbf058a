import numpy as np
import pytest

from pyg_stmamba.data.mesh_files.pyvista_series import snapshot_of_grid
from pyg_stmamba.data.mesh_files.vtk_cells import snapshot_of_vtk
from pyg_stmamba.data.mesh_files.vtu_file import VTK_CELLS

pyvista = pytest.importorskip("pyvista")


@pytest.mark.parametrize("kind", ["triangle", "quad", "tetra", "pyramid", "wedge", "hexahedron"])
def test_cells_of_all_types(lattice, kind):
    mesh = lattice(kind, size=2)
    points = np.pad(mesh.pos, ((0, 0), (0, 3 - mesh.dim)))
    grid = pyvista.UnstructuredGrid({VTK_CELLS[kind]: mesh.cells[kind]}, points)
    snapshot = snapshot_of_grid(grid)
    assert list(snapshot.cells) == [kind]
    np.testing.assert_array_equal(snapshot.cells[kind], mesh.cells[kind])
    np.testing.assert_array_equal(snapshot.points, points)


@pytest.mark.parametrize("dims", [(3, 4, 1), (3, 4, 5)])
def test_pixels_and_voxels_are_numbered_anew(dims):
    image = pyvista.ImageData(dimensions=dims, spacing=(0.5, 1, 2)).cast_to_unstructured_grid()
    structured = pyvista.ImageData(dimensions=dims, spacing=(0.5, 1, 2)).cast_to_structured_grid()
    expected = snapshot_of_grid(structured)
    snapshot = snapshot_of_grid(image)
    (kind,) = expected.cells
    assert kind == ("quad" if dims[2] == 1 else "hexahedron")
    np.testing.assert_array_equal(snapshot.cells[kind], expected.cells[kind])


def test_quadratic_cells_by_their_corners():
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.5, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0]])
    for number in (22, 69):
        grid = pyvista.UnstructuredGrid({number: np.arange(6)[None]}, points)
        assert snapshot_of_grid(grid).cells["triangle"].tolist() == [[0, 1, 2]]


def test_points_that_are_there_twice_become_one_and_ghosts_go():
    points = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])
    grid = pyvista.UnstructuredGrid({5: np.array([[1, 0, 2], [3, 4, 5], [1, 0, 2]])}, points)
    grid["p"] = points @ [1.0, 2, 3]
    grid.cell_data["k"] = [1.0, 2.0, 9.0]
    grid.cell_data["vtkGhostType"] = np.array([0, 0, 1], dtype=np.uint8)
    snapshot = snapshot_of_grid(grid)
    assert len(snapshot.points) == 4
    np.testing.assert_array_equal(snapshot.fields["p"], snapshot.points @ [1, 2, 3])
    corners = snapshot.points[snapshot.cells["triangle"]]
    np.testing.assert_array_equal(corners, points[[[1, 0, 2], [3, 4, 5]]])
    shared = snapshot.fields["k"][(snapshot.points == [1, 0, 0]).all(1)]
    assert shared.tolist() == [[1.5]]
    assert set(snapshot.fields) == {"p", "k"}


def test_other_cells_are_named_by_their_number():
    grid = pyvista.UnstructuredGrid({7: np.arange(5)[None]}, np.eye(5, 3))
    assert list(snapshot_of_grid(grid).cells) == ["number 7 of VTK"]


@pytest.mark.parametrize("wrong", [3, -1])
def test_cells_that_name_missing_points_are_refused(wrong):
    numbers = np.array([0, 1, wrong])
    with pytest.raises(ValueError, match="but there are the points 0 to 2"):
        snapshot_of_vtk(np.eye(3), numbers, np.array([0]), np.array([5]), {}, {}, merge=False)
