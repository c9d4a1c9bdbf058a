import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyg_stmamba.data import great_circle_distance, knn_graph, radius_graph


def plane(num_nodes=30, seed=0, dim=2):
    return np.random.default_rng(seed).random((num_nodes, dim))


def globe(num_nodes=30, seed=0):
    u, v = np.random.default_rng(seed).random((2, num_nodes))
    # Longitudes across the date line, latitudes up to the poles.
    return np.stack([np.degrees(np.arcsin(2 * u - 1)), 360 * v - 180], axis=1)


def all_distances(points, metric):
    if metric == "euclidean":
        return np.linalg.norm(points[:, None] - points[None], axis=-1)
    lat, lon = np.radians(points).T
    cosine = np.sin(lat)[:, None] * np.sin(lat) + np.cos(lat)[:, None] * np.cos(lat) * np.cos(
        lon[:, None] - lon
    )
    return 6371.0088 * np.arccos(np.clip(cosine, -1, 1))


def as_set(edge_index):
    return set(map(tuple, edge_index.T.tolist()))


@pytest.mark.parametrize(
    ("points", "metric"),
    [(plane(), "euclidean"), (plane(dim=3), "euclidean"), (globe(), "great-circle")],
)
@pytest.mark.parametrize("k", [1, 4, 29])
def test_nearest_by_brute_force(points, metric, k):
    distances = all_distances(points, metric)
    edges, length = knn_graph(points, k, metric=metric)
    away = distances + np.diag(np.full(len(points), np.inf))
    expected = {(int(s), t) for t in range(30) for s in np.argsort(away[t])[:k]}
    assert as_set(edges) == expected
    assert edges.size(1) == 30 * k
    assert np.allclose(length, distances[edges[1], edges[0]], rtol=1e-4)
    assert torch.bincount(edges[1]).tolist() == [k] * 30


@pytest.mark.parametrize(
    ("points", "metric", "radius"),
    [
        (plane(), "euclidean", 0.3),
        (globe(), "great-circle", 4000.0),
        (globe(), "great-circle", 1e5),
    ],
)
def test_radius_by_brute_force(points, metric, radius):
    distances = all_distances(points, metric)
    edges, length = radius_graph(points, radius, metric=metric)
    expected = {
        (s, t) for s in range(30) for t in range(30) if s != t and distances[s, t] <= radius
    }
    assert expected
    assert as_set(edges) == expected
    assert np.allclose(length, distances[edges[1], edges[0]], rtol=1e-4)


def test_direction_and_self_loops():
    points = torch.tensor([[0.0], [1.0], [3.0]])
    edges, length = knn_graph(points, 1)
    assert edges.tolist() == [[1, 0, 1], [0, 1, 2]]
    assert length.tolist() == [1, 1, 2]
    edges, length = knn_graph(points, 1, directed=False)
    assert edges.tolist() == [[1, 0, 2, 1], [0, 1, 1, 2]]
    assert length.tolist() == [1, 1, 2, 2]
    edges, length = knn_graph(points, 1, self_loops=True)
    assert edges.tolist() == [[0, 1, 0, 1, 1, 2], [0, 0, 1, 1, 2, 2]]
    assert length.tolist() == [0, 1, 1, 0, 2, 0]
    edges, length = radius_graph(points, 1.0, self_loops=True)
    assert edges.tolist() == [[0, 1, 0, 1, 2], [0, 0, 1, 1, 2]]
    assert radius_graph(points, 0.5)[0].shape == (2, 0)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_coincident_points_are_neighbours_not_loops(k):
    points = np.zeros((5, 2))
    edges, length = knn_graph(points, k)
    assert bool((edges[0] != edges[1]).all())
    assert torch.bincount(edges[1]).tolist() == [k] * 5
    assert len(as_set(edges)) == 5 * k
    assert length.tolist() == [0.0] * 5 * k
    assert radius_graph(points, 1.0)[0].size(1) == 20


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-90, 90), st.floats(-180, 180)), min_size=2, max_size=2),
)
def test_great_circle_by_the_law_of_cosines(points):
    first, second = np.array(points)
    ours = float(great_circle_distance(first, second))
    assert ours == pytest.approx(all_distances(np.array(points), "great-circle")[0, 1], abs=0.2)
    assert ours == pytest.approx(float(great_circle_distance(second, first)), abs=1e-9)


def test_great_circle_closed_forms():
    quarter = np.pi / 2 * 6371.0088
    assert float(great_circle_distance([0, 0], [0, 90])) == pytest.approx(quarter)
    assert float(great_circle_distance([90, 17], [0, -170])) == pytest.approx(quarter)
    assert float(great_circle_distance([45, 10], [-45, -170])) == pytest.approx(2 * quarter)
    assert float(great_circle_distance([52.5, 13.4], [52.5, 13.4])) == 0
    # One metre: the law of cosines would lose it.
    metre = np.degrees(1e-3 / 6371.0088)
    assert float(great_circle_distance([48, 11], [48 + metre, 11])) == pytest.approx(1e-3, rel=1e-6)
    table = great_circle_distance(globe(4)[:, None], torch.from_numpy(globe(3)))
    assert table.shape == (4, 3)
    assert table.dtype == torch.float64


def test_great_circle_neighbours_of_real_sensors(shared_data):
    rows = (shared_data / "metr_la" / "raw" / "graph_sensor_locations.csv").read_text().split()[1:]
    points = np.array([[float(v) for v in row.split(",")[2:]] for row in rows])
    edges, length = knn_graph(points, 4, metric="great-circle")
    haversine = great_circle_distance(points[edges[0]], points[edges[1]])
    assert torch.allclose(length.double(), haversine, rtol=1e-5, atol=1e-6)


def test_large_graphs_are_vectorised():
    edges, _ = knn_graph(plane(8600), 8)
    assert edges.size(1) == 8 * 8600


def test_bad_input():
    with pytest.raises(ValueError, match="k must be from 1 to 29 for 30 nodes, got 30"):
        knn_graph(plane(), 30)
    with pytest.raises(ValueError, match="got 0"):
        knn_graph(plane(), 0)
    with pytest.raises(ValueError, match=r"unknown metric 'taxi', choose from \['euclidean', "):
        knn_graph(plane(), 3, metric="taxi")
    with pytest.raises(ValueError, match="radius must be positive, got -1"):
        radius_graph(plane(), -1)
    with pytest.raises(ValueError, match=r"\[N, P\], got shape \[30\]"):
        knn_graph(plane()[:, 0], 3)
    with pytest.raises(ValueError, match="1 NaN or infinite"):
        knn_graph([[0.0], [np.nan], [1.0]], 1)
    with pytest.raises(ValueError, match=r"in this order; got latitudes from -118.* to -118"):
        great_circle_distance([-118.3, 34.1], [-118.2, 34.0])
    with pytest.raises(ValueError, match=r"latitude and longitude \[..., 2\], got shape \[3\]"):
        great_circle_distance([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="latitude"):
        knn_graph([[np.nan, 0.0], [0, 0]], 1, metric="great-circle")
