import numpy as np
import pytest

from pyg_stmamba.data.mesh_files.oriented_cells import cell_measures, oriented_cells

pyvista = pytest.importorskip("pyvista")

KINDS = {"triangle": 5, "quad": 9, "tetra": 10, "pyramid": 14, "wedge": 13, "hexahedron": 12}
# Other ways to number the same cell, by hand: even ones first, then those that turn it round.
NUMBERINGS = {
    "triangle": ([(1, 2, 0)], [(0, 2, 1), (1, 0, 2)]),
    "quad": ([(1, 2, 3, 0)], [(3, 2, 1, 0), (1, 0, 3, 2)]),
    "tetra": ([(1, 2, 0, 3)], [(1, 0, 2, 3), (0, 1, 3, 2)]),
    "pyramid": ([(1, 2, 3, 0, 4)], [(3, 2, 1, 0, 4)]),
    "wedge": ([(1, 2, 0, 4, 5, 3)], [(3, 4, 5, 0, 1, 2), (0, 2, 1, 3, 5, 4)]),
    "hexahedron": ([(1, 2, 3, 0, 5, 6, 7, 4)], [(4, 5, 6, 7, 0, 1, 2, 3)]),
}


def sizes(mesh, kind, cells):
    """Signed areas by hand, signed volumes by VTK, which takes areas without their sign."""
    if mesh.dim == 2:
        x, y = np.moveaxis(mesh.pos[cells], -1, 0)
        return (x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(1) / 2
    grid = pyvista.UnstructuredGrid({KINDS[kind]: cells}, mesh.pos)
    return grid.compute_cell_sizes()["Volume"]


@pytest.mark.parametrize("kind", KINDS)
def test_measures_and_the_way_round(lattice, kind):
    # Faces that are not plane are measured in more than one way.
    mesh = lattice(kind, shake=0.1 if kind in ("triangle", "quad", "tetra") else 0)
    cells = mesh.cells[kind]
    for numbering in NUMBERINGS[kind][0] + NUMBERINGS[kind][1]:
        turned = cells.copy()
        turned[::3] = turned[::3][:, numbering]
        measures = cell_measures(mesh.pos, kind, turned)
        np.testing.assert_allclose(measures, sizes(mesh, kind, turned), rtol=1e-5)
        assert ((measures < 0).any()) == (numbering in NUMBERINGS[kind][1])
        oriented = oriented_cells(mesh.pos, {kind: turned})[kind]
        assert (sizes(mesh, kind, oriented) > 0).all()
        np.testing.assert_array_equal(np.sort(oriented), np.sort(turned))
        right = measures > 0
        np.testing.assert_array_equal(oriented[right], turned[right])
        # A crossed cell would have lost size.
        np.testing.assert_allclose(cell_measures(mesh.pos, kind, oriented), np.abs(measures))


def test_cells_of_a_border_are_left_alone():
    pos = np.eye(4, 3)
    cells = {"tetra": np.array([[3, 0, 1, 2]]), "triangle": np.array([[0, 2, 1]])}
    cells["line"] = np.array([[0, 1]])
    oriented = oriented_cells(pos, cells)
    assert oriented["triangle"].tolist() == [[0, 2, 1]]
    assert oriented["line"].tolist() == [[0, 1]]


def test_cells_without_size_are_refused():
    pos = np.array([[0, 0], [1, 0], [2, 0], [0, 1.0], [1, 1]])
    cells = {"triangle": np.array([[0, 1, 3], [0, 1, 2], [1, 0, 2]])}
    with pytest.raises(
        ValueError, match=r"2 cells have no area, the first is triangle 1 with the nodes \[0, 1, 2"
    ):
        oriented_cells(pos, cells)
    with pytest.raises(ValueError, match="no area"):
        oriented_cells(pos * 1e-9, cells)
    with pytest.raises(ValueError, match="1 cells have no volume, the first is tetra 0"):
        oriented_cells(np.pad(pos, ((0, 0), (0, 1))), {"tetra": np.array([[0, 1, 3, 4]])})


def test_long_thin_cells_are_taken():
    pos = np.array([[0, 0], [1, 0], [0, 1e-7]])
    assert oriented_cells(pos, {"triangle": np.array([[0, 1, 2]])})["triangle"].tolist() == [
        [0, 1, 2]
    ]


def test_quads_that_cross_themselves_are_refused_and_darts_are_not():
    pos = np.array([[0, 0], [2, 0], [3, 1], [0, 1], [0.5, 0.4]])
    with pytest.raises(ValueError, match=r"quad 1 crosses itself: \[0, 1, 3, 2\]"):
        oriented_cells(pos, {"quad": np.array([[0, 1, 2, 3], [0, 1, 3, 2]])})
    for dart in ([0, 1, 4, 3], [3, 4, 1, 0]):
        oriented = oriented_cells(pos, {"quad": np.array([dart])})["quad"]
        assert oriented.tolist() in ([[0, 1, 4, 3]], [[3, 0, 1, 4]])
