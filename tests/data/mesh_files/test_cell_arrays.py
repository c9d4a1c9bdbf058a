import numpy as np
import pytest

from pyg_stmamba.data.mesh_files.cell_arrays import (
    fields_of_cells,
    identifier,
    patches_of_cells,
    snapshot_of,
)

pyvista = pytest.importorskip("pyvista")


@pytest.mark.parametrize(("kind", "number"), [("triangle", 5), ("tetra", 10), ("hexahedron", 12)])
def test_fields_come_to_nodes_as_in_vtk(lattice, kind, number):
    mesh = lattice(kind, size=3)
    cells = mesh.cells[kind]
    generator = np.random.default_rng(0)
    arrays = {
        "p": generator.normal(size=len(cells)),
        "u": generator.normal(size=(len(cells), 3)).astype(np.float32),
    }
    grid = pyvista.UnstructuredGrid({number: cells}, np.pad(mesh.pos, ((0, 0), (0, 3 - mesh.dim))))
    for name, values in arrays.items():
        grid.cell_data[name] = values
    expected = grid.cell_data_to_point_data()
    # The same cells in two blocks.
    blocks = [(kind, cells[:7]), (kind, cells[7:])]
    parts = {name: [values[:7], values[7:]] for name, values in arrays.items()}
    fields = fields_of_cells(blocks, parts, mesh.num_nodes)
    np.testing.assert_allclose(fields["p"][:, 0], expected["p"], rtol=1e-12)
    np.testing.assert_allclose(fields["u"], expected["u"], rtol=1e-4, atol=1e-6)


BLOCKS = [("triangle", np.array([[0, 1, 2], [1, 3, 2]])), ("line", np.array([[0, 1], [1, 3]]))]


def test_cells_on_the_border_name_patches_and_do_not_count_in_fields():
    arrays = {"gmsh:physical": [np.array([7, 7]), np.array([1, 2])]}
    patches = patches_of_cells(BLOCKS, arrays)
    assert {name: nodes.tolist() for name, nodes in patches.items()} == {
        "gmsh_physical_1": [0, 1],
        "gmsh_physical_2": [1, 3],
        "gmsh_physical_7": [0, 1, 2, 3],
    }
    fields = fields_of_cells(BLOCKS, {"k": [np.array([1.0, 3.0]), np.array([9.0, 9.0])]}, 5)
    assert fields["k"].ravel().tolist() == [1, 2, 2, 3, 0]
    assert not fields_of_cells(BLOCKS, arrays, 5)


def test_numbers_of_cells_are_no_patches():
    block = np.stack([np.arange(50) + i for i in range(3)], axis=1)
    assert not patches_of_cells([("triangle", block)], {"id": [np.arange(50)]})
    assert not patches_of_cells([("triangle", block)], {"k": [np.ones(50)]})


def test_snapshot_prefers_arrays_on_nodes():
    on_nodes = {"p": np.arange(4.0)}
    on_cells = {"p": [np.ones(2), np.ones(2)], "q": [np.ones(2), np.ones(2)]}
    twice = [*BLOCKS, ("triangle", np.array([[0, 3, 1]]))]
    on_cells = {name: [*parts, np.ones(1)] for name, parts in on_cells.items()}
    snapshot = snapshot_of(np.zeros((4, 2)), twice, on_nodes, on_cells)
    assert snapshot.fields["p"] is on_nodes["p"]
    assert set(snapshot.fields) == {"p", "q"}
    assert snapshot.cells["triangle"].tolist() == [[0, 1, 2], [1, 3, 2], [0, 3, 1]]


@pytest.mark.parametrize("wrong", [9, -1])
def test_cells_that_name_missing_points_are_refused(wrong):
    with pytest.raises(ValueError, match=r"name the points .* but there are the points 0 to 3"):
        snapshot_of(np.zeros((4, 2)), [("triangle", np.array([[0, 1, wrong]]))], {}, {})


def test_identifiers():
    assert identifier("gmsh:physical 1") == "gmsh_physical_1"
    assert identifier("Wände") == "Wände"
