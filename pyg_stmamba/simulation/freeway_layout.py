from itertools import combinations
from typing import NamedTuple

import networkx as nx
import numpy as np

from pyg_stmamba.simulation.freeway import FundamentalDiagram


class Freeway(NamedTuple):
    r"""A straight freeway with a carriageway in each direction.

    Args:
        name (str): A letter, say.
        start (tuple): Position of one end, in km.
        end (tuple): Position of the other end, in km.
        directions (tuple): Letters of the carriageway from start to end and of the other one.
        narrow (tuple): For each carriageway the stretches ``(from km, to km)`` with one lane less.
        free_speed (float): In km/h. (default: :obj:`108.0`)
    """

    name: str
    start: tuple[float, float]
    end: tuple[float, float]
    directions: tuple[str, str]
    narrow: tuple[tuple[tuple[float, float], ...], tuple[tuple[float, float], ...]]
    free_speed: float = 108.0


FREEWAYS = (
    Freeway(
        "A", (-7.0, 0.0), (11.9, 0.0), ("E", "W"),
        (((9.0, 10.3), (16.2, 17.5)), ((16.2, 17.5),)),
    ),
    Freeway(
        "B", (0.0, -7.0), (0.0, 11.9), ("N", "S"),
        (((9.0, 10.3),), ((9.0, 10.3), (16.2, 17.5))), 99.0,
    ),
    Freeway(
        "C", (-4.2, 9.2), (9.2, -4.2), ("S", "N"),
        (((16.2, 17.5),), ((10.0, 11.3),)),
    ),
)  # fmt: skip

CELL_KM = 0.45
LANES = 4
RAMP_EVERY = 5
RAMP = FundamentalDiagram(free_speed=72.0, wave_speed=18.0, capacity=1800.0)
BEGIN_DEMAND = 6000.0
RAMP_DEMAND = 1650.0
TIDE = (0.8, 0.2)


def freeway_layout(freeways: tuple[Freeway, ...] = FREEWAYS) -> nx.DiGraph:
    r"""Freeways that cross, as the graph of cells that
    :class:`~pyg_stmamba.simulation.freeway.FreewayNetwork` takes.

    Every carriageway begins at an origin and ends at an exit, has an off-ramp and an on-ramp
    every 2.25 km, and at every crossing an interchange of two-lane ramps to both directions of
    the other freeway. Cells carry :obj:`position` (km), :obj:`carriageway`, :obj:`km` along it
    and :obj:`length`; origins :obj:`demand`, their largest usual demand (veh/h), and
    :obj:`morning` in [0, 1], how much more of it comes in the morning than in the evening.

    Args:
        freeways (tuple of Freeway): The freeways. (default: three, each crossing the others)
    """
    graph = nx.DiGraph()
    for freeway in freeways:
        for way in (0, 1):
            _carriageway(graph, freeway, way)
    busy: dict[str, list[int]] = {}
    for one, two in combinations(freeways, 2):
        _interchange(graph, one, two, busy)
        _interchange(graph, two, one, busy)
    for freeway in freeways:
        for name in carriageways(freeway):
            _ramps(graph, name, busy.get(name, []))
    return graph


def carriageways(freeway: Freeway) -> list[str]:
    """Names such as "A-E" of the two carriageways."""
    return [f"{freeway.name}-{direction}" for direction in freeway.directions]


def _axis(freeway: Freeway, way: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Beginning, unit vector and length of a carriageway."""
    ends = np.array([freeway.start, freeway.end], float)
    start, end = ends if way == 0 else ends[::-1]
    length = float(np.linalg.norm(end - start))
    return start, (end - start) / length, length


def _carriageway(graph: nx.DiGraph, freeway: Freeway, way: int) -> None:
    name = carriageways(freeway)[way]
    start, along, length = _axis(freeway, way)
    # Beside the axis, on the right of the driver, for maps.
    start = start + 0.08 * np.array([along[1], -along[0]])
    diagram = FundamentalDiagram(freeway.free_speed)
    count = round(length / CELL_KM)
    for i in range(count):
        km = (i + 0.5) * CELL_KM
        narrow = any(low <= km < high for low, high in freeway.narrow[way])
        graph.add_node(
            f"{name} {i}", kind="cell", length=CELL_KM, lanes=LANES - narrow, diagram=diagram,
            carriageway=name, km=km, position=start + along * km,
        )  # fmt: skip
    nx.add_path(graph, [f"{name} {i}" for i in range(count)])
    graph.add_node(
        f"{name} begin", kind="origin", position=start, demand=BEGIN_DEMAND, morning=TIDE[way]
    )
    graph.add_edge(f"{name} begin", f"{name} 0")
    graph.add_node(f"{name} end", kind="exit", position=start + along * length)
    graph.add_edge(f"{name} {count - 1}", f"{name} end")


def _interchange(
    graph: nx.DiGraph, freeway: Freeway, other: Freeway, busy: dict[str, list[int]]
) -> None:
    """Ramps from both carriageways of a freeway to both of the other."""
    for way, name in enumerate(carriageways(freeway)):
        i, here = _crossing(freeway, way, other)
        out, into = f"{name} to {other.name}", f"{other.name} to {name}"
        for ramp in (out, into):
            _ramp_cell(graph, ramp, here)
        _diverge(graph, name, i - 2, out, 0.3)
        _merge(graph, name, i + 2, into, 0.35)
        busy.setdefault(name, []).extend((i - 2, i + 2))
        for head in carriageways(other):
            _ramp_cell(graph, f"{name} to {head}", here)
            nx.add_path(graph, (out, f"{name} to {head}", f"{freeway.name} to {head}"))


def _crossing(freeway: Freeway, way: int, other: Freeway) -> tuple[int, np.ndarray]:
    """The cell of a carriageway where another freeway crosses, and the place."""
    start, along, _ = _axis(freeway, way)
    corner, across, _ = _axis(other, 0)
    km, _ = np.linalg.solve(np.stack([along, -across], axis=1), corner - start)
    return round(km / CELL_KM), start + along * km


def _ramp_cell(graph: nx.DiGraph, name: str, position: np.ndarray) -> None:
    graph.add_node(name, kind="cell", length=CELL_KM, lanes=2, diagram=RAMP, position=position)


def _diverge(graph: nx.DiGraph, name: str, i: int, target: str, share: float) -> None:
    graph.edges[f"{name} {i}", f"{name} {i + 1}"]["split"] = 1 - share
    graph.add_edge(f"{name} {i}", target, split=share)


def _merge(graph: nx.DiGraph, name: str, i: int, source: str, share: float) -> None:
    graph.edges[f"{name} {i - 1}", f"{name} {i}"]["priority"] = 1 - share
    graph.add_edge(source, f"{name} {i}", priority=share)


def _ramps(graph: nx.DiGraph, name: str, busy: list[int]) -> None:
    """An off-ramp, and two cells on an on-ramp, wherever no interchange is near."""
    morning = graph.nodes[f"{name} begin"]["morning"]
    count = sum(attributes.get("carriageway") == name for _, attributes in graph.nodes(data=True))
    for i in range(3, count - 3, RAMP_EVERY):
        if any(abs(place - other) < 2 for place in (i, i + 2) for other in busy):
            continue
        off, on = f"{name} off {i}", f"{name} on {i + 2}"
        graph.add_node(off, kind="exit", position=graph.nodes[f"{name} {i}"]["position"])
        graph.add_node(
            on, kind="origin", position=graph.nodes[f"{name} {i + 2}"]["position"],
            capacity=1800.0, demand=RAMP_DEMAND, morning=morning,
        )  # fmt: skip
        _diverge(graph, name, i, off, 0.12)
        _merge(graph, name, i + 2, on, 0.15)
