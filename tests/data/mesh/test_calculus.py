import numpy as np
import pytest

from pyg_stmamba.data.mesh import Mesh
from pyg_stmamba.data.mesh.boundary import boundary_facets
from pyg_stmamba.data.mesh.calculus import MeshCalculus

skfem = pytest.importorskip("skfem")

KINDS = ["triangle", "quad", "tetra", "pyramid", "wedge", "hexahedron"]
PEERS = {
    "triangle": (skfem.MeshTri, skfem.ElementTriP1),
    "quad": (skfem.MeshQuad, skfem.ElementQuad1),
    "tetra": (skfem.MeshTet, skfem.ElementTetP1),
    "hexahedron": (skfem.MeshHex, skfem.ElementHex1),
}
# In which order scikit-fem numbers the corners of a hexahedron of VTK.
HEXAHEDRON = [0, 1, 3, 4, 2, 5, 7, 6]


def peer_basis(mesh, kind):
    make, element = PEERS[kind]
    cells = mesh.cells[kind]
    cells = cells[:, HEXAHEDRON] if kind == "hexahedron" else cells
    return skfem.Basis(make(mesh.pos.T.copy(), cells.T.copy()), element(), intorder=4)


@pytest.fixture
def field():
    return lambda mesh, *channels: np.random.default_rng(1).normal(size=(mesh.num_nodes, *channels))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("turned", [False, True])
def test_exact_for_linear_fields(lattice, kind, turned):
    mesh = lattice(kind, hole=True)
    if turned and kind in ("triangle", "quad"):
        cells = mesh.cells[kind].copy()
        cells[::2] = cells[::2, ::-1]
        mesh = Mesh(mesh.pos, {kind: cells})
    calculus = MeshCalculus(mesh)
    slope = np.random.default_rng(0).normal(size=(mesh.dim, mesh.dim))
    velocity = mesh.pos @ slope.T + 3
    cells, nodes = calculus.cell_gradient(velocity), calculus.node_gradient(velocity)
    assert cells.shape == (mesh.num_cells, mesh.dim, mesh.dim)
    assert np.allclose(cells, slope, atol=1e-10)
    assert np.allclose(nodes, slope, atol=1e-10)
    assert np.allclose(calculus.divergence(velocity), np.trace(slope), atol=1e-10)


def test_rotation_has_twice_its_speed_as_vorticity(lattice):
    plane, space = lattice("triangle", hole=True), lattice("wedge")
    velocity = 1.5 * np.stack([-plane.pos[:, 1], plane.pos[:, 0]], axis=1)
    calculus = MeshCalculus(plane)
    assert np.allclose(calculus.vorticity(velocity), 3.0)
    assert np.allclose(calculus.divergence(velocity), 0.0)
    axis = np.array([0.5, -1.0, 2.0])
    calculus = MeshCalculus(space)
    assert np.allclose(calculus.vorticity(np.cross(axis, space.pos)), 2 * axis)
    assert np.allclose(calculus.divergence(np.cross(axis, space.pos)), 0.0)


@pytest.mark.parametrize("kind", ["triangle", "tetra"])
def test_gradient_equals_that_of_scikit_fem(lattice, field, kind):
    mesh = lattice(kind, hole=True)
    values = field(mesh)
    wanted = peer_basis(mesh, kind).interpolate(values).grad[..., 0].T
    assert np.allclose(MeshCalculus(mesh).cell_gradient(values), wanted)


def test_mean_gradient_of_quads_equals_that_of_scikit_fem(lattice, field):
    mesh = lattice("quad", hole=True)
    values, basis = field(mesh), peer_basis(mesh, "quad")
    gradient = basis.interpolate(values).grad
    wanted = (gradient * basis.dx).sum(-1) / basis.dx.sum(-1)
    assert np.allclose(MeshCalculus(mesh).cell_gradient(values), wanted.T)


def test_mean_gradient_of_bricks_equals_that_of_scikit_fem(lattice, field):
    mesh = lattice("hexahedron", shake=0.0)
    mesh = Mesh(mesh.pos @ np.array([[1, 0, 0.3], [0.2, 1, 0], [0, 0, 2]]), mesh.cells)
    values, basis = field(mesh), peer_basis(mesh, "hexahedron")
    gradient = basis.interpolate(values).grad
    wanted = (gradient * basis.dx).sum(-1) / basis.dx.sum(-1)
    assert np.allclose(MeshCalculus(mesh).cell_gradient(values), wanted.T)


@pytest.mark.parametrize("kind", PEERS)
def test_measures_equal_those_of_scikit_fem(lattice, kind):
    # Hexahedra whose faces are not flat too.
    mesh = lattice(kind, hole=True)
    calculus = MeshCalculus(mesh)
    assert np.allclose(calculus.cell_measure, peer_basis(mesh, kind).dx.sum(1))


@pytest.mark.parametrize("kind", ["triangle", "tetra"])
def test_node_measures_are_lumped_masses(lattice, kind):
    @skfem.BilinearForm
    def mass(u, v, _):
        return u * v

    mesh = lattice(kind, hole=True)
    wanted = mass.assemble(peer_basis(mesh, kind)).sum(1)
    assert np.allclose(MeshCalculus(mesh).node_measure, np.ravel(wanted))


@pytest.mark.parametrize("kind", KINDS)
def test_measures_add_up(lattice, kind):
    calculus = MeshCalculus(lattice(kind, size=6, shake=0.0, hole=True))
    whole = 1 - (1 / 3) ** calculus.mesh.dim
    assert np.isclose(calculus.cell_measure.sum(), whole)
    assert np.isclose(calculus.node_measure.sum(), whole)
    assert (calculus.node_measure > 0).all()


def test_equals_numpy_inside_a_regular_grid(lattice):
    mesh = lattice("quad", size=8, shake=0.0)
    x, y = mesh.pos.T.reshape(2, 9, 9)
    values = np.sin(3 * x) + y**3
    given = MeshCalculus(mesh).node_gradient(values.ravel()).reshape(9, 9, 2)
    wanted = np.stack(np.gradient(values, 1 / 8), axis=-1)
    assert np.allclose(given[1:-1, 1:-1], wanted[1:-1, 1:-1])


@pytest.mark.parametrize("kind", ["triangle", "quad", "tetra"])
def test_gauss_theorem(lattice, field, kind):
    mesh = lattice(kind, hole=True)
    calculus, velocity = MeshCalculus(mesh), field(mesh, mesh.dim)
    inside = calculus.cell_gradient(velocity).trace(axis1=1, axis2=2) @ calculus.cell_measure
    facets = boundary_facets(mesh)
    through = np.einsum("fd,fd->f", velocity[facets.nodes].mean(1), facets.normal)
    assert np.isclose(inside, through @ facets.measure)


def test_nodes_have_the_weighted_mean_of_their_cells(lattice, field):
    mesh = lattice("triangle", hole=True)
    calculus, velocity = MeshCalculus(mesh), field(mesh, 2)
    cells = calculus.cell_gradient(velocity)
    for node in range(0, mesh.num_nodes, 5):
        around = (mesh.cells["triangle"] == node).any(1)
        wanted = np.average(cells[around], axis=0, weights=calculus.cell_measure[around])
        assert np.allclose(calculus.node_gradient(velocity)[node], wanted)
    gradient = calculus.node_gradient(velocity)
    assert np.allclose(calculus.vorticity(velocity), gradient[:, 1, 0] - gradient[:, 0, 1])
    assert np.allclose(calculus.divergence(velocity), gradient[:, 0, 0] + gradient[:, 1, 1])


def test_triangles_beside_quads():
    pos = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [3, 0.5], [9, 9]], dtype=float)
    cells = {"quad": [[0, 1, 2, 3]], "triangle": [[1, 2, 4]], "line": [[0, 1]]}
    mesh = Mesh(pos, {kind: np.array(block) for kind, block in cells.items()})
    calculus = MeshCalculus(mesh)
    assert np.allclose(calculus.cell_measure, [1, 1])
    third = 1 / 4 + 1 / 3
    assert np.allclose(calculus.node_measure, [1 / 4, third, third, 1 / 4, 1 / 3, 0])
    gradient = calculus.node_gradient(pos @ [2.0, -1.0])
    assert np.allclose(gradient[:5], [2, -1])
    assert np.array_equal(gradient[5], [0, 0])  # in no cell


def test_frames_at_once_equal_frames_one_by_one(lattice, field):
    for kind in ("triangle", "tetra"):
        mesh = lattice(kind)
        calculus, dim = MeshCalculus(mesh), mesh.dim
        velocity = field(mesh, 3, 2, dim).astype(np.float32)
        before = velocity.copy()
        for of in (calculus.vorticity, calculus.divergence):
            together = of(velocity)
            assert together.dtype == np.float64
            assert together.shape[:3] == (mesh.num_nodes, 3, 2)
            assert np.allclose(together[:, 2, 1], of(velocity[:, 2, 1]))
        gradient = calculus.node_gradient(velocity)
        assert gradient.shape == (mesh.num_nodes, 3, 2, dim, dim)
        assert np.allclose(gradient[:, 1, 0], calculus.node_gradient(velocity[:, 1, 0]))
        assert np.array_equal(velocity, before)


def test_bad_input(lattice):
    mesh = lattice("triangle")
    calculus = MeshCalculus(mesh)
    with pytest.raises(ValueError, match=r"values must be \[25, ...\], one a node, got \[24\]"):
        calculus.node_gradient(np.zeros(24))
    for wrong in ((25,), (25, 3), (24, 2)):
        with pytest.raises(ValueError, match=r"velocity must be \[25, ..., 2\], got"):
            calculus.divergence(np.zeros(wrong))
        with pytest.raises(ValueError, match=r"velocity must be \[25, ..., 2\], got"):
            calculus.vorticity(np.zeros(wrong))
    with pytest.raises(ValueError, match="3 dimensions needs cells that fill it"):
        MeshCalculus(Mesh(np.eye(3), {"triangle": np.array([[0, 1, 2]])}))
    flat = Mesh(np.array([[0, 0], [1, 1], [2, 2]]), {"triangle": np.array([[0, 1, 2]])})
    with pytest.raises(ValueError, match=r"triangle 0 .* is flat"):
        MeshCalculus(flat)
