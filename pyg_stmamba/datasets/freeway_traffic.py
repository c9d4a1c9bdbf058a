from collections.abc import Callable
from pathlib import Path

import networkx as nx
import numpy as np

from pyg_stmamba.data import Protocol, TemporalGraph
from pyg_stmamba.datasets.download import RawFile
from pyg_stmamba.datasets.series_dataset import SeriesDataset
from pyg_stmamba.simulation.freeway import FreewayHistory, FreewayNetwork, simulate
from pyg_stmamba.simulation.freeway_demand import (
    random_demand,
    random_incidents,
    wandering_capacity,
)
from pyg_stmamba.simulation.freeway_layout import CELL_KM, freeway_layout

FIRST_MONDAY = np.datetime64("2024-01-01T00:00", "s")
DAY = 86_400
WARM_UP_HOURS = 3
STEP_SECONDS = 15.0
# Part of the name of a processed file; to be raised whenever the same arguments give other series.
SERIES_VERSION = 1
DETECTOR_EVERY = 3
FLOW_NOISE = 0.03


class FreewayTraffic(SeriesDataset):
    r"""Traffic on three crossing freeways, simulated by the cell transmission model of `"The cell
    transmission model: A dynamic representation of highway traffic consistent with the
    hydrodynamic theory" <https://doi.org/10.1016/0191-2615(94)90002-7>`_; nothing is downloaded.

    Six carriageways of 19 km with ramps, lane drops and interchanges
    (:func:`~pyg_stmamba.simulation.freeway_layout`) carry a demand with daily and weekly peaks
    that varies from day to day and within the day. Capacities wander where lanes merge or end, and
    about six incidents a day close lanes somewhere. Jams form, travel upstream at 18 km/h at most,
    spill through the interchanges and dissolve; so what a detector will see, its neighbours
    downstream see now.

    Channels: speed in km/h (the target) and flow over all lanes in veh/h, means of 5 minutes from
    Monday 2024-01-01 00:00 on, at a detector every 1.35 km. Speed has a relative noise of 2 %,
    flow of 3 %. Missing values, half of them single and half in outages, are 0 in :obj:`x` and
    :obj:`False` in :obj:`x_mask`.

    Edges lead both ways between detectors within :obj:`reach_km` by road. Their attributes are
    the weight :math:`0.1^{(d / \text{reach})^2}` and the road distance as a share of the reach,
    positive from upstream to downstream, negative against the traffic. There are no self loops.

    The days are simulated side by side, each with three hours before its beginning, at night:
    by then the empty roads of the beginning are forgotten, and the series is that of one run.

    Args:
        root (str or Path): Folder of the data set.
        num_weeks (int): Length of the series. (default: :obj:`6`)
        seed (int): Of demand, incidents, noise and outages; the roads are always the same.
            (default: :obj:`0`)
        step_minutes (int): Length of a step, a divisor of 60. (default: :obj:`5`)
        reach_km (float): How far along the road edges lead, in km. (default: :obj:`7.0`)
        speed_noise (float): Standard deviation of the relative noise of speeds.
            (default: :obj:`0.02`)
        missing (float): Share of the values that is missing, about. (default: :obj:`0.02`)
        progress (bool): Whether to show a progress bar while it simulates.
            (default: :obj:`True`)
        transform (callable, optional): Applied at each access. (default: :obj:`None`)
        pre_transform (callable, optional): Applied once, before the graph is written.
            (default: :obj:`None`)
        force_reload (bool): Whether to simulate again. (default: :obj:`False`)

    **STATS:**

    .. list-table::
        :widths: 10 10 10 10 10
        :header-rows: 1

        * - #nodes
          - #edges
          - #steps
          - #channels
          - missing
        * - 84
          - 1,060
          - 12,096
          - 2
          - 1.9 %
    """

    protocol = Protocol(split=(0.7, 0.1, 0.2), order="windows-first", scale_missing=False)

    def __init__(
        self,
        root: str | Path,
        num_weeks: int = 6,
        seed: int = 0,
        step_minutes: int = 5,
        *,
        reach_km: float = 7.0,
        speed_noise: float = 0.02,
        missing: float = 0.02,
        progress: bool = True,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        force_reload: bool = False,
    ) -> None:
        if num_weeks < 1 or num_weeks != int(num_weeks):
            raise ValueError(f"num_weeks is {num_weeks}; it must be a whole number from 1 on")
        if step_minutes < 1 or 60 % step_minutes:
            raise ValueError(f"step_minutes is {step_minutes}; it must be a divisor of 60")
        if not reach_km >= DETECTOR_EVERY * CELL_KM:
            raise ValueError(
                f"reach_km is {reach_km}; it must be at least {DETECTOR_EVERY * CELL_KM:g}, the "
                f"distance between detectors"
            )
        if not 0 <= speed_noise <= 0.2:
            raise ValueError(f"speed_noise is {speed_noise}; it must be in [0, 0.2]")
        if not 0 <= missing < 0.5:
            raise ValueError(f"missing is {missing}; it must be in [0, 0.5)")
        self.num_weeks, self.seed, self.step_minutes = int(num_weeks), seed, step_minutes
        self.reach_km, self.speed_noise, self.missing = reach_km, speed_noise, missing
        self.progress = progress
        super().__init__(root, transform, pre_transform, force_reload)

    @property
    def has_download(self) -> bool:
        return False

    @property
    def raw_files(self) -> tuple[RawFile, ...]:
        return ()

    @property
    def processed_file_names(self) -> list[str]:
        return [
            f"freeway_v{SERIES_VERSION}_weeks{self.num_weeks}_seed{self.seed}_step{self.step_minutes}"
            f"_reach{self.reach_km:g}_noise{self.speed_noise:g}_missing{self.missing:g}.pt"
        ]

    def process(self) -> None:
        graph = self.read()
        if self.pre_transform is not None:
            graph = self.pre_transform(graph)
        self.save([graph], self.processed_paths[0], repr(self.pre_transform))

    def read(self) -> TemporalGraph:
        layout = freeway_layout()
        network = FreewayNetwork(layout)
        rng = np.random.default_rng(self.seed)
        speed, flow = self._simulate(layout, network, rng)
        detectors = _detectors(layout, network)
        places = [network.index[cell] for cell in detectors]
        speed, flow = speed[:, places], flow[:, places]
        speed = speed * (1 + self.speed_noise * rng.standard_normal(speed.shape))
        flow = flow * (1 + FLOW_NOISE * rng.standard_normal(flow.shape))
        working = _working(speed.shape, self.missing, self.step_minutes, rng)
        edge_index, edge_attr = _road_graph(layout, detectors, self.reach_km)
        steps = np.arange(len(speed)) * np.timedelta64(60 * self.step_minutes, "s")
        return TemporalGraph.from_arrays(
            np.stack([speed, np.maximum(flow, 0)], axis=-1),
            mask=working,
            timestamps=FIRST_MONDAY + steps,
            edge_index=edge_index,
            edge_weight=edge_attr,
            positions=np.stack([layout.nodes[cell]["position"] for cell in detectors]),
            node_ids=[
                f"{layout.nodes[cell]['carriageway']} {layout.nodes[cell]['km']:.1f}"
                for cell in detectors
            ],
            channels=["speed", "flow"],
            units=["km/h", "veh/h"],
            name="FreewayTraffic",
        )

    def _simulate(
        self, layout: nx.DiGraph, network: FreewayNetwork, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Speed and flow of all cells ``[T, cells]``."""
        minutes = self.step_minutes
        day, warm_up = DAY // (60 * minutes), WARM_UP_HOURS * 60 // minutes
        days = 7 * self.num_weeks + 1
        # From the Sunday before, so that the first Monday too begins in the traffic of a night.
        seconds = np.arange(-day, (days - 1) * day + warm_up) * 60.0 * minutes
        origins = [layout.nodes[origin] for origin in network.origins]
        demand = random_demand(
            seconds,
            np.array([origin["demand"] for origin in origins]),
            np.array([origin["morning"] for origin in origins]),
            rng,
        )
        share = _capacity_share(layout, network, len(seconds), 60.0 * minutes, rng)
        history = simulate(
            network,
            _pieces(demand, day, warm_up),
            capacity_share=_pieces(share, day, warm_up),
            step_seconds=STEP_SECONDS,
            steps_per_record=round(60 * minutes / STEP_SECONDS),
            progress=self.progress,
        )
        return _joined(history, day, warm_up)


def _pieces(values: np.ndarray, day: int, warm_up: int) -> np.ndarray:
    """Cuts ``[T, X]`` into days, each with the first hours of the next, as ``[t, X, days]``."""
    days = len(values) // day
    return np.stack([values[d * day : (d + 1) * day + warm_up] for d in range(days)], axis=-1)


def _joined(history: FreewayHistory, day: int, warm_up: int) -> tuple[np.ndarray, np.ndarray]:
    """Speed and flow of the pieces end to end, without the warm-ups and the first Sunday."""
    whole = []
    for values in (history.speed, history.flow):
        joined = np.moveaxis(values[warm_up:], -1, 0).reshape(-1, values.shape[1])
        whole.append(joined[day - warm_up :][: (values.shape[-1] - 1) * day])
    return whole[0], whole[1]


def _capacity_share(
    layout: nx.DiGraph,
    network: FreewayNetwork,
    records: int,
    record_seconds: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Incidents on the carriageways, and a capacity that wanders where roads merge or narrow."""
    share = np.ones((records, len(network.cells)))
    carriageway = [i for i, cell in enumerate(network.cells) if "km" in layout.nodes[cell]]
    share[:, carriageway] *= random_incidents(
        records, len(carriageway), rng, record_seconds=record_seconds
    )
    lanes = nx.get_node_attributes(layout, "lanes")
    bottlenecks = [
        i
        for i, cell in enumerate(network.cells)
        if layout.in_degree(cell) > 1
        or any(lanes.get(before, 0) > lanes[cell] for before in layout.predecessors(cell))
    ]
    share[:, bottlenecks] *= wandering_capacity(
        records, len(bottlenecks), rng, record_seconds=record_seconds
    )
    return share


def _detectors(layout: nx.DiGraph, network: FreewayNetwork) -> list[str]:
    """Every third cell of each carriageway."""
    ways: dict[str, list[str]] = {}
    for cell in network.cells:
        if "carriageway" in layout.nodes[cell]:
            ways.setdefault(layout.nodes[cell]["carriageway"], []).append(cell)
    return [cell for cells in ways.values() for cell in cells[1::DETECTOR_EVERY]]


def _working(
    shape: tuple[int, int], missing: float, step_minutes: int, rng: np.random.Generator
) -> np.ndarray:
    """Which values arrive ``[T, N]``: half of the missing ones are single, half in outages."""
    working = rng.random(shape) >= missing / 2
    # The mean of a log-normal duration with median 60 minutes.
    mean = 60.0 * np.exp(0.5) / step_minutes
    for _ in range(rng.poisson(missing / 2 * working.size / mean)):
        start, node = rng.integers(shape[0]), rng.integers(shape[1])
        length = round(60.0 / step_minutes * np.exp(rng.standard_normal()))
        working[start : start + max(length, 1), node] = False
    return working


def _road_graph(
    layout: nx.DiGraph, detectors: list[str], reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """Edges both ways between detectors within reach by road, with their two attributes."""
    number = {cell: i for i, cell in enumerate(detectors)}
    length = nx.get_node_attributes(layout, "length")

    def between_centres(tail: str, head: str, _: dict) -> float:
        return (length.get(tail, 0.0) + length.get(head, 0.0)) / 2

    downstream: dict[tuple[int, int], float] = {}
    for cell, i in number.items():
        found = nx.single_source_dijkstra_path_length(
            layout, cell, cutoff=reach, weight=between_centres
        )
        for other, distance in found.items():
            if other in number and other != cell:
                downstream[i, number[other]] = distance
    signed = {(j, i): -distance for (i, j), distance in downstream.items()}
    for pair, distance in downstream.items():
        if distance <= abs(signed.get(pair, np.inf)):
            signed[pair] = distance
    edges = sorted(signed, key=lambda pair: (pair[1], pair[0]))
    part = np.array([signed[pair] / reach for pair in edges])
    # At the reach the weight is 0.1, where published graphs of roads are cut as well.
    return np.array(edges).T, np.stack([0.1 ** (part**2), part], axis=-1)
