from pathlib import Path

import numpy as np
import pytest

from pyg_stmamba.cli_data import add_data_options, default_root, load_data
from pyg_stmamba.cli_options import make_parser


@pytest.fixture
def load(tmp_path, monkeypatch):
    """What the options name, read in a folder that holds one's own data."""
    monkeypatch.chdir(tmp_path)
    np.savez("mine.npz", values=np.ones((60, 2)), edge_index=np.array([[0], [1]]))

    def run(*arguments: str):
        parser = make_parser("load", load_data)
        add_data_options(parser)
        return load_data(parser.parse_args(arguments))

    return run


def test_options_change_the_protocol(load):
    graph, protocol = load("--dataset=mine.npz", "--window=5", "--split=[0.5,0.2,0.3]")
    assert graph.num_nodes == 2
    assert (protocol.window, protocol.horizon) == (5, 12)
    assert protocol.split == (0.5, 0.2, 0.3)
    assert not protocol.scale_missing


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --dataset: one of metr-la"),
        (["--dataset=metr"], "unknown data set 'metr'; choose one of metr-la"),
        (["--dataset=mine.npz", "--horizon=0"], "--horizon 0 must be at least 1"),
    ],
)
def test_what_cannot_be_read(load, arguments, said):
    with pytest.raises(ValueError, match=said):
        load(*arguments)


def test_roots(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_root("pems08") == tmp_path / "cache" / "pyg_stmamba" / "pems"
    (tmp_path / "datasets" / "metr_la").mkdir(parents=True)
    assert default_root("metr-la") == Path("datasets/metr_la")
    assert default_root("pems-bay") == tmp_path / "cache" / "pyg_stmamba" / "pems_bay"
    assert default_root("freeway") == tmp_path / "cache" / "pyg_stmamba" / "freeway_traffic"
