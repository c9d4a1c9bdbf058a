import numpy as np
import pytest
from matplotlib.collections import TriMesh

from pyg_stmamba.data.mesh.mesh import Mesh
from pyg_stmamba.visualization.mesh.mesh_fields import (
    ColorScale,
    color_scale,
    magnitude,
    plot_mesh_fields,
    triangulation,
)
from pyg_stmamba.visualization.style import png


def area(mesh: Mesh) -> float:
    drawn = triangulation(mesh)
    corners = mesh.pos[drawn.triangles]
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.abs(one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]).sum() / 2


def test_every_cell_is_drawn_once():
    x, y = np.meshgrid([0.0, 1, 2, 3], [0.0, 1, 2], indexing="ij")
    pos = np.stack([x.ravel(), y.ravel()], axis=1) * [2, 1]
    quads = np.array([[0, 3, 4, 1], [1, 4, 5, 2], [3, 6, 7, 4]])
    triangles = np.array([[4, 7, 8], [4, 8, 5]])
    lines = np.array([[0, 1]])
    assert area(Mesh(pos, {"quad": quads})) == 6
    edges = {tuple(edge) for edge in np.sort(triangulation(Mesh(pos, {"quad": quads})).edges, 1)}
    for side in np.sort(np.stack([quads, np.roll(quads, 1, axis=1)], axis=-1)).reshape(-1, 2):
        assert tuple(side) in edges
    assert area(Mesh(pos, {"quad": quads, "triangle": triangles, "line": lines})) == 8
    assert len(triangulation(Mesh(pos, {"triangle": triangles})).triangles) == 2


def test_the_hole_stays_empty(mesh):
    # A 16-gon is cut out of the channel.
    hole = 8 * np.sin(2 * np.pi / 16) * 0.06**2
    assert np.isclose(area(mesh), 1.6 * 0.4 - hole)


def test_what_cannot_be_drawn():
    with pytest.raises(ValueError, match="plane meshes, this one has three dimensions"):
        triangulation(Mesh(np.eye(4, 3), {"tetra": np.array([[0, 1, 2, 3]])}))
    with pytest.raises(ValueError, match=r"need triangles or quads, .* are: line"):
        triangulation(Mesh(np.eye(2), {"line": np.array([[0, 1]])}))


def test_a_scale_starts_at_0_or_has_it_in_the_middle():
    speed = np.linspace(0.5, 2, 1000)
    assert color_scale([speed]).low == 0
    assert np.isclose(color_scale([speed]).high, 2, atol=0.01)
    assert color_scale([speed, speed + 3]).high > 4.9
    low, high, colors = color_scale([np.linspace(-1, 3, 1000)])
    assert low == -high
    assert np.isclose(high, 3, atol=0.02)
    assert colors == "RdBu_r"


def test_stray_values_do_not_fade_all_others():
    values = np.append(np.linspace(0, 1, 5000), 1e6)
    assert color_scale([values]).high < 1.01
    assert color_scale([np.array([np.nan, 1.0, np.inf])]) == ColorScale(0.0, 1.0, "viridis")
    assert color_scale([np.zeros(9)]) == ColorScale(0.0, 1.0, "viridis")
    assert color_scale([np.full(3, np.nan)]).high == 1


def test_magnitude():
    assert np.allclose(magnitude([[3.0, -4.0], [0, 0]]), [5, 0])
    assert np.allclose(magnitude([[-3.0], [2.0]]), [-3, 2])
    assert np.allclose(magnitude([[1.0, 2.0, 2.0]]), [3])


def test_panels_share_one_scale(mesh):
    fields = {"prediction": mesh.pos[:, 0], "truth": 2 * mesh.pos[:, 0]}
    figure = plot_mesh_fields(mesh, fields, quantity="speed", unit="m/s", title="t = 1")
    first, second, bar = figure.axes
    for axes, (name, values) in zip((first, second), fields.items()):
        (drawn,) = [artist for artist in axes.collections if isinstance(artist, TriMesh)]
        assert np.array_equal(drawn.get_array(), values)
        assert drawn.get_clim() == pytest.approx((0, 3.2), abs=0.01)
        assert axes.get_title(loc="left") == name
        assert axes.get_aspect() == 1
    assert bar.get_ylabel() == "speed [m/s]"
    assert figure.get_suptitle() == "t = 1"
    assert first.get_position().y0 > second.get_position().y0
    assert png(figure).startswith(b"\x89PNG")


def test_a_tall_domain_stands_side_by_side(mesh):
    tall = Mesh(mesh.pos[:, ::-1], mesh.cells)
    figure = plot_mesh_fields(tall, {"a": tall.pos[:, 0], "b": tall.pos[:, 1]})
    first, second, _ = figure.axes
    assert first.get_position().x0 < second.get_position().x0
    assert first.get_position().y0 == second.get_position().y0


def test_a_given_scale_is_kept(mesh):
    figure = plot_mesh_fields(mesh, {"a": mesh.pos[:, 0]}, scale=ColorScale(-7, 9, "viridis"))
    assert figure.axes[0].collections[0].get_clim() == (-7, 9)


def test_what_is_not_finite_leaves_a_gap(mesh):
    values = mesh.pos[:, 0].copy()
    values[::7] = np.nan
    assert png(plot_mesh_fields(mesh, {"a": values}))
