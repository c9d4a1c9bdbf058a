import numpy as np
import pytest

from pyg_stmamba.data.mesh import Mesh
from pyg_stmamba.data.mesh.boundary import (
    boundary_facets,
    boundary_nodes,
    corner_areas,
    facet_area,
    volume_cells,
)

pv = pytest.importorskip("pyvista")
skfem = pytest.importorskip("skfem")

KINDS = ["triangle", "quad", "tetra", "pyramid", "wedge", "hexahedron"]
VTK = {"tetra": 10, "hexahedron": 12, "wedge": 13, "pyramid": 14}
TURNED = {
    "triangle": [0, 2, 1],
    "quad": [0, 3, 2, 1],
    "tetra": [0, 2, 1, 3],
    "pyramid": [0, 3, 2, 1, 4],
    "wedge": [3, 4, 5, 0, 1, 2],
    "hexahedron": [4, 5, 6, 7, 0, 1, 2, 3],
}


def turned(mesh):
    """The same mesh, every other cell numbered the other way round, from another corner."""
    cells = {kind: block.copy() for kind, block in mesh.cells.items()}
    for kind, block in cells.items():
        block[::2] = block[::2][:, TURNED[kind]]
        if kind == "wedge":
            block[1::2] = block[1::2][:, [1, 2, 0, 4, 5, 3]]
        if kind in ("triangle", "quad"):
            block[1::2] = np.roll(block[1::2], 1, axis=1)
    return Mesh(mesh.pos, cells)


def facet_sets(nodes):
    return [frozenset(row) for row in nodes.tolist()]


@pytest.mark.parametrize("kind", KINDS)
def test_border_of_a_square_and_a_cube(lattice, kind):
    mesh = lattice(kind)
    facets = boundary_facets(mesh)
    dim = mesh.dim
    sides = np.isclose(mesh.pos[facets.nodes], np.round(mesh.pos[facets.nodes])).all(1)
    assert (sides.sum(1) >= 1).all()
    # On a face of the cube the outward normal is the axis, towards the side on which it lies.
    centers = mesh.pos[facets.nodes].mean(1) - 0.5
    axis = np.abs(centers).argmax(1)
    wanted = np.sign(centers) * (np.arange(dim) == axis[:, None])
    assert np.allclose(facets.normal, wanted, atol=1e-12)
    assert np.isclose(facets.measure.sum(), 2 * dim)
    edge = (np.isclose(mesh.pos, 0) | np.isclose(mesh.pos, 1)).any(1)
    assert np.array_equal(boundary_nodes(mesh), edge)


@pytest.mark.parametrize("kind", KINDS)
def test_either_way_of_numbering_gives_the_same(lattice, kind):
    mesh = lattice(kind, hole=True)
    one, other = boundary_facets(mesh), boundary_facets(turned(mesh))
    assert set(facet_sets(one.nodes)) == set(facet_sets(other.nodes))
    order = np.argsort([hash(f) for f in facet_sets(one.nodes)])
    turned_order = np.argsort([hash(f) for f in facet_sets(other.nodes)])
    assert np.allclose(one.normal[order], other.normal[turned_order])
    assert np.allclose(one.measure[order], other.measure[turned_order])
    assert np.array_equal(one.cell[order], other.cell[turned_order])


@pytest.mark.parametrize("kind", KINDS)
def test_closed_and_around_the_volume(lattice, kind):
    mesh = lattice(kind, size=6, shake=0.0, hole=True)
    facets = boundary_facets(mesh)
    area = facets.normal * facets.measure[:, None]
    assert np.allclose(np.linalg.norm(facets.normal, axis=1), 1)
    assert np.allclose(area.sum(0), 0, atol=1e-12)
    position = mesh.pos[facets.nodes].mean(1)
    hole = (1 / 3) ** mesh.dim
    assert np.isclose(np.einsum("fd,fd", position, area) / mesh.dim, 1 - hole)


@pytest.mark.parametrize("kind", KINDS)
def test_facets_belong_to_their_cells(lattice, kind):
    mesh = lattice(kind, hole=True)
    facets = boundary_facets(mesh)
    for nodes, cell in zip(facets.nodes, facets.cell):
        assert set(nodes) <= set(mesh.cells[kind][cell])


@pytest.mark.parametrize("kind", VTK)
def test_equals_the_surface_of_vtk(lattice, kind):
    mesh = lattice(kind, size=3, hole=True)
    grid = pv.UnstructuredGrid({VTK[kind]: mesh.cells[kind]}, mesh.pos)
    surface = grid.extract_surface(algorithm="dataset_surface")
    original = surface.point_data["vtkOriginalPointIds"]
    wanted = {frozenset(original[face]) for face in surface.irregular_faces}
    facets = boundary_facets(mesh)
    assert set(facet_sets(facets.nodes)) == wanted
    assert len(facets.nodes) == len(wanted)


@pytest.mark.parametrize(
    ("kind", "make", "element"),
    [
        ("triangle", skfem.MeshTri, skfem.ElementTriP1),
        ("quad", skfem.MeshQuad, skfem.ElementQuad1),
        ("tetra", skfem.MeshTet, skfem.ElementTetP1),
    ],
)
def test_equals_scikit_fem(lattice, kind, make, element):
    mesh = lattice(kind, hole=True)
    peer = make(mesh.pos.T.copy(), mesh.cells[kind].T.copy())
    basis = skfem.FacetBasis(peer, element(), intorder=1)
    nodes = peer.facets[:, basis.find].T
    place = {facet: i for i, facet in enumerate(facet_sets(nodes))}
    facets = boundary_facets(mesh)
    order = [place[facet] for facet in facet_sets(facets.nodes)]
    assert len(order) == len(place)
    assert np.allclose(facets.normal, basis.normals[:, order, 0].T)
    assert np.allclose(facets.measure, basis.dx.sum(1)[order])


def test_triangles_and_quads_side_by_side():
    pos = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [2, 0.5]], dtype=float)
    mesh = Mesh(
        pos,
        {
            "line": np.array([[0, 1]]),
            "quad": np.array([[0, 1, 2, 3]]),
            "triangle": np.array([[1, 2, 4]]),
        },
    )
    facets = boundary_facets(mesh)
    assert set(facet_sets(facets.nodes)) == {
        frozenset(f) for f in [(0, 1), (2, 3), (3, 0), (2, 4), (4, 1)]
    }
    assert facets.cell.tolist() == [0, 0, 0, 1, 1]
    assert list(volume_cells(mesh)) == ["quad", "triangle"]
    assert boundary_nodes(mesh).all()


def test_prisms_on_top_of_cubes(lattice):
    below, above = lattice("hexahedron", size=2, shake=0.0), lattice("wedge", size=2, shake=0.0)
    pos, place = np.unique(
        np.concatenate([below.pos, above.pos + [0, 0, 1]]), axis=0, return_inverse=True
    )
    mesh = Mesh(
        pos,
        {
            "wedge": place.ravel()[above.cells["wedge"] + below.num_nodes],
            "hexahedron": place.ravel()[below.cells["hexahedron"]],
        },
    )
    # The floor of a prism is a triangle, the roof of a cube a quad: they do not match.
    facets = boundary_facets(mesh)
    assert np.isclose(facets.measure.sum(), 2 + 8 + 2)
    outside = facets.measure[np.isclose(np.abs(facets.normal[:, 2]), 1)]
    assert np.isclose(outside.sum(), 4)
    assert facets.nodes.shape[1] == 4
    triangles = facets.nodes[:, 2] == facets.nodes[:, 3]
    assert triangles.sum() == 16
    assert np.allclose(facets.measure[triangles], 1 / 8)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_corners_share_the_normal(count):
    # The integral of a linear field over a facet, times the normal, from values at the corners.
    dim = 2 if count == 2 else 3
    generator = np.random.default_rng(0)
    corners = generator.normal(size=(5, count, dim))
    if count == 4:
        corners[:, 3] = corners[:, 0] + 0.7 * (corners[:, 2] - corners[:, 1])
    shares = corner_areas(corners)
    assert np.allclose(shares.sum(1), facet_area(corners))
    slope = generator.normal(size=dim)
    given = np.einsum("fk,fkd->fd", corners @ slope, shares)
    if count < 4:
        wanted = (corners.mean(1) @ slope)[:, None] * facet_area(corners)
    else:
        parts = corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]
        wanted = sum((p.mean(1) @ slope)[:, None] * facet_area(p) for p in parts)
    assert np.allclose(given, wanted)


def test_facets_of_cells_numbered_as_vtk_does_point_outward():
    edge = facet_area(np.array([[[0.0, 0], [2, 0]]]))  # the lower side of a square
    assert np.allclose(edge, [[0, -2]])
    triangle = np.array([[0.0, 0, 0], [0, 1, 0], [1, 0, 0]])  # the floor of a tetrahedron
    assert np.allclose(facet_area(triangle[None]), [[0, 0, -0.5]])
    assert np.allclose(facet_area(triangle[None, [0, 1, 2, 2]]), [[0, 0, -0.5]])


def test_three_cells_at_one_facet_are_refused():
    pos = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [0.2, 0.2]])
    mesh = Mesh(pos, {"triangle": np.array([[0, 1, 2], [1, 3, 2], [1, 4, 2]])})
    with pytest.raises(ValueError, match=r"nodes \[1, 2\] belongs to 3 cells; no more than two"):
        boundary_facets(mesh)


def test_folded_mesh_is_refused():
    pos = np.array([[0, 0], [1, 0], [0, 1], [0.2, 0.2]])
    mesh = Mesh(pos, {"triangle": np.array([[0, 1, 2], [1, 2, 3]])})
    with pytest.raises(ValueError, match="folded over: the cells 0 and 1 lie on the same side"):
        boundary_facets(mesh)


def test_flat_cells_are_refused():
    pos = np.array([[0, 0], [1, 0], [0, 1], [2, 0]], dtype=float)
    mesh = Mesh(pos, {"triangle": np.array([[0, 1, 2], [0, 1, 3]])})
    with pytest.raises(ValueError, match=r"triangle 1 with the nodes \[0, 1, 3\] is flat.* area"):
        boundary_facets(mesh)


def test_thin_cells_are_not_flat():
    pos = np.array([[0, 0], [1e3, 0], [1e3, 1e-6], [0, 1e-6]], dtype=float)
    facets = boundary_facets(Mesh(pos, {"quad": np.array([[0, 1, 2, 3]])}))
    assert np.allclose(facets.normal, [[0, -1], [1, 0], [0, 1], [-1, 0]])


def test_surface_without_volume_is_refused():
    mesh = Mesh(np.eye(3), {"triangle": np.array([[0, 1, 2]])})
    with pytest.raises(ValueError, match=r"3 dimensions needs cells .*tetra.*has triangle"):
        boundary_facets(mesh)
    with pytest.raises(ValueError, match="has none"):
        boundary_nodes(Mesh(np.zeros((2, 2)), {}))
