import numpy as np
import pytest

from pyg_stmamba.data.mesh import Mesh, MeshTrajectory

# How a cell of a lattice is cut into cells of each kind; 8 is a node at the center of a cube.
CUTS = {
    "quad": [(0, 1, 2, 3)],
    "triangle": [(0, 1, 2), (0, 2, 3)],
    "hexahedron": [(0, 1, 2, 3, 4, 5, 6, 7)],
    "wedge": [(0, 1, 2, 4, 5, 6), (0, 2, 3, 4, 6, 7)],
    "tetra": [(0, 1, 2, 6), (0, 2, 3, 6), (0, 3, 7, 6), (0, 7, 4, 6), (0, 4, 5, 6), (0, 5, 1, 6)],
    "pyramid": [(0, 1, 2, 3, 8), (4, 7, 6, 5, 8), (0, 4, 5, 1, 8)]
    + [(1, 5, 6, 2, 8), (2, 6, 7, 3, 8), (3, 7, 4, 0, 8)],
}
CORNERS = {
    2: [(0, 0), (1, 0), (1, 1), (0, 1)],
    3: [(*corner, z) for z in (0, 1) for corner in [(0, 0), (1, 0), (1, 1), (0, 1)]],
}


@pytest.fixture(scope="session")
def lattice():
    """Makes meshes of the unit square or cube: cells of one kind, nodes inside moved at random,
    and the cells in the middle left out if there shall be a hole."""

    def make(kind, size=4, shake=0.12, hole=False, seed=0, node_type=None):
        dim = 2 if kind in ("quad", "triangle") else 3
        generator = np.random.default_rng(seed)
        axes = np.meshgrid(*[np.arange(size + 1)] * dim, indexing="ij")
        grid = np.stack(axes, axis=-1).reshape(-1, dim)
        inside = ((grid > 0) & (grid < size)).all(1)
        pos = grid + generator.uniform(-shake, shake, grid.shape) * inside[:, None]
        first = grid[(grid < size).all(1)]
        if hole:
            first = first[((first < size // 3) | (first >= size - size // 3)).any(1)]
        places = (size + 1) ** np.arange(dim)[::-1]
        cubes = np.stack([(first + corner) @ places for corner in CORNERS[dim]], axis=1)
        if kind == "pyramid":
            cubes = np.concatenate([cubes, len(pos) + np.arange(len(cubes))[:, None]], axis=1)
            pos = np.concatenate([pos, pos[cubes[:, :8]].mean(1)])
        cells = cubes[:, np.array(CUTS[kind])].reshape(-1, len(CUTS[kind][0]))
        used, cells = np.unique(cells, return_inverse=True)
        cells = cells.reshape(-1, len(CUTS[kind][0]))
        return Mesh(pos[used] / size, {kind: cells}, node_type)

    return make


@pytest.fixture(scope="session")
def random_trajectory():
    """Makes trajectories that have something of everything."""

    def make(num_frames=5, num_nodes=7, seed=0, dtype=np.float32):
        generator = np.random.default_rng(seed)
        cells = np.stack([np.arange(num_nodes - 2) + place for place in range(3)], axis=1)
        mesh = Mesh(
            generator.normal(size=(num_nodes, 2)),
            {"triangle": cells, "line": cells[:1, :2]},
            generator.integers(0, 3, num_nodes),
            ("normal", "wall", "outflow"),
        )
        return MeshTrajectory(
            mesh,
            {
                "velocity": generator.normal(size=(num_frames, num_nodes, 2)).astype(dtype),
                "pressure": generator.normal(size=(num_frames, num_nodes, 1)).astype(dtype),
            },
            np.cumsum(generator.uniform(0.1, 1, num_frames)),
            static={
                "depth": generator.normal(size=(num_nodes, 1)),
                "ids": np.arange(2 * num_nodes).reshape(-1, 2),
            },
            parameters={"viscosity": 1e-3, "Zähigkeit": 0.1 + 0.2},
            series={"drag": generator.normal(size=num_frames)},
            units={"velocity": "m/s", "viscosity": "m²/s"},
            name="Lauf 1/2",
        )

    return make


@pytest.fixture(scope="session")
def assert_same_trajectory():
    """Compares everything that two trajectories have, bit by bit."""

    def same_arrays(one, other):
        assert list(one) == list(other)
        for name in one:
            first, second = np.asarray(one[name][:]), np.asarray(other[name][:])
            assert first.dtype == second.dtype
            np.testing.assert_array_equal(first, second)

    def check(one, other):
        assert type(one) is type(other)
        assert one.name == other.name
        assert one.parameters == other.parameters
        assert one.units == other.units
        assert one.mesh.node_type_names == other.mesh.node_type_names
        np.testing.assert_array_equal(one.mesh.pos, other.mesh.pos)
        np.testing.assert_array_equal(one.mesh.node_type, other.mesh.node_type)
        np.testing.assert_array_equal(one.times, other.times)
        for group in ("fields", "static", "series"):
            same_arrays(getattr(one, group), getattr(other, group))
        same_arrays(one.mesh.cells, other.mesh.cells)

    return check
