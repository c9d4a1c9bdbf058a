import networkx as nx
import numpy as np
import pytest

from pyg_stmamba.simulation import FreewayNetwork, FundamentalDiagram, freeway_layout, simulate

DIAGRAM = FundamentalDiagram()
STEP = 15.0


def road(lanes: list[int], length: float = 0.45) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_node("begin", kind="origin")
    for i, count in enumerate(lanes):
        graph.add_node(i, length=length, lanes=count)
    graph.add_node("end", kind="exit")
    nx.add_path(graph, ["begin", *range(len(lanes)), "end"])
    return graph


def junction(kind: str, shares: tuple[float, float], length: float = 0.9) -> nx.DiGraph:
    """Cells "a" and "b" merge into "c", or "c" diverges into "a" and "b"; one lane each."""
    graph = nx.DiGraph()
    for cell in "abc":
        graph.add_node(cell, length=length, lanes=1)
    for branch, share in zip("ab", shares):
        if kind == "merge":
            graph.add_node(f"to {branch}", kind="origin")
            graph.add_edge(f"to {branch}", branch)
            graph.add_edge(branch, "c", priority=share)
        else:
            graph.add_node(f"from {branch}", kind="exit")
            graph.add_edge("c", branch, split=share)
            graph.add_edge(branch, f"from {branch}")
    if kind == "merge":
        graph.add_node("end", kind="exit")
        graph.add_edge("c", "end")
    else:
        graph.add_node("begin", kind="origin")
        graph.add_edge("begin", "c")
    return graph


def one_step(graph: nx.DiGraph, vehicles: dict, capacity_share: dict | None = None) -> dict:
    """What leaves each cell in one step, and what is in every node after it."""
    network = FreewayNetwork(graph)
    share = np.ones((1, len(network.cells)))
    for cell, value in (capacity_share or {}).items():
        share[0, network.index[cell]] = value
    history = simulate(
        network,
        np.zeros((1, len(network.origins))),
        step_seconds=STEP,
        steps_per_record=1,
        capacity_share=share,
        initial=np.array([vehicles.get(node, 0.0) for node in network.nodes]),
    )
    leaving = dict(zip(network.cells, history.flow[0] * STEP / 3600))
    return leaving | {f"after {n}": v for n, v in zip(network.nodes, history.vehicles)}


def stressed(records: int = 24, runs: int = 2) -> tuple:
    """The standard layout with twice the usual demand, blocked cells and vehicles to begin with."""
    layout = freeway_layout()
    network = FreewayNetwork(layout)
    rng = np.random.default_rng(0)
    usual = np.array([layout.nodes[origin]["demand"] for origin in network.origins])
    demand = 2 * usual[:, None] * rng.random((records, len(usual), runs))
    share = rng.choice(
        [0.0, 0.3, 1.0], size=(records, len(network.cells), runs), p=[0.02, 0.1, 0.88]
    )
    initial = rng.random((len(network.nodes), runs))
    initial[: len(network.cells)] *= (network.jam_density * network.length)[:, None]
    return network, demand, share, initial


def reference_step(graph: nx.DiGraph, n: dict, share: dict, hours: float) -> tuple[dict, dict]:
    """One step as Daganzo (1994, 1995) writes it, node by node."""
    send, receive = {}, {}
    for node, data in graph.nodes(data=True):
        kind = data.get("kind", "cell")
        if kind == "cell":
            diagram = data.get("diagram", DIAGRAM)
            limit = diagram.capacity * data["lanes"] * hours * share.get(node, 1.0)
            room = diagram.jam_density * data["lanes"] * data["length"]
            send[node] = min(limit, n[node] * diagram.free_speed * hours / data["length"])
            receive[node] = min(
                limit, (room - n[node]) * diagram.wave_speed * hours / data["length"]
            )
        else:
            limit = data.get("capacity", np.inf) * hours
            send[node], receive[node] = min(n[node], limit), limit
    moved = {}
    for node in graph:
        before, after = list(graph.predecessors(node)), list(graph.successors(node))
        if len(before) == 2:
            one, two = before
            s1, s2, r = send[one], send[two], receive[node]
            if s1 + s2 <= r:
                moved[one, node], moved[two, node] = s1, s2
            else:
                p1, p2 = (graph.edges[b, node].get("priority", 0.5) for b in before)
                moved[one, node] = np.median([s1, r - s2, p1 * r])
                moved[two, node] = np.median([s2, r - s1, p2 * r])
        if len(after) == 2:
            splits = [graph.edges[node, a].get("split", 0.5) for a in after]
            total = min(send[node], *(receive[a] / s for a, s in zip(after, splits)))
            moved.update({(node, a): s * total for a, s in zip(after, splits)})
        elif len(after) == 1 and graph.in_degree(after[0]) == 1:
            moved[node, after[0]] = min(send[node], receive[after[0]])
    n = dict(n)
    for (tail, head), count in moved.items():
        n[tail] -= count
        n[head] += count
    return n, moved


def test_fundamental_diagram() -> None:
    diagram = FundamentalDiagram(free_speed=100.0, wave_speed=20.0, capacity=2000.0)
    assert diagram.critical_density == 20.0
    assert diagram.jam_density == 120.0
    density = np.array([0.0, 10.0, 20.0, 70.0, 120.0])
    np.testing.assert_allclose(diagram.flow(density), [0.0, 1000.0, 2000.0, 1000.0, 0.0])


def test_every_step_is_that_of_daganzo() -> None:
    layout = freeway_layout()
    network, demand, share, initial = stressed(records=30, runs=1)
    history = simulate(network, demand, steps_per_record=1, capacity_share=share, initial=initial)
    n = dict(zip(network.nodes, initial[:, 0]))
    for record in range(len(demand)):
        for origin, arrivals in zip(network.origins, demand[record, :, 0]):
            n[origin] += arrivals * STEP / 3600
        n, moved = reference_step(
            layout, n, dict(zip(network.cells, share[record, :, 0])), STEP / 3600
        )
        for cell, flow in zip(network.cells, history.flow[record, :, 0]):
            left = sum(moved[cell, head] for head in layout.successors(cell))
            assert left == pytest.approx(flow * STEP / 3600, rel=1e-9, abs=1e-9)
    np.testing.assert_allclose(
        history.vehicles[:, 0], [n[node] for node in network.nodes], rtol=1e-9
    )


def test_vehicles_are_conserved() -> None:
    network, demand, share, initial = stressed()
    history = simulate(network, demand, capacity_share=share, initial=initial)
    hours = 20 * STEP / 3600
    entered = demand.sum(axis=(0, 1)) * hours
    left = history.exit_flow.sum(axis=(0, 1)) * hours
    exits = history.vehicles[-len(network.exits) :] - initial[-len(network.exits) :]
    gain = history.vehicles.sum(axis=0) - initial.sum(axis=0)
    np.testing.assert_allclose(gain, entered, rtol=1e-9)
    np.testing.assert_allclose(exits.sum(axis=0), left, rtol=1e-9)
    assert (history.queue[-1].sum(axis=0) > 100).all(), "the queues of the origins were not tried"
    origins = slice(len(network.cells), -len(network.exits))
    np.testing.assert_array_equal(history.queue[-1], history.vehicles[origins])


def test_density_stays_between_nothing_and_jam() -> None:
    network, demand, share, initial = stressed()
    history = simulate(network, demand, steps_per_record=3, capacity_share=share, initial=initial)
    assert history.density.min() >= 0
    assert (history.density / network.jam_density[:, None]).max() <= 1 + 1e-12
    assert history.density.max() > 0.95 * network.jam_density.max(), "no jam was tried"
    assert history.vehicles.min() >= 0
    assert (history.speed <= network.free_speed[:, None] * (1 + 1e-9)).all()
    assert history.flow.min() >= 0


def test_light_traffic_travels_at_free_speed() -> None:
    # 0.45 km at 108 km/h take just one step, so a pulse moves one cell a step and keeps its shape.
    network = FreewayNetwork(road([3] * 20))
    demand = np.zeros((21, 1))
    demand[0] = 2000.0
    history = simulate(network, demand, steps_per_record=1)
    pulse = 2000.0 * STEP / 3600 / 0.45
    expected = np.zeros((21, 20))
    expected[np.arange(1, 21), np.arange(20)] = pulse
    np.testing.assert_allclose(history.density, expected, atol=1e-12)
    np.testing.assert_allclose(history.speed, 108.0)


def test_light_traffic_in_long_cells_keeps_its_mean_speed() -> None:
    network = FreewayNetwork(road([3] * 60, length=0.6))
    demand = np.zeros((60, 1))
    demand[0] = 2000.0
    history = simulate(network, demand, steps_per_record=1)
    weight = history.density[[20, 40]]
    centre = (weight * np.arange(60)).sum(axis=1) / weight.sum(axis=1) * 0.6
    assert (centre[1] - centre[0]) / (20 * STEP / 3600) == pytest.approx(108.0, rel=1e-6)


def front(density: np.ndarray, level: float, length: float) -> np.ndarray:
    """Where density rises above a level going downstream, in km, between cells if need be."""
    places = []
    for row in density:
        i = int(np.argmax(row > level))
        part = (level - row[i - 1]) / (row[i] - row[i - 1])
        places.append((i - 1 + part) * length)
    return np.array(places)


def test_jam_grows_and_dissolves_at_the_speeds_of_theory() -> None:
    length, flow, blocked = 0.1, 1200.0, 150
    network = FreewayNetwork(road([1] * 160, length=length))
    step, per_record = 3.0, 20
    share = np.ones((100, 160))
    share[20:60, blocked] = 0.0
    history = simulate(
        network,
        np.full((100, 1), flow),
        step_seconds=step,
        steps_per_record=per_record,
        capacity_share=share,
    )
    hours = np.arange(100) * step * per_record / 3600
    light = flow / DIAGRAM.free_speed
    level = (light + DIAGRAM.jam_density) / 2
    growing = slice(30, 60)
    tail = front(history.density[growing], level, length)
    shock = (flow - 0.0) / (light - DIAGRAM.jam_density)
    assert np.polyfit(hours[growing], tail, 1)[0] == pytest.approx(shock, rel=0.01)
    assert history.density[59, blocked - 1] == pytest.approx(DIAGRAM.jam_density, rel=1e-3)

    dissolving = slice(63, 75)
    level = (DIAGRAM.critical_density + DIAGRAM.jam_density) / 2
    upstream_of_block = history.density[dissolving, :blocked][:, ::-1]
    head = (blocked - 1) * length - front(upstream_of_block, level, length)
    speed = np.polyfit(hours[dissolving], head, 1)[0]
    assert speed == pytest.approx(-DIAGRAM.wave_speed, rel=0.03)
    # The queue empties at capacity.
    assert history.flow[70, blocked + 5] == pytest.approx(DIAGRAM.capacity, rel=1e-3)


def test_bottleneck_passes_its_capacity_and_queues_by_the_diagram() -> None:
    network = FreewayNetwork(road([3] * 30 + [2] * 10))
    history = simulate(network, np.full((40, 1), 4800.0))
    assert history.flow[-1, 35] == pytest.approx(2 * DIAGRAM.capacity, rel=1e-9)
    queue = 3 * DIAGRAM.jam_density - 2 * DIAGRAM.capacity / DIAGRAM.wave_speed
    assert history.density[-1, 28] == pytest.approx(queue, rel=1e-3)
    assert history.speed[-1, 28] == pytest.approx(2 * DIAGRAM.capacity / queue, rel=1e-3)
    assert history.density[-1, 35] == pytest.approx(2 * DIAGRAM.critical_density, rel=1e-9)


def test_merge_by_hand() -> None:
    # A lane carries at most 2000 veh/h * 15 s = 25/3 vehicles a step; half of a cell of 0.9 km is
    # passed in one step, so n vehicles can send n / 2.
    graph = junction("merge", (0.7, 0.3))
    both_queued = one_step(graph, {"a": 40.0, "b": 40.0})
    assert both_queued["a"] == pytest.approx(0.7 * 25 / 3)
    assert both_queued["b"] == pytest.approx(0.3 * 25 / 3)
    one_light = one_step(graph, {"a": 2.0, "b": 40.0})
    assert one_light["a"] == pytest.approx(1.0)
    assert one_light["b"] == pytest.approx(25 / 3 - 1)
    other_light = one_step(graph, {"a": 40.0, "b": 2.0})
    assert other_light["a"] == pytest.approx(25 / 3 - 1)
    assert other_light["b"] == pytest.approx(1.0)
    both_light = one_step(graph, {"a": 4.0, "b": 6.0})
    assert (both_light["a"], both_light["b"]) == pytest.approx((2.0, 3.0))
    assert both_light["after c"] == pytest.approx(5.0)
    # 12 vehicles fewer than fit leave room for 18 km/h * 15 s / 0.9 km = 1/12 of that: one.
    full = one_step(graph, {"a": 40.0, "b": 40.0, "c": DIAGRAM.jam_density * 0.9 - 12.0})
    assert (full["a"], full["b"]) == pytest.approx((0.7, 0.3))


def test_diverge_by_hand() -> None:
    graph = junction("diverge", (0.75, 0.25))
    free = one_step(graph, {"c": 8.0})
    assert free["c"] == pytest.approx(4.0)
    assert (free["after a"], free["after b"]) == pytest.approx((3.0, 1.0))
    nearly_full = DIAGRAM.jam_density * 0.9 - 12.0
    held_up = one_step(graph, {"c": 40.0, "b": nearly_full}, {"b": 1.0})
    assert held_up["c"] == pytest.approx(4.0), "one vehicle fits into b, three more go to a"
    assert held_up["after a"] == pytest.approx(3.0)
    closed = one_step(graph, {"c": 40.0}, {"b": 0.0})
    assert closed["c"] == 0.0, "first in, first out: a closed branch holds up all"


def test_queue_of_an_origin_keeps_everybody() -> None:
    graph = road([1] * 4)
    graph.nodes["begin"]["capacity"] = 600.0
    demand = np.zeros((12, 1))
    demand[:6] = 1000.0
    history = simulate(FreewayNetwork(graph), demand)
    waiting = 400.0 * np.arange(1, 7) / 12
    np.testing.assert_allclose(history.queue[:6, 0], waiting, rtol=1e-9)
    np.testing.assert_allclose(history.flow[1:9, 0], 600.0, rtol=1e-9)
    assert history.queue[-1, 0] == pytest.approx(0.0, abs=1e-9)


def test_chunks_continue_and_runs_are_independent() -> None:
    network, demand, share, initial = stressed(records=10)
    whole = simulate(network, demand, capacity_share=share, initial=initial)
    early = simulate(network, demand[:4], capacity_share=share[:4], initial=initial)
    late = simulate(network, demand[4:], capacity_share=share[4:], initial=early.vehicles)
    alone = simulate(network, demand[..., 1], capacity_share=share[..., 1], initial=initial[:, 1])
    for name in ("density", "flow", "speed", "queue", "exit_flow"):
        pair = [getattr(early, name), getattr(late, name)]
        np.testing.assert_array_equal(np.concatenate(pair), getattr(whole, name))
        np.testing.assert_array_equal(getattr(alone, name), getattr(whole, name)[..., 1])
    np.testing.assert_array_equal(late.vehicles, whole.vehicles)
    np.testing.assert_array_equal(alone.vehicles, whole.vehicles[:, 1])


def test_inputs_are_left_alone() -> None:
    network, demand, share, initial = stressed(records=3)
    copies = demand.copy(), share.copy(), initial.copy()
    simulate(network, demand, capacity_share=share, initial=initial)
    for now, before in zip((demand, share, initial), copies):
        np.testing.assert_array_equal(now, before)


def test_too_long_steps_are_refused_with_the_numbers() -> None:
    graph = road([2] * 5)
    graph.nodes[3]["length"] = 0.3
    network = FreewayNetwork(graph)
    with pytest.raises(ValueError, match=r"15\.0 s breaks the CFL.*cell 3 is 0\.3 km.*10 s"):
        simulate(network, np.zeros((1, 1)), step_seconds=15.0)
    with pytest.raises(ValueError, match="between 0 and 10 s"):
        simulate(network, np.zeros((1, 1)), step_seconds=0.0)
    simulate(network, np.zeros((1, 1)), step_seconds=10.0)


def test_wrong_arrays_are_refused() -> None:
    network = FreewayNetwork(road([2] * 5))
    with pytest.raises(ValueError, match=r"shape \(4, 2\).*1 origins"):
        simulate(network, np.zeros((4, 2)))
    with pytest.raises(ValueError, match="veh/h >= 0"):
        simulate(network, np.full((4, 1), -1.0))
    with pytest.raises(ValueError, match="veh/h >= 0"):
        simulate(network, np.full((4, 1), np.nan))
    with pytest.raises(ValueError, match=r"\(4, 3\); it must be \(4, 5\)"):
        simulate(network, np.zeros((4, 1)), capacity_share=np.ones((4, 3)))
    with pytest.raises(ValueError, match="shares >= 0"):
        simulate(network, np.zeros((4, 1)), capacity_share=np.full((4, 5), -0.1))
    with pytest.raises(ValueError, match=r"initial has the shape \(3,\).*\(7,\)"):
        simulate(network, np.zeros((4, 1)), initial=np.zeros(3))
    too_many = np.zeros(7)
    too_many[2] = 1000.0
    with pytest.raises(ValueError, match="initial puts 1000 vehicles into cell 2"):
        simulate(network, np.zeros((4, 1)), initial=too_many)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.nodes[1].update(kind="tunnel"), "'tunnel'; choose from"),
        (lambda g: g.nodes[1].pop("lanes"), "needs the attributes 'length' and 'lanes'"),
        (lambda g: g.nodes[1].update(lanes=0), "lanes of cell 1 is 0.0; it must be positive"),
        (lambda g: g.nodes[1].update(length=-1.0), "length of cell 1 is -1.0"),
        (lambda g: g.add_edge(2, "begin"), "origin 'begin' has 1 predecessors"),
        (lambda g: g.remove_edge(4, "end"), "cell 4 has 1 predecessors and 0 successors"),
        (lambda g: g.add_edges_from([(0, 2), (0, 3)]), "cell 0 has 1 predecessors and 3"),
        (lambda g: g.add_edge(1, 3), "1 -> 3 is part of a diverge and of a merge"),
    ],
)  # fmt: skip
def test_wrong_networks_are_refused(change, message: str) -> None:
    graph = road([2] * 5)
    change(graph)
    with pytest.raises(ValueError, match=message):
        FreewayNetwork(graph)


def test_shares_must_sum_to_one() -> None:
    with pytest.raises(ValueError, match=r"split at 'c' sum to 0\.8999"):
        FreewayNetwork(junction("diverge", (0.7, 0.2)))
    with pytest.raises(ValueError, match=r"priority at 'c' sum to 1\.2, not"):
        FreewayNetwork(junction("merge", (0.7, 0.5)))
    with pytest.raises(ValueError, match=r"is 0.0; it must be in \(0, 1\]"):
        FreewayNetwork(junction("merge", (1.0, 0.0)))


def test_repr() -> None:
    assert str(FreewayNetwork(road([2] * 5))) == "FreewayNetwork(cells=5, origins=1, exits=1)"
