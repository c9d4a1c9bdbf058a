import networkx as nx
import numpy as np
import pytest

from pyg_stmamba.simulation import Freeway, FreewayNetwork, freeway_layout, simulate


def test_standard_layout() -> None:
    layout = freeway_layout()
    network = FreewayNetwork(layout)
    ways = set(nx.get_node_attributes(layout, "carriageway").values())
    assert ways == {"A-E", "A-W", "B-N", "B-S", "C-S", "C-N"}
    network.check_step(15.0)
    for way in ways:
        cells = [cell for cell, name in layout.nodes(data="carriageway") if name == way]
        km = [layout.nodes[cell]["km"] for cell in cells]
        np.testing.assert_allclose(np.diff(km), 0.45)
        assert any(layout.nodes[cell]["lanes"] == 3 for cell in cells), "no bottleneck"
        ramps = [origin for origin in network.origins if origin.startswith(way)]
        assert len(ramps) >= 3


def test_every_exit_is_reached_from_every_origin_by_way_of_the_interchanges() -> None:
    layout = freeway_layout()
    network = FreewayNetwork(layout)
    beginnings = [origin for origin in network.origins if origin.endswith("begin")]
    for origin in beginnings:
        reached = nx.descendants(layout, origin)
        assert all(f"{way[:3]} end" in reached for way in beginnings if way[0] != origin[0])
        assert f"{origin[:3]} end" in reached


def test_interchanges_lie_where_freeways_cross() -> None:
    layout = freeway_layout()
    places = nx.get_node_attributes(layout, "position")
    np.testing.assert_allclose(places["A-E to B"], [0.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(places["C-N to B"], [0.0, 5.0], atol=1e-9)
    for way, crossed in (("A-E", "B"), ("B-S", "A"), ("C-N", "A"), ("C-S", "B")):
        ramp = f"{way} to {crossed}"
        (before,) = layout.predecessors(ramp)
        (after,) = layout.successors(f"{crossed} to {way}")
        assert layout.nodes[before]["km"] < layout.nodes[after]["km"]
        for cell in (before, after):
            assert np.linalg.norm(places[cell] - places[ramp]) < 1.5


def test_positions_run_along_the_axis_on_the_right_of_the_driver() -> None:
    layout = freeway_layout((Freeway("X", (0.0, 0.0), (9.0, 0.0), ("E", "W"), ((), ())),))
    east, west = (layout.nodes[f"X-{way} 0"]["position"] for way in "EW")
    assert east == pytest.approx([0.225, -0.08])
    assert west == pytest.approx([8.775, 0.08])
    assert "lanes" in layout.nodes["X-E 19"]
    assert "X-E 20" not in layout


def test_a_lane_drop_queues_in_the_layout() -> None:
    narrow = (((6.0, 7.5),), ())
    layout = freeway_layout((Freeway("X", (0.0, 0.0), (9.0, 0.0), ("E", "W"), narrow),))
    network = FreewayNetwork(layout)
    usual = np.array([layout.nodes[origin]["demand"] for origin in network.origins])
    history = simulate(network, np.tile(1.2 * usual, (12, 1)))
    speed = dict(zip(network.cells, history.speed[-1]))
    assert speed["X-E 12"] < 60
    assert speed["X-E 18"] > 100
    assert speed["X-W 12"] > speed["X-E 12"]
