import numpy as np
import pytest

from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.simulation import meshing
from pyg_stmamba.simulation.mesh_quality import triangle_angles, triangle_areas
from pyg_stmamba.simulation.meshing import channel_mesh


def random_channels(count, most_nodes, seed):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        length, radius = rng.uniform(1.6, 2.2), rng.uniform(0.03, 0.09)
        margin = 1.6 * radius
        center = rng.uniform([margin, margin], [length - margin, 0.41 - margin])
        yield (length, 0.41, tuple(center), radius), int(rng.integers(500, most_nodes + 1))


def check(mesh, length, height, center, radius):
    pos, triangles = mesh.pos, mesh.cells["triangle"]
    assert triangle_angles(pos, triangles).min() >= 20
    areas = triangle_areas(pos, triangles)
    assert (areas > 0).all()
    np.testing.assert_array_equal(np.unique(triangles), np.arange(mesh.num_nodes))

    types = {name: mesh.nodes_of(name) for name in mesh.node_type_names}
    border = ~types["normal"]
    edges = np.sort(np.stack([triangles, np.roll(triangles, 1, axis=1)]).reshape(2, -1).T, axis=1)
    edges, uses = np.unique(edges, axis=0, return_counts=True)
    assert uses.max() == 2
    assert mesh.num_nodes - len(edges) + len(triangles) == 0
    np.testing.assert_array_equal(np.unique(edges[uses == 1]), np.flatnonzero(border))
    assert np.count_nonzero(uses == 1) == np.count_nonzero(border)
    assert types["normal"][triangles].any(axis=1).all()

    x, y = pos.T
    at_wall = (y == 0) | (y == height)
    np.testing.assert_array_equal(types["wall"], at_wall)
    np.testing.assert_array_equal(types["inflow"], (x == 0) & ~at_wall)
    np.testing.assert_array_equal(types["outflow"], (x == length) & ~at_wall)
    from_center = np.hypot(x - center[0], y - center[1])
    np.testing.assert_allclose(from_center[types["obstacle"]], radius, rtol=1e-13)
    assert (from_center[~types["obstacle"]] > radius * 1.01).all()
    assert not types["airfoil"].any()
    assert not types["handle"].any()

    count = np.count_nonzero(types["obstacle"])
    hole = count / 2 * radius**2 * np.sin(2 * np.pi / count)
    assert areas.sum() == pytest.approx(length * height - hole, abs=1e-12 * length * height)


def test_random_channels():
    for seed, (channel, num_nodes) in enumerate(random_channels(12, most_nodes=1500, seed=1)):
        mesh = channel_mesh(*channel, num_nodes=num_nodes, seed=seed)
        check(mesh, *channel)
        assert mesh.num_nodes == num_nodes


@pytest.mark.slow
def test_200_random_channels():
    worst = []
    for seed, (channel, num_nodes) in enumerate(random_channels(200, most_nodes=4000, seed=2)):
        mesh = channel_mesh(*channel, num_nodes=num_nodes, seed=seed)
        check(mesh, *channel)
        assert mesh.num_nodes == num_nodes
        worst.append(triangle_angles(mesh.pos, mesh.cells["triangle"]).min())
    assert min(worst) > 27
    assert np.median(worst) > 32


def test_channel_of_the_benchmark():
    mesh = channel_mesh()
    check(mesh, 2.2, 0.41, (0.2, 0.2), 0.05)
    assert mesh.num_nodes == 1800
    assert np.count_nonzero(mesh.nodes_of("obstacle")) > 60
    pos, triangles = mesh.pos, mesh.cells["triangle"]
    assert np.median(triangle_angles(pos, triangles).min(axis=1)) > 51
    length = np.sqrt(4 / np.sqrt(3) * triangle_areas(pos, triangles))
    x, y = (pos[triangles].mean(axis=1) - [0.2, 0.2]).T
    wake = (x > 0.1) & (x < 0.3) & (np.abs(y) < 0.05)
    beside = (x > 0.1) & (x < 0.3) & (np.abs(y) > 0.12)
    assert length[wake].mean() < 0.6 * length[beside].mean()
    assert length[x > 1.5].mean() > 3 * length[np.hypot(x, y) < 0.06].mean()


def test_edges_have_the_wanted_lengths():
    mesh = channel_mesh(size=0.04, hole_size=0.006)
    check(mesh, 2.2, 0.41, (0.2, 0.2), 0.05)
    assert np.count_nonzero(mesh.nodes_of("obstacle")) == round(2 * np.pi * 0.05 / 0.006)
    pos, triangles = mesh.pos, mesh.cells["triangle"]
    ends = pos[np.stack([triangles, np.roll(triangles, 1, axis=1)]).reshape(2, -1)]
    length, (x, y) = np.hypot(*(ends[1] - ends[0]).T), ends.mean(axis=0).T
    assert np.median(length[x > 1.5]) == pytest.approx(0.04, rel=0.02)
    before = (x < 0.2) & (np.hypot(x - 0.2, y - 0.2) < 0.17)
    wanted = 0.006 + 0.25 * (np.hypot(x - 0.2, y - 0.2)[before] - 0.05)
    assert np.median(length[before] / wanted) == pytest.approx(1, rel=0.03)


def test_number_of_nodes_and_size_agree():
    by_size = channel_mesh(size=0.04)
    by_number = channel_mesh(num_nodes=by_size.num_nodes)
    hole = [np.count_nonzero(mesh.nodes_of("obstacle")) for mesh in (by_size, by_number)]
    assert hole[0] == pytest.approx(2 * np.pi * 0.05 / (0.04 / 7), abs=1)
    assert hole[1] == pytest.approx(hole[0], abs=1)


def test_narrow_gap_holds_three_edges():
    mesh = channel_mesh(2.2, 0.41, (0.4, 0.062), 0.05, num_nodes=1000)
    check(mesh, 2.2, 0.41, (0.4, 0.062), 0.05)
    spacing = 2 * np.pi * 0.05 / np.count_nonzero(mesh.nodes_of("obstacle"))
    assert spacing == pytest.approx(0.012 / 3, rel=0.02)


@pytest.mark.parametrize(
    ("channel", "options"),
    [
        ((1.0, 3.0, (0.5, 0.5), 0.2), {"num_nodes": 900}),
        ((0.41, 0.41, (0.2, 0.2), 0.1), {"num_nodes": 900}),
        ((220.0, 41.0, (20.0, 20.0), 5.0), {"num_nodes": 900}),
        ((2.2, 0.41, (0.2, 0.2), 0.05), {"growth": 0.5, "num_nodes": 600}),
        ((2.2, 0.41, (0.2, 0.2), 0.05), {"size": 0.41 / 3}),
        ((2.2, 0.41, (0.2, 0.2), 0.05), {"size": 0.08, "hole_size": 0.1 * np.pi / 12}),
        ((2.2, 0.41, (0.2, 0.2), 0.05), {"size": 0.05, "hole_size": 0.002}),
        ((2.2, 0.41, (0.4, 0.08), 0.05), {"size": 0.05, "hole_size": 0.015}),
    ],
)
def test_unusual_channels(channel, options):
    check(channel_mesh(*channel, **options), *channel)


def test_border_of_a_mirrored_channel_is_mirrored():
    below = channel_mesh(2.2, 0.41, (0.3, 0.15), 0.05, num_nodes=800)
    above = channel_mesh(2.2, 0.41, (0.3, 0.41 - 0.15), 0.05, num_nodes=800)

    def border(pos, mesh):
        rows = np.column_stack([pos, mesh.node_type])[~mesh.nodes_of("normal")].round(9) + 0.0
        return rows[np.lexsort(rows.T)]

    mirrored = border(below.pos * [1, -1] + [0, 0.41], below)
    np.testing.assert_allclose(border(above.pos, above), mirrored, atol=1e-8)


def test_same_seed_same_mesh():
    meshes = [channel_mesh(num_nodes=600, seed=seed) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(meshes[0].pos, meshes[1].pos)
    np.testing.assert_array_equal(meshes[0].cells["triangle"], meshes[1].cells["triangle"])
    assert not np.array_equal(meshes[0].pos, meshes[2].pos)


def test_best_of_several_attempts(monkeypatch):
    angles = []
    smallest_angle = meshing._smallest_angle

    def noted(mesh):
        angles.append(smallest_angle(mesh))
        return angles[-1]

    monkeypatch.setattr(meshing, "_smallest_angle", noted)
    channel_mesh(num_nodes=500, seed=1)
    assert len(angles) == 1
    monkeypatch.setattr(meshing, "USUAL_ANGLE", 60)
    mesh = channel_mesh(num_nodes=500, seed=1)
    attempts = angles[1:]
    assert len(attempts) == meshing.ATTEMPTS
    assert attempts[0] == angles[0]
    assert attempts[-1] < max(attempts)
    assert smallest_angle(mesh) == max(attempts)
    monkeypatch.setattr(meshing, "SMALLEST_ANGLE", 50)
    with pytest.raises(ValueError, match=r"no mesh .* 50 degrees but one of 3\d\.\d for edges"):
        channel_mesh(num_nodes=500)


def test_a_triangle_without_a_node_in_the_flow_is_not_accepted():
    mesh = channel_mesh(num_nodes=500)
    assert meshing._smallest_angle(mesh) > 20
    corner = (mesh.pos == 0).all(axis=1)
    around = np.unique(mesh.cells["triangle"][corner[mesh.cells["triangle"]].any(axis=1)])
    (diagonal,) = around[mesh.nodes_of("normal")[around]]
    swapped = mesh.node_type.copy()
    far = np.flatnonzero(mesh.nodes_of("wall") & (mesh.pos[:, 0] > 1))[0]
    swapped[[diagonal, far]] = swapped[[far, diagonal]]
    assert meshing._smallest_angle(Mesh(mesh.pos, mesh.cells, swapped)) == 0


def test_a_wrong_triangulation_is_no_mesh(monkeypatch):
    triangles = channel_mesh(num_nodes=500).cells["triangle"]
    monkeypatch.setattr(meshing, "ATTEMPTS", 1)
    for wrong in (triangles[1:], np.concatenate([triangles, triangles[:1]])):
        monkeypatch.setattr(meshing, "triangulate", lambda *_, wrong=wrong: wrong)
        with pytest.raises(ValueError, match=r"found no mesh .* but one of 0\.0 "):
            channel_mesh(num_nodes=500)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": -1.0}, "length must be positive, got -1.0"),
        ({"hole_radius": 0.0}, "hole_radius must be positive"),
        ({"hole_center": (0.2, 0.05)}, r"at \(0.2, 0.05\) must lie inside .* not touch its walls"),
        ({"growth": 0.0}, "growth must be above 0 and at most 0.5 .* got 0.0 and 0.2"),
        ({"growth": 0.6}, "growth must be above 0 and at most 0.5"),
        ({"wake_growth": -0.1}, "wake_growth from 0 to 1, got 0.25 and -0.1"),
        ({"wake_growth": 1.5}, "wake_growth from 0 to 1"),
        ({"size": 0.05, "num_nodes": 900}, "num_nodes or size, not both; got 900 and 0.05"),
        ({"num_nodes": 20}, r"num_nodes = 20 is too few .* at least 4\d\d"),
        ({"num_nodes": 0}, "num_nodes = 0 is too few"),
        ({"num_nodes": 900, "hole_size": 0.0005}, "num_nodes = 900 is too few .* at least 4"),
        ({"size": 0.2}, "at most 0.136667, a third of the channel, got 0.2"),
        ({"size": 0.0}, "size must be above 0"),
        ({"size": float("nan")}, "size must be above 0 .* got nan"),
        ({"size": 0.04, "hole_size": 0.0}, "hole_size must be above 0 .* got 0"),
        ({"size": 0.02, "hole_size": 0.021}, "hole_size .* at most 0.02, .* got 0.021"),
        ({"size": 0.05, "hole_size": 0.03}, "hole_size .* at most 0.0261799, .* got 0.03"),
        (
            {"size": 0.05, "hole_size": 0.016, "hole_center": (0.2, 0.08)},
            "at most 0.015, to resolve the hole and the gap of 0.03 .* got 0.016",
        ),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        channel_mesh(**options)


def test_fewest_nodes_are_enough():
    with pytest.raises(ValueError) as error:
        channel_mesh(num_nodes=20)
    fewest = int(str(error.value).split("at least ")[1].split(",")[0])
    check(channel_mesh(num_nodes=fewest), 2.2, 0.41, (0.2, 0.2), 0.05)
    with pytest.raises(ValueError, match="too few"):
        channel_mesh(num_nodes=fewest - 1)
