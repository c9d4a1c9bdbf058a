from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch

from pyg_stmamba.data import Protocol, TemporalGraph, Windows
from pyg_stmamba.datasets import freeway_traffic
from pyg_stmamba.datasets.freeway_traffic import FreewayTraffic
from pyg_stmamba.simulation import FreewayNetwork, freeway_layout, random_demand, simulate


def make(root: Path, **options) -> FreewayTraffic:
    return FreewayTraffic(str(root), **({"num_weeks": 1, "progress": False} | options))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("freeway")


@pytest.fixture(scope="module")
def graph(root: Path) -> TemporalGraph:
    return make(root)[0]


def test_container(graph: TemporalGraph) -> None:
    assert isinstance(graph, TemporalGraph)
    assert graph.x.shape == graph.x_mask.shape == (84, 2016, 2)
    assert graph.x.dtype == torch.float32
    assert graph.channel_names == ["speed", "flow"]
    assert graph.units == ["km/h", "veh/h"]
    assert graph.step_seconds == 300
    assert graph.timestamps[0, 0].item() % 86_400 == 0
    assert (graph.timestamps[0, 0].item() // 86_400 + 3) % 7 == 0, "1970-01-01 was a Thursday"
    assert graph.node_id[0] == "A-E 0.7"
    assert len(set(graph.node_id)) == 84
    assert FreewayTraffic.protocol == Protocol(12, 12, (0.7, 0.1, 0.2), "windows-first", False)
    window = Windows(graph, 12, 12)[0]
    assert window.x.shape == (84, 12, 2)
    assert window.y.shape == (84, 12, 1)


def test_another_series_is_another_version(graph: TemporalGraph, root: Path) -> None:
    """Else what an earlier release has processed would be taken for what this one simulates."""
    means = graph.x.double().mean(dim=(0, 1))
    known = {1: [93.955837, 3039.450101]}
    assert means.tolist() == pytest.approx(known[freeway_traffic.SERIES_VERSION], rel=1e-6)
    version = f"_v{freeway_traffic.SERIES_VERSION}_"
    assert all(version in name for name in make(root).processed_file_names)


def test_missing_values_are_zero_and_come_in_blocks(graph: TemporalGraph) -> None:
    missing = ~graph.x_mask[..., 0]
    assert 0.01 < missing.float().mean() < 0.03
    assert (graph.x[missing] == 0).all()
    assert (graph.x_mask[..., 0] == graph.x_mask[..., 1]).all()
    assert (graph.x[..., 0][~missing] > 0).all(), "0 km/h would look missing"
    runs = np.diff(np.flatnonzero(np.diff(np.pad(missing.numpy(), ((0, 0), (1, 1))).ravel())))[::2]
    assert runs.max() >= 12
    assert (runs == 1).sum() > 10


def test_traffic_is_worth_forecasting(graph: TemporalGraph) -> None:
    speed, seen = graph.x[..., 0], graph.x_mask[..., 0]
    congested = (speed < 70) & seen
    assert 0.05 < congested.sum() / seen.sum() < 0.25
    assert (congested.any(dim=1)).float().mean() > 0.6, "jams reach most detectors"
    by_day = congested.reshape(84, 7, 288).float().mean(dim=(0, 2))
    assert by_day[:5].max() > 1.5 * by_day[:5].min(), "days differ"
    night = speed[:, 24:48][seen[:, 24:48]]
    assert night.min() > 85
    assert 4 * 1500 < graph.x[..., 1].max() < 1.2 * 4 * 2000, "flow over all lanes"


def test_days_follow_each_other_without_a_seam(graph: TemporalGraph) -> None:
    seen = graph.x_mask[..., 1]
    mean = (graph.x[..., 1] * seen).sum(dim=0) / seen.sum(dim=0)
    night = torch.arange(2016) % 288 < 5 * 12
    ratio = (mean[1:] / mean[:-1])[night[1:] & night[:-1]]
    assert ratio.min() > 0.85
    assert ratio.max() < 1.18


def test_jams_travel_upstream_from_detector_to_detector(graph: TemporalGraph) -> None:
    """Within queues, what a detector sees reaches its upstream neighbour, 1.35 km away, after
    1.35 km / 18 km/h = 4.5 minutes: one step."""
    fine = torch.where(graph.x_mask[..., 0], graph.x[..., 0], torch.nan).numpy()
    ways = np.array([name.split()[0] for name in graph.node_id])
    score = dict.fromkeys((-2, -1, 0, 1, 2), 0.0)
    for up in np.flatnonzero(ways[1:] == ways[:-1]):
        here, ahead = fine[up], fine[up + 1]
        jam = (here < 60) & (ahead < 60) & (np.roll(here, 3) < 60) & (np.roll(here, -3) < 60)
        change_here, change_ahead = np.diff(here, append=0), np.diff(ahead, append=0)
        for lag in score:
            pair = change_here * np.roll(change_ahead, lag)
            score[lag] += np.nansum(pair[jam & (np.abs(pair) < 400)])
    assert max(score, key=score.__getitem__) == 1, score


def test_graph_is_that_of_the_roads(graph: TemporalGraph) -> None:
    layout, reach = freeway_layout(), 7.0
    length = nx.get_node_attributes(layout, "length")
    roads = nx.DiGraph()
    for tail, head in layout.edges:
        roads.add_edge(tail, head, weight=(length.get(tail, 0) + length.get(head, 0)) / 2)
    cell = {
        f"{data['carriageway']} {data['km']:.1f}": name
        for name, data in layout.nodes(data=True)
        if "km" in data
    }
    distance = dict(nx.all_pairs_dijkstra_path_length(roads))
    expected = {}
    for i, one in enumerate(graph.node_id):
        for j, two in enumerate(graph.node_id):
            along = distance[cell[one]].get(cell[two], np.inf)
            against = distance[cell[two]].get(cell[one], np.inf)
            nearest = min(along, against)
            if i != j and nearest <= reach:
                expected[i, j] = nearest if along <= against else -nearest
    found = {tuple(pair): attr for pair, attr in zip(graph.edge_index.T.tolist(), graph.edge_attr)}
    assert found.keys() == expected.keys()
    for pair, (weight, signed) in found.items():
        assert signed.item() * reach == pytest.approx(expected[pair], abs=1e-4)
        assert weight.item() == pytest.approx(0.1 ** ((expected[pair] / reach) ** 2), abs=1e-5)
    crossing = [(i, j) for i, j in found if graph.node_id[i][0] != graph.node_id[j][0]]
    assert len(crossing) > 50, "the graph goes through the interchanges"


def test_same_seed_same_traffic_other_seed_other_traffic(
    graph: TemporalGraph, tmp_path: Path
) -> None:
    again, other = make(tmp_path)[0], make(tmp_path, seed=1)[0]
    for key in ("x", "x_mask", "edge_index", "edge_attr", "pos", "timestamps"):
        assert torch.equal(again[key], graph[key]), key
    assert not torch.equal(other.x, graph.x)
    assert not torch.equal(other.x_mask, graph.x_mask)
    assert torch.equal(other.edge_attr, graph.edge_attr)
    assert len(list((tmp_path / "processed").glob("*.pt"))) == 2


def test_days_simulated_side_by_side_are_those_of_one_long_run() -> None:
    layout = freeway_layout()
    network = FreewayNetwork(layout)
    seconds = np.arange(-96, 96 + 12) * 900.0
    origins = [layout.nodes[origin] for origin in network.origins]
    demand = random_demand(
        seconds,
        np.array([origin["demand"] for origin in origins]),
        np.array([origin["morning"] for origin in origins]),
        np.random.default_rng(0),
    )
    options = {"steps_per_record": 60}
    pieces = simulate(network, freeway_traffic._pieces(demand, 96, 12), **options)
    assert pieces.speed.shape == (108, len(network.cells), 2)
    serial = simulate(network, demand, **options)
    speed, flow = freeway_traffic._joined(pieces, 96, 12)
    assert serial.speed.min() < 60, "no jam was tried"
    np.testing.assert_allclose(speed, serial.speed[96:192], rtol=1e-9)
    np.testing.assert_allclose(flow, serial.flow[96:192], rtol=1e-9)


def test_options_reach_the_data(graph: TemporalGraph, tmp_path: Path) -> None:
    plain = make(tmp_path, speed_noise=0.0, missing=0.0, reach_km=3.0, step_minutes=15)[0]
    assert plain.x_mask.all()
    assert plain.x.shape == (84, 672, 2)
    assert plain.step_seconds == 900
    assert plain.num_edges < graph.num_edges / 2
    assert plain.x[..., 0].max() <= 108.001
    assert (plain.x[:, 8:16, 0] > 98.99).all()


def test_every_option_has_a_file_of_its_own(tmp_path: Path, monkeypatch) -> None:
    def tiny(dataset: FreewayTraffic) -> TemporalGraph:
        return TemporalGraph.from_arrays(np.ones((2, 1)), name=str(made))

    monkeypatch.setattr(FreewayTraffic, "read", tiny)
    changes = [{}, {"num_weeks": 2}, {"seed": 1}, {"step_minutes": 10}, {"reach_km": 5.0}]
    changes += [{"speed_noise": 0.01}, {"missing": 0.1}]
    for made in range(len(changes)):
        assert make(tmp_path, **changes[made])[0].name == str(made)


def test_transforms(root: Path) -> None:
    dataset = make(root, transform=lambda graph: graph.num_steps)
    assert dataset[0] == 2016


def test_processed_file_is_used_again(root: Path, graph: TemporalGraph, monkeypatch) -> None:
    def refuse(*args, **kwargs) -> None:
        raise AssertionError("simulated again")

    monkeypatch.setattr(freeway_traffic, "simulate", refuse)
    assert torch.equal(make(root)[0].x, graph.x)
    with pytest.raises(AssertionError, match="simulated again"):
        make(root, force_reload=True)


def test_a_kill_in_the_middle_leaves_nothing_that_is_taken_for_whole(
    tmp_path: Path, monkeypatch
) -> None:
    def cut(content, file) -> None:
        file.write(b"half a file")
        file.flush()
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(torch, "save", cut)
        # What a process that is killed cannot do any more.
        killed.setattr(Path, "unlink", lambda *args, **kwargs: None)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, step_minutes=60)
    (leftover,) = (tmp_path / "processed").iterdir()
    assert leftover.read_bytes() == b"half a file"
    assert leftover.suffix != ".pt"
    assert make(tmp_path, step_minutes=60)[0].num_steps == 168


def test_progress_bar(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    make(tmp_path, step_minutes=60)
    assert capfd.readouterr() == ("", "")
    make(tmp_path, step_minutes=60, progress=True, force_reload=True)
    assert "Simulating: 100%" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_weeks": 0}, "num_weeks is 0"),
        ({"num_weeks": 1.5}, "num_weeks is 1.5"),
        ({"step_minutes": 7}, "step_minutes is 7; it must be a divisor of 60"),
        ({"missing": 0.7}, r"missing is 0.7; it must be in \[0, 0.5\)"),
        ({"speed_noise": -0.1}, r"speed_noise is -0.1; it must be in \[0, 0.2\]"),
        ({"reach_km": 1.0}, "reach_km is 1.0; it must be at least 1.35"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **options)
