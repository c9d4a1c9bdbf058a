import numpy as np
import pytest

from pyg_stmamba.data.mesh import Mesh
from pyg_stmamba.data.mesh.calculus import MeshCalculus
from pyg_stmamba.data.mesh.forces import BodyForce, force_coefficients

skfem = pytest.importorskip("skfem")

KINDS = ["triangle", "quad", "tetra", "pyramid", "wedge", "hexahedron"]


def typed(mesh, chosen, name="obstacle"):
    node_type = np.where(chosen, mesh.node_type_names.index(name), 0)
    return Mesh(mesh.pos, mesh.cells, node_type)


def with_hole(lattice, kind, **options):
    """The unit square or cube around a body of a third of its size, in the middle."""
    mesh = lattice(kind, size=6, hole=True, **options)
    on_body = (np.abs(mesh.pos - 0.5) < 1 / 6 + 0.06).all(1)
    return typed(mesh, on_body)


@pytest.mark.parametrize("kind", KINDS)
def test_buoyancy(lattice, kind):
    # A pressure that falls upward lifts a body with what the fluid in its place would weigh.
    mesh = with_hole(lattice, kind, shake=0.0)
    gradient = np.arange(1.0, mesh.dim + 1)
    force = BodyForce(mesh)(np.zeros_like(mesh.pos), mesh.pos @ gradient + 7, viscosity=1.0)
    assert np.allclose(force, -gradient * (1 / 3) ** mesh.dim)


@pytest.mark.parametrize("kind", KINDS)
def test_linear_fields_on_the_whole_border(lattice, kind):
    # From inside, the border feels the integral of the divergence of the stress, with minus.
    mesh = lattice(kind)
    force = BodyForce(mesh, ["normal"])
    gradient = np.arange(1.0, mesh.dim + 1)
    slope = np.random.default_rng(0).normal(size=(mesh.dim, mesh.dim))
    given = force(mesh.pos @ slope.T, mesh.pos @ gradient, viscosity=0.5)
    assert np.allclose(given, gradient * MeshCalculus(mesh).cell_measure.sum())
    twice = Mesh(mesh.pos, {kind: mesh.cells[kind][::-1]})
    assert np.allclose(BodyForce(twice, ["normal"])(mesh.pos, mesh.pos @ gradient, 1.0), given)


@pytest.mark.parametrize("kind", ["triangle", "quad"])
def test_numbering_makes_no_difference(lattice, kind):
    mesh = with_hole(lattice, kind)
    cells = mesh.cells[kind].copy()
    cells[::2] = cells[::2, ::-1]
    turned = Mesh(mesh.pos, {kind: cells}, mesh.node_type)
    velocity = np.random.default_rng(0).normal(size=(mesh.num_nodes, 2))
    pressure = np.random.default_rng(1).normal(size=mesh.num_nodes)
    one, other = (BodyForce(m)(velocity, pressure, 0.3) for m in (mesh, turned))
    assert np.allclose(one, other)


@pytest.mark.parametrize("kind", ["triangle", "quad", "hexahedron"])
def test_couette_flow(lattice, kind):
    # The fluid drags the wall at rest along, with viscosity times shear on each unit of it.
    mesh = lattice(kind)
    wall = typed(mesh, np.isclose(mesh.pos[:, 1], 0), "wall")
    velocity = np.zeros_like(mesh.pos)
    velocity[:, 0] = 4 * mesh.pos[:, 1]
    force = BodyForce(wall, ["wall"])(velocity, np.zeros(mesh.num_nodes), 0.25, density=2.0)
    assert np.allclose(force, [2.0, 0.0, 0.0][: mesh.dim])


@pytest.mark.parametrize("kind", ["triangle", "quad"])
def test_poiseuille_flow(lattice, kind):
    # Both walls together carry what the pressure drop pushes; the error halves with the cells.
    errors = []
    for size in (16, 32):
        mesh = lattice(kind, size=size, shake=0.0)
        x, y = mesh.pos.T
        wall = typed(mesh, np.isclose(y, 0) | np.isclose(y, 1), "wall")
        velocity = np.stack([4 * y * (1 - y), 0 * y], axis=1)
        body = BodyForce(wall, ["wall"])
        drag, lift = body(velocity, -8 * 0.1 * x, viscosity=0.1)
        assert body.num_facets == 2 * size
        assert np.isclose(lift, 0)
        errors.append(0.8 - drag)
    assert 0 < errors[1] < 0.05
    assert np.isclose(errors[0] / errors[1], 2, rtol=0.02)


def test_turning_as_a_whole_makes_no_friction(lattice):
    mesh = with_hole(lattice, "triangle")
    velocity = np.stack([-mesh.pos[:, 1], mesh.pos[:, 0]], axis=1)
    friction = BodyForce(mesh)(velocity, np.zeros(mesh.num_nodes), viscosity=1.0)
    assert np.allclose(friction, 0)


@pytest.mark.parametrize(
    ("kind", "make", "element"),
    [
        ("triangle", skfem.MeshTri, skfem.ElementTriP1),
        ("tetra", skfem.MeshTet, skfem.ElementTetP1),
    ],
)
def test_equals_scikit_fem(lattice, kind, make, element):
    mesh = with_hole(lattice, kind)
    generator = np.random.default_rng(0)
    velocity = generator.normal(size=(mesh.num_nodes, mesh.dim))
    pressure = generator.normal(size=mesh.num_nodes)
    peer = make(mesh.pos.T.copy(), mesh.cells[kind].T.copy())
    on_body = np.isin(peer.facets, np.flatnonzero(mesh.nodes_of("obstacle"))).all(0)
    facets = np.intersect1d(np.flatnonzero(on_body), peer.boundary_facets())
    basis = skfem.FacetBasis(peer, element(), facets=facets, intorder=2)
    gradient = np.stack([basis.interpolate(component).grad for component in velocity.T])
    stress = 0.7 * (gradient + gradient.swapaxes(0, 1))
    normal = basis.normals
    traction = np.array(basis.interpolate(pressure)) * normal
    traction -= np.einsum("ijfq,jfq->ifq", stress, normal)
    wanted = (traction * basis.dx).sum((1, 2))
    assert np.allclose(BodyForce(mesh)(velocity, pressure, 0.35, density=2.0), wanted)


def test_frames_at_once_equal_frames_one_by_one(lattice):
    mesh = with_hole(lattice, "quad")
    generator = np.random.default_rng(0)
    velocity = generator.normal(size=(mesh.num_nodes, 5, 2)).astype(np.float32)
    pressure = generator.normal(size=(mesh.num_nodes, 5, 1)).astype(np.float32)
    body = BodyForce(mesh, calculus=MeshCalculus(mesh))
    together = body(velocity, pressure, 1e-3)
    assert together.shape == (5, 2)
    assert together.dtype == np.float64
    for frame in range(5):
        assert np.allclose(together[frame], body(velocity[:, frame], pressure[:, frame, 0], 1e-3))
    assert np.allclose(together, body(velocity, pressure[..., 0], 1e-3))


def test_coefficients():
    # Of the benchmark DFG 2D-1: mean speed 0.2, diameter 0.1, so 500 times the force.
    force = np.array([[0.011159, 0.0000212], [0.0, -1.0]])
    given = force_coefficients(force, speed=0.2, size=0.1)
    assert np.allclose(given, [[5.5795, 0.0106], [0, -500]])
    assert np.allclose(force_coefficients(force, 0.2, 0.1, density=2.0), given / 2)
    for name in ("speed", "size", "density"):
        options = {"speed": 1.0, "size": 1.0, "density": 1.0, name: 0.0}
        with pytest.raises(ValueError, match=f"{name} must be positive, got 0.0"):
            force_coefficients(force, **options)


def test_bad_input(lattice):
    mesh = with_hole(lattice, "triangle")
    with pytest.raises(ValueError, match="no facet of the border has only nodes of type handle"):
        BodyForce(mesh, ["handle"])
    with pytest.raises(ValueError, match="unknown node type 'cylinder'"):
        BodyForce(mesh, ["cylinder"])
    body, nodes = BodyForce(mesh), mesh.num_nodes
    for shape in ((nodes,), (nodes, 3), (nodes + 1, 2)):
        with pytest.raises(ValueError, match=rf"velocity must be \[{nodes}, ..., 2\], got"):
            body(np.zeros(shape), np.zeros(nodes), 1.0)
    with pytest.raises(ValueError, match=r"pressure must be \[\d+, 5\] beside .*, got \[\d+, 4\]"):
        body(np.zeros((nodes, 5, 2)), np.zeros((nodes, 4)), 1.0)
