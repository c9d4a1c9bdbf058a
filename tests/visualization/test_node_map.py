import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection

from pyg_stmamba.visualization import plot_node_map
from pyg_stmamba.visualization.node_map import looks_geographic, spring_layout
from pyg_stmamba.visualization.style import png

EDGES = np.array([[0, 1, 2, 2], [1, 2, 3, 2]])
PLACES = np.array([[0.0, 0.0], [4.0, 1.0], [8.0, -2.0], [9.0, 5.0]])
ERRORS = np.array([1.0, 2.5, 0.5, 1.5])


def dots(figure) -> list[PathCollection]:
    return [c for c in figure.axes[0].collections if isinstance(c, PathCollection)]


def test_dots_carry_places_and_errors() -> None:
    figure = plot_node_map(ERRORS, EDGES, PLACES, unit="mph")
    (nodes,) = dots(figure)
    np.testing.assert_array_equal(nodes.get_offsets(), PLACES)
    np.testing.assert_array_equal(nodes.get_array(), ERRORS)
    assert nodes.get_clim() == (0.5, 2.5)
    assert figure.axes[1].get_ylabel() == "mean absolute error [mph]"
    (lines,) = [c for c in figure.axes[0].collections if isinstance(c, LineCollection)]
    segments = lines.get_segments()
    assert len(segments) == 3  # the self loop is not drawn
    np.testing.assert_array_equal(segments[1], PLACES[[1, 2]])


def test_latitude_and_longitude_become_a_map_with_north_up() -> None:
    degrees = np.array([[34.1, -118.2], [34.2, -118.3], [34.15, -118.1], [34.0, -118.4]])
    assert looks_geographic(degrees)
    figure = plot_node_map(ERRORS, EDGES, degrees)
    np.testing.assert_array_equal(dots(figure)[0].get_offsets(), degrees[:, ::-1])
    axes = figure.axes[0]
    assert axes.get_xlabel() == "longitude [°]"
    assert axes.get_aspect() == pytest.approx(1 / np.cos(np.deg2rad(34.1125)))


@pytest.mark.parametrize(
    "places", [PLACES, np.array([[500000.0, 4100000.0], [500100.0, 4100000.0]]), np.ones((3, 3))]
)
def test_plane_coordinates_are_no_degrees(places: np.ndarray) -> None:
    assert not looks_geographic(places)


@pytest.mark.parametrize("positions", [None, np.zeros((0, 2)), PLACES * np.nan])
def test_without_positions_the_edges_lay_it_out(positions: np.ndarray | None) -> None:
    figure = plot_node_map(ERRORS, EDGES, positions)
    places = np.asarray(dots(figure)[0].get_offsets())
    np.testing.assert_array_equal(places, spring_layout(4, EDGES))
    np.testing.assert_array_equal(spring_layout(4, EDGES), spring_layout(4, EDGES))
    assert np.isfinite(places).all()
    assert "no positions known" in figure.axes[0].get_title(loc="left")
    # 0 - 1 - 2 - 3 is a chain: its ends lie furthest apart.
    distance = np.linalg.norm(places[:, None] - places, axis=-1)
    assert distance.argmax() in (3, 12)


def test_nodes_without_error_are_hollow() -> None:
    figure = plot_node_map(np.array([1.0, np.nan, 3.0, 2.0]), EDGES, PLACES)
    hollow, filled = dots(figure)
    np.testing.assert_array_equal(hollow.get_offsets(), PLACES[[1]])
    np.testing.assert_array_equal(filled.get_array(), [1, 3, 2])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["nothing observed"]


def test_one_broken_detector_does_not_bleach_the_others() -> None:
    errors = np.append(np.linspace(1, 2, 99), 500.0)
    figure = plot_node_map(errors, np.zeros((2, 0)), np.random.default_rng(0).normal(size=(100, 2)))
    assert dots(figure)[0].get_clim()[1] < 15


@pytest.mark.parametrize("errors", [[1.0], [np.nan], [2.0, 2.0]])
def test_tiny_sizes(errors: list[float]) -> None:
    assert len(png(plot_node_map(np.array(errors), np.zeros((2, 0), dtype=int)))) > 1000


def test_positions_of_another_graph_are_refused() -> None:
    with pytest.raises(ValueError, match=r"map of 4 nodes, .* shape \(3, 2\)"):
        plot_node_map(ERRORS, EDGES, PLACES[:3])
