import numpy as np
import pytest
import skfem
from scipy.spatial import Delaunay, cKDTree
from skfem.helpers import div, dot, grad

from pyg_stmamba.simulation.taylor_hood import TaylorHood


def random_mesh(seed, num_vertices=40):
    """A triangulation of random points, the orientation of its triangles random too."""
    rng = np.random.default_rng(seed)
    pos = rng.random((num_vertices, 2)) * [3.0, 1.0]
    triangles = Delaunay(pos).simplices
    turned = rng.random(len(triangles)) < 0.5
    triangles[turned] = triangles[turned][:, [1, 0, 2]]
    return pos, triangles


class Skfem:
    """The same spaces of scikit-fem, with its functions in our order."""

    def __init__(self, space):
        pos, triangles = space.nodes[: space.num_vertices], space.cells[:, :3]
        mesh = skfem.MeshTri(pos.T.copy(), np.ascontiguousarray(triangles.T))
        self.quadratic = skfem.Basis(mesh, skfem.ElementTriP2(), intorder=6)
        self.linear = self.quadratic.with_element(skfem.ElementTriP1())
        self.vector = self.quadratic.with_element(skfem.ElementVector(skfem.ElementTriP2()))
        self.order = cKDTree(self.quadratic.doflocs.T).query(space.nodes)[1]
        component = np.zeros(self.vector.N, dtype=int)
        component[self.vector.nodal_dofs[1]] = component[self.vector.facet_dofs[1]] = 1
        self.vector_order = np.empty(self.vector.N, dtype=int)
        for c in range(2):
            dofs = np.flatnonzero(component == c)
            places = cKDTree(self.vector.doflocs.T[dofs]).query(space.nodes)[1]
            self.vector_order[c::2] = dofs[places]

    def field(self, values):
        coefficients = np.empty(len(values))
        coefficients[self.order] = values
        return self.quadratic.interpolate(coefficients)


@pytest.mark.parametrize("seed", range(3))
def test_equals_scikit_fem(seed):
    space = TaylorHood(*random_mesh(seed))
    peer = Skfem(space)
    order = np.ix_(peer.order, peer.order)
    mass = skfem.BilinearForm(lambda u, v, w: u * v)
    stiffness = skfem.BilinearForm(lambda u, v, w: dot(grad(u), grad(v)))
    for ours, theirs in [
        (space.mass, mass.assemble(peer.quadratic)[order]),
        (space.stiffness, stiffness.assemble(peer.quadratic)[order]),
        (space.pressure_mass, mass.assemble(peer.linear)),
        (space.pressure_stiffness, stiffness.assemble(peer.linear)),
    ]:
        np.testing.assert_allclose(ours.toarray(), theirs.toarray(), rtol=0, atol=3e-12)
    divergence = skfem.BilinearForm(lambda u, q, w: div(u) * q).assemble(peer.vector, peer.linear)
    np.testing.assert_allclose(
        space.divergence.toarray(), divergence.toarray()[:, peer.vector_order], rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("seed", range(3))
def test_convection_equals_scikit_fem(seed):
    space = TaylorHood(*random_mesh(seed))
    peer = Skfem(space)
    velocity = np.random.default_rng(seed).normal(size=(space.num_nodes, 2))
    a, b = (peer.field(component) for component in velocity.T)
    form = skfem.BilinearForm(lambda u, v, w: v * (w["a"] * grad(u)[0] + w["b"] * grad(u)[1]))
    theirs = form.assemble(peer.quadratic, a=a, b=b)[np.ix_(peer.order, peer.order)]
    ours = space.convection(velocity)
    np.testing.assert_allclose(ours.toarray(), theirs.toarray(), rtol=0, atol=1e-13)
    assert (ours.indices == space.mass.indices).all()
    assert (ours.indptr == space.mass.indptr).all()


def test_integrals_of_polynomials():
    # On [0, 3] x [0, 1].
    pos = np.array([*random_mesh(3)[0], [0, 0], [3, 0], [3, 1], [0, 1]])
    space = TaylorHood(pos, Delaunay(pos).simplices)
    x, y = space.nodes.T
    assert x**2 @ space.mass @ (x * y) == pytest.approx(81 / 4 / 2)
    assert x**2 @ space.stiffness @ (x * y) == pytest.approx(9 / 2 * 2 / 2)
    field = np.stack([x**2 * 0.5, x * y], axis=1)
    vertices = space.nodes[: space.num_vertices]
    assert (vertices[:, 1] @ space.divergence @ field.ravel()) == pytest.approx(9 / 2)
    # (x y, y^2) . grad (x^2) = 2 x^2 y
    wind = np.stack([x * y, y**2], axis=1)
    ones = np.ones(space.num_nodes)
    assert ones @ space.convection(wind) @ x**2 == pytest.approx(9)
    np.testing.assert_allclose(space.convection(wind) @ ones, 0, atol=1e-14)


def test_nodes_and_boundary():
    #  3---2
    #  | / |
    #  0---1
    pos = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    space = TaylorHood(pos, np.array([[0, 1, 2], [0, 2, 3]]))
    assert (space.num_vertices, space.num_nodes) == (4, 9)
    edges = space.boundary_edges
    assert sorted(map(tuple, np.sort(edges[:, :2]).tolist())) == [(0, 1), (0, 3), (1, 2), (2, 3)]
    np.testing.assert_array_equal(space.nodes[edges[:, 2]], pos[edges[:, :2]].mean(1))
    corners = space.nodes[space.cells[:, :3]]
    middles = (corners + np.roll(corners, -1, axis=1)) / 2
    np.testing.assert_array_equal(space.nodes[space.cells[:, 3:]], middles)
    assert repr(space) == "TaylorHood(2 triangles, 9 velocity nodes, 4 pressure nodes)"


SQUARE = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("pos", "triangles", "message"),
    [
        ([[0, 0, 0]], [[0, 0, 0]], r"pos must be \[N, 2\], got \[1, 3\]"),
        (SQUARE, [[0, 1]], r"triangles must be \[M, 3\], M > 0, got \[1, 2\]"),
        (SQUARE, np.empty((0, 3), int), r"triangles must be \[M, 3\], M > 0, got \[0, 3\]"),
        (SQUARE, [[0, 1, 4]], "vertices 0 to 4, but pos has the vertices 0 to 3"),
        (SQUARE, [[-1, 1, 2]], "vertices -1 to 2, but"),
        (SQUARE, [[0, 1, 2]], "vertex 3 belongs to no triangle"),
        ([*SQUARE, [2, 0]], [[0, 2, 3], [0, 1, 4]], r"triangle 1 with vertices \[0 1 4\] has no"),
        ([*SQUARE, [2, 2]], [[0, 1, 2], [0, 2, 3], [0, 2, 4], [0, 1, 4]], "has no area"),
        ([*SQUARE, [3, 2]], [[0, 1, 2], [0, 2, 3], [0, 2, 4]], r"3 triangles have the edge \[0, 2"),
    ],
)
def test_refuses(pos, triangles, message):
    with pytest.raises(ValueError, match=message):
        TaylorHood(np.array(pos), np.array(triangles))
