from typing import Any, NamedTuple

import networkx as nx
import numpy as np
from tqdm import tqdm

KINDS = ("cell", "origin", "exit")


class FundamentalDiagram(NamedTuple):
    r"""The triangular relation between density :math:`k` and flow :math:`q` of one lane.

    .. math::
        q(k) = \min \{ v k, \; q_{\max}, \; w (k_{\text{jam}} - k) \}, \qquad
        k_{\text{jam}} = \frac{q_{\max}}{v} + \frac{q_{\max}}{w}

    Args:
        free_speed (float): Speed :math:`v` of light traffic, in km/h. (default: :obj:`108.0`)
        wave_speed (float): Speed :math:`w` at which jams dissolve upstream, in km/h.
            (default: :obj:`18.0`)
        capacity (float): Largest flow :math:`q_{\max}` of one lane, in veh/h.
            (default: :obj:`2000.0`)
    """

    free_speed: float = 108.0
    wave_speed: float = 18.0
    capacity: float = 2000.0

    @property
    def critical_density(self) -> float:
        """Density at capacity, in veh/km."""
        return self.capacity / self.free_speed

    @property
    def jam_density(self) -> float:
        """Density of standing traffic, in veh/km."""
        return self.critical_density + self.capacity / self.wave_speed

    def flow(self, density: Any) -> Any:
        """The flow at a density: veh/km in, veh/h out."""
        congested = self.wave_speed * (self.jam_density - density)
        return np.minimum(np.minimum(self.free_speed * density, self.capacity), congested)


class FreewayHistory(NamedTuple):
    r"""What :func:`simulate` recorded; :math:`R` records, the runs (if any) as last dimension.

    The order of the cells is that of :obj:`network.cells`, of origins :obj:`network.origins`, of
    exits :obj:`network.exits`.

    Args:
        density: Mean density of the cells over all lanes ``[R, cells, ...]``, in veh/km.
        flow: Mean flow out of the cells over all lanes ``[R, cells, ...]``, in veh/h.
        speed: Mean flow over mean density ``[R, cells, ...]``, in km/h; free speed when empty.
        queue: Vehicles waiting at the origins at the end of each record ``[R, origins, ...]``.
        exit_flow: Mean flow into the exits ``[R, exits, ...]``, in veh/h.
        vehicles: Vehicles in every node at the end ``[nodes, ...]`` in the order of
            :obj:`network.nodes`, the exits counting all that ever arrived; what
            :func:`simulate` takes as :obj:`initial`.
    """

    density: np.ndarray
    flow: np.ndarray
    speed: np.ndarray
    queue: np.ndarray
    exit_flow: np.ndarray
    vehicles: np.ndarray


class FreewayNetwork:
    r"""A freeway network of cells, given as a :class:`networkx.DiGraph`, as arrays.

    Nodes of the graph have a :obj:`kind`:

    * :obj:`"cell"` (default): a stretch of road with :obj:`length` (km), :obj:`lanes` and
      :obj:`diagram` (a :class:`FundamentalDiagram`, optional);
    * :obj:`"origin"`: where vehicles enter, with a queue without bound, so that no vehicle is
      lost, and a :obj:`capacity` (veh/h, infinite by default);
    * :obj:`"exit"`: where vehicles leave, with a :obj:`capacity` (veh/h, infinite by default).

    Edges lead downstream. Where a node has two successors the edges carry :obj:`split`, the share
    of vehicles that turn there; where a node has two predecessors they carry :obj:`priority`,
    their share of the room when both are queued. Each pair sums to 1 and is halves by default.
    As in `"The cell transmission model, part II: Network traffic"
    <https://doi.org/10.1016/0191-2615(94)00022-R>`_ no edge is part of both a merge and a
    diverge.

    Args:
        graph (networkx.DiGraph): The network.
    """

    def __init__(self, graph: nx.DiGraph) -> None:
        kinds = nx.get_node_attributes(graph, "kind")
        for node, kind in kinds.items():
            if kind not in KINDS:
                raise ValueError(f"node {node!r} has the kind {kind!r}; choose from {KINDS}")
        groups: dict[str, list] = {kind: [] for kind in KINDS}
        for node in graph:
            groups[kinds.get(node, "cell")].append(node)
        self.cells, self.origins, self.exits = (groups[kind] for kind in KINDS)
        # Whatever sends comes first: then a node's number is that of its first edge downstream.
        self.nodes = [*self.cells, *self.origins, *self.exits]
        self.index = {node: i for i, node in enumerate(self.nodes)}
        self._check_degrees(graph)
        self._read_roads(graph)
        self._read_edges(graph)

    def _check_degrees(self, graph: nx.DiGraph) -> None:
        wanted = {"cell": ((1, 2), (1, 2)), "origin": ((0,), (1,)), "exit": ((1,), (0,))}
        for kind, nodes in zip(KINDS, (self.cells, self.origins, self.exits)):
            for node in nodes:
                degrees = (graph.in_degree(node), graph.out_degree(node))
                if degrees[0] not in wanted[kind][0] or degrees[1] not in wanted[kind][1]:
                    raise ValueError(
                        f"{kind} {node!r} has {degrees[0]} predecessors and {degrees[1]} "
                        f"successors; allowed are {wanted[kind][0]} and {wanted[kind][1]}"
                    )
        for tail, head in graph.edges:
            if graph.out_degree(tail) > 1 and graph.in_degree(head) > 1:
                raise ValueError(
                    f"edge {tail!r} -> {head!r} is part of a diverge and of a merge; "
                    f"put a cell between them"
                )

    def _read_roads(self, graph: nx.DiGraph) -> None:
        default = FundamentalDiagram()
        diagrams = [graph.nodes[cell].get("diagram", default) for cell in self.cells]
        missing = [c for c in self.cells if not {"length", "lanes"} <= graph.nodes[c].keys()]
        if missing:
            raise ValueError(f"cell {missing[0]!r} needs the attributes 'length' and 'lanes'")
        self.length = np.array([graph.nodes[cell]["length"] for cell in self.cells], float)
        self.lanes = np.array([graph.nodes[cell]["lanes"] for cell in self.cells], float)
        self.free_speed = np.array([diagram.free_speed for diagram in diagrams], float)
        self.wave_speed = np.array([diagram.wave_speed for diagram in diagrams], float)
        self.capacity = self.lanes * np.array([diagram.capacity for diagram in diagrams], float)
        self.critical_density = self.capacity / self.free_speed
        self.jam_density = self.critical_density + self.capacity / self.wave_speed
        for name in ("length", "lanes", "free_speed", "wave_speed", "capacity"):
            values = getattr(self, name)
            if not (values > 0).all():
                worst = int(np.argmin(values))
                raise ValueError(
                    f"{name} of cell {self.cells[worst]!r} is {values[worst]}; it must be positive"
                )
        self.gate_capacity = np.array(
            [graph.nodes[n].get("capacity", np.inf) for n in (*self.origins, *self.exits)], float
        )

    def _read_edges(self, graph: nx.DiGraph) -> None:
        senders = len(self.cells) + len(self.origins)
        out = [list(graph.successors(node)) for node in self.nodes[:senders]]
        first = [(i, heads[0]) for i, heads in enumerate(out)]
        second = [(i, heads[1]) for i, heads in enumerate(out) if len(heads) == 2]
        edges = [(self.nodes[i], head) for i, head in first + second]
        number = {edge: e for e, edge in enumerate(edges)}
        self.head = np.array([self.index[head] for _, head in edges])
        self.diverging = np.array([i for i, _ in second], int)
        self.split = self._shares(graph, edges, "split", graph.out_degree, 0)
        self.priority = self._shares(graph, edges, "priority", graph.in_degree, 1)
        into = {
            node: [number[(tail, node)] for tail in graph.predecessors(node)]
            for node in self.nodes
            if graph.in_degree(node)
        }
        self.receiving = np.array([self.index[node] for node in into], int)
        self.first_in = np.array([entering[0] for entering in into.values()], int)
        merges = {node: entering for node, entering in into.items() if len(entering) == 2}
        self.merging = np.array([self.index[node] for node in merges], int)
        self.merge_in = np.array([*merges.values()], int).reshape(-1, 2)

    @staticmethod
    def _shares(graph: nx.DiGraph, edges: list, name: str, degree: Any, end: int) -> np.ndarray:
        shares = np.array(
            [graph.edges[edge].get(name, 1 / degree(edge[end])) for edge in edges], float
        )
        total: dict[Any, float] = {}
        for edge, share in zip(edges, shares):
            total[edge[end]] = total.get(edge[end], 0.0) + share
            if not 0 < share <= 1:
                raise ValueError(f"{name} of {edge} is {share}; it must be in (0, 1]")
        for node, value in total.items():
            if abs(value - 1) > 1e-9:
                raise ValueError(f"the values of {name} at {node!r} sum to {value}, not to 1")
        return shares

    def check_step(self, step_seconds: float) -> None:
        r"""Refuses a time step in which a vehicle could pass more than one cell (the condition
        of Courant, Friedrichs and Lewy)."""
        fastest = np.maximum(self.free_speed, self.wave_speed)
        limit = self.length / fastest * 3600
        worst = int(np.argmin(limit))
        if not 0 < step_seconds <= limit[worst] * (1 + 1e-9):
            raise ValueError(
                f"a time step of {step_seconds} s breaks the CFL condition: cell "
                f"{self.cells[worst]!r} is {self.length[worst]:g} km long and is passed at "
                f"{fastest[worst]:g} km/h in {limit[worst]:g} s; take a step between 0 and "
                f"{limit[worst]:g} s"
            )

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}(cells={len(self.cells)}, origins={len(self.origins)}, "
            f"exits={len(self.exits)})"
        )


def simulate(
    network: FreewayNetwork,
    demand: np.ndarray,
    *,
    step_seconds: float = 15.0,
    steps_per_record: int = 20,
    capacity_share: np.ndarray | None = None,
    initial: np.ndarray | None = None,
    progress: bool = False,
) -> FreewayHistory:
    r"""The cell transmission model of `"The cell transmission model: A dynamic representation of
    highway traffic consistent with the hydrodynamic theory"
    <https://doi.org/10.1016/0191-2615(94)90002-7>`_ on a network.

    In one step a cell with :math:`n` vehicles, length :math:`\ell` and room for
    :math:`N = k_{\text{jam}} \ell` sends at most :math:`S` and receives at most :math:`R`:

    .. math::
        S = \min \{ \tfrac{v \Delta t}{\ell} n, \; q_{\max} \Delta t \}, \qquad
        R = \min \{ q_{\max} \Delta t, \; \tfrac{w \Delta t}{\ell} (N - n) \}

    Between two cells flows :math:`\min \{ S, R \}`. At a diverge with shares :math:`\beta_j`
    vehicles leave in the order in which they came, so one full branch holds up all:
    :math:`\min \{ S, R_1 / \beta_1, R_2 / \beta_2 \}`. At a merge with priorities :math:`p_i`
    all pass if :math:`S_1 + S_2 \leq R`; otherwise :math:`i` sends the middle one of
    :math:`S_i`, :math:`R - S_j` and :math:`p_i R`.

    Args:
        network (FreewayNetwork): The network.
        demand (numpy.ndarray): Vehicles that want to enter, in veh/h, ``[R, origins]``, or
            ``[R, origins, B]`` for :math:`B` runs side by side. A row holds for one record.
        step_seconds (float): Time step :math:`\Delta t`. (default: :obj:`15.0`)
        steps_per_record (int): Steps to a row of :obj:`demand` and to a record of the result.
            (default: :obj:`20`)
        capacity_share (numpy.ndarray, optional): Share of their capacity that the cells have in
            each record ``[R, cells]`` or ``[R, cells, B]``, for incidents, say; 0 blocks a cell.
            All of it if :obj:`None`. (default: :obj:`None`)
        initial (numpy.ndarray, optional): Vehicles in every node at the start ``[nodes]`` or
            ``[nodes, B]``, such as :obj:`vehicles` of an earlier result; nobody if :obj:`None`.
            (default: :obj:`None`)
        progress (bool): Whether to show a progress bar. (default: :obj:`False`)

    Returns:
        FreewayHistory: Density, flow, speed and queues of each record.

    Raises:
        ValueError: If a vehicle could pass more than one cell in a step, or shapes disagree.
    """
    network.check_step(step_seconds)
    demand = np.asarray(demand, float)
    if demand.ndim not in (2, 3) or demand.shape[1] != len(network.origins):
        raise ValueError(
            f"demand has the shape {demand.shape}; it must be [records, {len(network.origins)} "
            f"origins] or [records, {len(network.origins)} origins, runs]"
        )
    if not (np.isfinite(demand).all() and (demand >= 0).all()):
        raise ValueError("demand holds negative or non-finite values; give veh/h >= 0")
    runs = demand.shape[2:]
    demand = demand.reshape(*demand.shape[:2], -1)
    vehicles = np.zeros((len(network.nodes), demand.shape[2]))
    if initial is not None:
        vehicles[:] = _checked_initial(initial, network, runs)
    flows = _Flows(network, step_seconds / 3600, demand.shape[2])
    cells, senders = len(network.cells), len(network.cells) + len(network.origins)
    if capacity_share is not None:
        capacity_share = _checked_share(capacity_share, len(demand), cells, runs)
    stock = np.zeros((len(demand), cells, demand.shape[2]))
    sent = np.zeros_like(stock)
    queue = np.zeros((len(demand), senders - cells, demand.shape[2]))
    left = np.zeros((len(demand), len(network.exits), demand.shape[2]))
    for record in tqdm(range(len(demand)), desc="Simulating", disable=not progress):
        arrivals = demand[record] * (step_seconds / 3600)
        before = vehicles[senders:].copy()
        if capacity_share is not None:
            flows.limit[:cells] = flows.full[:cells] * capacity_share[record]
        for _ in range(steps_per_record):
            vehicles[cells:senders] += arrivals
            stock[record] += vehicles[:cells]
            sent[record] += flows.move(vehicles)[:cells]
        queue[record] = vehicles[cells:senders]
        left[record] = vehicles[senders:] - before

    length, free_speed = network.length[:, None], network.free_speed[:, None]
    density = stock / (steps_per_record * length)
    hours = steps_per_record * step_seconds / 3600
    flow = sent / hours
    speed = np.where(density > 0, flow / np.where(density > 0, density, 1), free_speed)
    density, flow, speed, queue, exit_flow = (
        values.reshape(*values.shape[:2], *runs)
        for values in (density, flow, speed, queue, left / hours)
    )
    return FreewayHistory(density, flow, speed, queue, exit_flow, vehicles.reshape(-1, *runs))


class _Flows:
    """One step of all cells at once; arrays are ``[nodes, runs]``."""

    def __init__(self, network: FreewayNetwork, hours: float, runs: int) -> None:
        cells, senders = len(network.cells), len(network.cells) + len(network.origins)
        self.network, self.cells, self.senders = network, cells, senders
        # Vehicles a step; an origin can send its whole queue, an exit takes whatever comes.
        self.full = (np.concatenate([network.capacity, network.gate_capacity]) * hours)[:, None]
        self.limit = np.repeat(self.full, runs, axis=1)
        self.advance = np.ones((senders, 1))
        # At the CFL limit itself the ratio may round to a little more than 1.
        self.advance[:cells, 0] = np.minimum(network.free_speed * hours / network.length, 1)
        self.recede = np.minimum(network.wave_speed * hours / network.length, 1)[:, None]
        self.room = (network.jam_density * network.length)[:, None]
        self.split, self.priority = network.split[:, None], network.priority[:, None]

    def move(self, vehicles: np.ndarray) -> np.ndarray:
        """Moves the vehicles in place and returns what left each cell and origin."""
        network, cells, senders = self.network, self.cells, self.senders
        present = vehicles[:cells]
        sending = np.minimum(self.advance * vehicles[:senders], self.limit[:senders])
        receiving = self.limit.copy()
        space = np.maximum(self.room - present, 0)
        np.minimum(receiving[:cells], self.recede * space, out=receiving[:cells])

        wanted = np.concatenate([sending, sending[network.diverging]]) * self.split
        offered = receiving[network.head]
        one, two = network.merge_in[:, 0], network.merge_in[:, 1]
        room = receiving[network.merging]
        offered[one] = np.maximum(self.priority[one] * room, room - wanted[two])
        offered[two] = np.maximum(self.priority[two] * room, room - wanted[one])

        offered /= self.split
        leaving = np.minimum(sending, offered[:senders])
        leaving[network.diverging] = np.minimum(leaving[network.diverging], offered[senders:])
        moved = np.concatenate([leaving, leaving[network.diverging]]) * self.split
        vehicles[:senders] -= leaving
        vehicles[network.receiving] += moved[network.first_in]
        vehicles[network.merging] += moved[two]
        return leaving


def _checked_share(share: np.ndarray, records: int, cells: int, runs: tuple) -> np.ndarray:
    share = np.asarray(share)
    if share.shape not in ((records, cells), (records, cells, *runs)):
        raise ValueError(
            f"capacity_share has the shape {share.shape}; it must be {(records, cells)} or "
            f"{(records, cells, *runs)} as the demand has it"
        )
    if not (share >= 0).all():
        raise ValueError("capacity_share holds negative or undefined values; give shares >= 0")
    return share.reshape(records, cells, -1)


def _checked_initial(initial: np.ndarray, network: FreewayNetwork, runs: tuple) -> np.ndarray:
    initial = np.asarray(initial, float)
    nodes = len(network.nodes)
    if initial.shape not in ((nodes,), (nodes, *runs)):
        raise ValueError(
            f"initial has the shape {initial.shape}; it must be {(nodes,)} or {(nodes, *runs)}, "
            f"the vehicles in every node of the network"
        )
    initial = initial.reshape(nodes, -1)
    room = np.full((nodes, 1), np.inf)
    room[: len(network.cells), 0] = network.jam_density * network.length * (1 + 1e-9)
    wrong = ~((initial >= 0) & (initial <= room)).all(axis=1)
    if wrong.any():
        worst = int(np.argmax(wrong))
        raise ValueError(
            f"initial puts {initial[worst].max():g} vehicles into cell {network.nodes[worst]!r}, "
            f"which has room for 0 to {room[worst, 0]:g}"
        )
    return initial
