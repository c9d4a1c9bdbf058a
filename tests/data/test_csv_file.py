import numpy as np
import pandas as pd
import pytest
import torch

from pyg_stmamba.data import gaussian_kernel_graph, load_csv

VALUES = np.arange(12.0).reshape(4, 3) + 1
IDS = ["773869", "767541", "767542"]


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def speeds(tmp_path):
    index = pd.date_range("2012-03-01", periods=4, freq="5min")
    path = tmp_path / "speeds.csv"
    pd.DataFrame(VALUES, index=index, columns=IDS).to_csv(path)
    return path


def wide(stamps, values=VALUES):
    lines = ["time," + ",".join(IDS)]
    lines += [stamp + "," + ",".join(map(str, row)) for stamp, row in zip(stamps, values)]
    return "\n".join(lines) + "\n"


def test_a_table_written_by_pandas(speeds):
    graph = load_csv(speeds, units="mph")
    assert np.array_equal(graph.x[..., 0], VALUES.T)
    assert graph.node_id == IDS
    assert graph.timestamps.tolist() == [[1330560000 + 300 * i for i in range(4)]]
    assert (graph.name, graph.units, graph.num_edges) == ("speeds", ["mph"], 0)
    assert bool(graph.x_mask.all())


@pytest.mark.parametrize("empty", ["", " ", "nan", "NaN", "NA", "null", "-"])
def test_missing_fields(write, empty):
    text = wide(["2012-03-01", "2012-03-02", "2012-03-03", "2012-03-04"]).replace("5.0", empty)
    graph = load_csv(write("v.csv", text))
    assert graph.x_mask.sum() == 11
    assert not graph.x_mask[1, 1, 0]
    assert graph.x[1, 1, 0] == 0


def test_null_value_besides_empty_fields(write):
    text = wide(["0", "60", "120", "180"]).replace("5.0", "").replace("12.0", "-1")
    graph = load_csv(write("v.csv", text), null_value=-1)
    assert (~graph.x_mask).nonzero().tolist() == [[1, 1, 0], [2, 3, 0]]


@pytest.mark.parametrize(
    "form",
    [
        "%Y-%m-%d %H:%M:%S",
        "%Y-%m-%dT%H:%M",
        "%Y-%m-%dT%H:%M:%SZ",
        "%Y-%m-%d %H:%M:%S+02:00",
        "%Y/%m/%d %H:%M:%S",
        "%Y/%m/%d %H:%M",
        "%m/%d/%Y %H:%M",
        "%d/%m/%Y %H:%M:%S",
        "%d.%m.%Y %H:%M",
        "%Y%m%d%H%M",
        "%Y%m%d%H%M%S",
    ],
)
def test_timestamp_formats(write, form):
    index = pd.date_range("2012-03-13 23:50", periods=4, freq="5min")
    graph = load_csv(write("v.csv", wide(index.strftime(form))))
    assert (
        graph.timestamps[0].tolist()
        == index.to_numpy().astype("datetime64[s]").astype(int).tolist()
    )


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%Y/%m/%d", "%m/%d/%Y", "%d.%m.%Y", "%Y%m%d"])
def test_dates_alone(write, form):
    index = pd.date_range("2012-12-30", periods=4, freq="D")
    graph = load_csv(write("v.csv", wide(index.strftime(form))))
    assert graph.timestamps[0, 0] == 1356825600
    assert graph.step_seconds == 86400


def test_day_and_month_are_told_apart_by_the_order_or_asked_for(write):
    # Month first: four days in April. Day first: the fourth of four months, with unequal steps.
    stamps = ["04/01/2012", "04/02/2012", "04/03/2012", "04/04/2012"]
    path = write("v.csv", wide(stamps))
    with pytest.raises(ValueError, match=r"v.csv: timestamps such as '04/01/2012' can be read as"):
        load_csv(path)
    assert load_csv(path, timestamp_format="%m/%d/%Y").step_seconds == 86400
    day_first = load_csv(path, timestamp_format="%d/%m/%Y", gaps="keep")
    assert day_first.timestamps[0].diff().tolist() == [31 * 86400, 29 * 86400, 31 * 86400]
    forward = write("f.csv", wide(["11/02/2012", "12/02/2012", "01/03/2012", "02/03/2012"]))
    assert load_csv(forward, gaps="keep").timestamps[0, 0] == 1328918400


def test_timestamps_in_seconds_and_none(write):
    graph = load_csv(write("v.csv", wide(["0", "300", "600", "900"])))
    assert graph.timestamps.tolist() == [[0, 300, 600, 900]]
    bare = "\n".join([",".join(IDS)] + [",".join(map(str, row)) for row in VALUES])
    graph = load_csv(write("b.csv", bare), timestamps=False)
    assert graph.timestamps is None
    assert np.array_equal(graph.x[..., 0], VALUES.T)


def test_spreadsheet_files(write):
    text = "\ufeff" + wide(["0", "300", "600", "900"]).replace("\n", "\r\n") + "\r\n,,,\r\n"
    assert load_csv(write("v.csv", text)).num_steps == 4
    bare = "\ufeffa,b\r\n1,2\r\n"
    assert load_csv(write("v.csv", bare), timestamps=False).node_id == ["a", "b"]


ADJACENCY = np.array([[0, 0.5, 0], [0, 0, 0], [0.25, 0, 1.0]])


def test_adjacency_bare_and_with_ids(write, speeds):
    bare = "\n".join(",".join(map(str, row)) for row in ADJACENCY)
    titled = ",".join(IDS) + "\n" + bare
    order = [2, 0, 1]
    table = pd.DataFrame(ADJACENCY[np.ix_(order, order)])
    table.columns = table.index = [IDS[i] for i in order]
    more = table.reindex(index=[*table.index, "999"], columns=[*table.columns, "999"], fill_value=0)
    for text in (bare, titled, table.to_csv(), table.to_csv(index=False), more.to_csv()):
        graph = load_csv(speeds, adjacency=write("a.csv", text))
        assert graph.edge_index.tolist() == [[1, 0, 2], [0, 2, 2]]
        assert graph.edge_attr.tolist() == [[0.5], [0.25], [1.0]]
    graph = load_csv(speeds, adjacency=write("a.csv", bare), source_first=True)
    assert graph.edge_index.tolist() == [[2, 0, 2], [0, 1, 2]]


def test_adjacency_that_does_not_fit(write, speeds):
    with pytest.raises(ValueError, match=r"square matrix for 3 nodes, .* got 2 rows of \[2\]"):
        load_csv(speeds, adjacency=write("a.csv", "0,1\n1,0\n"))
    with pytest.raises(ValueError, match="square matrix"):
        load_csv(speeds, adjacency=write("a.csv", "0,1,0\n1,0\n0,0,0\n"))
    with pytest.raises(ValueError, match=r"a.csv, line 2: could not convert string to float: 'x'"):
        load_csv(speeds, adjacency=write("a.csv", "0,1,0\n1,x,0\n0,0,0\n"))
    with pytest.raises(ValueError, match=r"a.csv: adjacency holds 1 NaN"):
        load_csv(speeds, adjacency=write("a.csv", "0,1,0\n1,,0\n0,0,0\n"))
    with pytest.raises(ValueError, match=r"no row for node\(s\) \['773869'"):
        load_csv(speeds, adjacency=write("a.csv", "a,b,c\n0,1,0\n1,0,0\n0,0,0\n"))
    with pytest.raises(ValueError, match=r"a.csv is empty"):
        load_csv(speeds, adjacency=write("a.csv", ""))


@pytest.mark.parametrize(
    ("header", "order"),
    [("from,to,cost\n", (0, 1, 2)), ("distance,To,From\n", (2, 1, 0)), ("", (0, 1, 2))],
)
def test_distances(write, speeds, header, order):
    rows = [(IDS[0], IDS[1], "1.5"), (IDS[1], IDS[2], "0.5"), ("400001", IDS[0], "0.1")]
    lines = [",".join(row[i] for i in order) for row in rows]
    path = write("d.csv", header + "\n".join(lines) + "\n")
    graph = load_csv(speeds, distances=path, sigma=2.0, threshold=0.0)
    edges, weight = gaussian_kernel_graph([[0, 1], [1, 2]], [1.5, 0.5], 3, sigma=2.0, threshold=0.0)
    assert torch.equal(graph.edge_index, edges)
    assert torch.equal(graph.edge_attr[:, 0], weight)
    assert load_csv(speeds, distances=path, sigma=1.0).num_edges == 2
    assert load_csv(speeds, distances=path, sigma=1.0, threshold=0.2).num_edges == 1


def test_weights_are_taken_as_they_are(write, speeds):
    path = write("d.csv", f"from,to,weight\n{IDS[2]},{IDS[0]},0.3\n{IDS[0]},{IDS[1]},7\n")
    graph = load_csv(speeds, distances=path)
    assert graph.edge_index.tolist() == [[2, 0], [0, 1]]
    assert graph.edge_attr.flatten().tolist() == pytest.approx([0.3, 7.0])


def test_distances_that_do_not_fit(write, speeds):
    with pytest.raises(
        ValueError, match=r"from, to and one of \['cost', 'distance', 'weight'\], got"
    ):
        load_csv(speeds, distances=write("d.csv", "from,to,metres\n1,2,3\n"))
    with pytest.raises(ValueError, match=r"joins none of the nodes \['773869'.*\['1', '2', '3'\]"):
        load_csv(speeds, distances=write("d.csv", "from,to,cost\n1,2,3\n"))
    with pytest.raises(ValueError, match=r"joins none .* absent"):
        load_csv(speeds, distances=write("d.csv", "from,to,cost\n"))
    with pytest.raises(ValueError, match=r"d.csv, line 1: 2 field"):
        load_csv(speeds, distances=write("d.csv", f"{IDS[0]},{IDS[1]}\n"))
    with pytest.raises(ValueError, match=r"d.csv, line 2: could not convert"):
        load_csv(speeds, distances=write("d.csv", f"from,to,cost\n{IDS[0]},{IDS[1]},far\n"))
    with pytest.raises(ValueError, match=r"d.csv: distances must not be negative or NaN"):
        load_csv(speeds, distances=write("d.csv", f"from,to,cost\n{IDS[0]},{IDS[1]},-1\n"))
    with pytest.raises(ValueError, match="not both"):
        load_csv(speeds, adjacency="a.csv", distances="d.csv")


def test_values_that_cannot_be_read(write, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*absent.csv"):
        load_csv(tmp_path / "absent.csv")
    with pytest.raises(ValueError, match="no columns of values"):
        load_csv(write("v.csv", ""))
    with pytest.raises(ValueError, match="no columns of values"):
        load_csv(write("v.csv", "time\n0\n1\n"))
    with pytest.raises(ValueError, match="a first line but no rows"):
        load_csv(write("v.csv", "time,a,b\n"))
    with pytest.raises(ValueError, match=r"v.csv, line 3: 2 fields where the first line has 3"):
        load_csv(write("v.csv", "time,a,b\n0,1,2\n60,1\n"))
    with pytest.raises(
        ValueError, match=r"v.csv, line 2: could not convert string to float: 'low'"
    ):
        load_csv(write("v.csv", "time,a,b\n0,1,low\n"))
    with pytest.raises(ValueError, match=r"first column must hold timestamps, got '1.5'"):
        load_csv(write("v.csv", "a,b\n1.5,2\n2.5,3\n"))
    with pytest.raises(ValueError, match=r"such as '0' do not fit '%Y'"):
        load_csv(write("v.csv", "time,a\n0,1\n60,2\n"), timestamp_format="%Y")
    with pytest.raises(ValueError, match=r"v.csv: timestamps must increase strictly"):
        load_csv(write("v.csv", "time,a\n60,1\n0,2\n"))
    with pytest.raises(ValueError, match=r"v.csv: node ids must be 2 different names"):
        load_csv(write("v.csv", "time,a,a\n0,1,2\n60,2,3\n"))
    with pytest.raises(ValueError, match=r"v.csv: values hold 1 NaN or infinite"):
        load_csv(write("v.csv", "time,a\n0,1\n60,inf\n"))
    binary = tmp_path / "v.csv"
    binary.write_bytes(b"\x89HDF\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"v.csv is not a .csv text file"):
        load_csv(binary)


def test_real_files(shared_data):
    folder = shared_data / "los_loop"
    graph = load_csv(folder / "los_speed.csv", adjacency=folder / "los_adj.csv", timestamps=False)
    expected = pd.read_csv(folder / "los_speed.csv")
    assert np.allclose(graph.x[..., 0].T, expected.to_numpy(), rtol=1e-6)
    assert graph.node_id == list(expected.columns)
    adjacency = np.loadtxt(folder / "los_adj.csv", delimiter=",")
    rebuilt = np.zeros_like(adjacency)
    rebuilt[graph.edge_index[1], graph.edge_index[0]] = graph.edge_attr[:, 0]
    assert np.allclose(rebuilt, adjacency, rtol=1e-6)
