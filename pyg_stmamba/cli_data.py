"""Which series a command of :obj:`pyg-stmamba` reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pyg_stmamba.cli_options import folder_of_dataset

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from pyg_stmamba.data import Protocol, TemporalGraph


def add_data_options(parser: ArgumentParser) -> None:
    r"""Adds what says which series to read and how to cut it into windows."""
    from pyg_stmamba.datasets import DATASETS

    text = f"One of {', '.join(DATASETS)}, or one's own .npz or .csv file."
    parser.add_argument("--dataset", type=str | None, help=text)
    parser.add_argument("--root", type=Path | None, help="Folder of the data set.")
    parser.add_argument("--adjacency", type=Path | None, help="Adjacency matrix beside a .csv.")
    parser.add_argument("--distances", type=Path | None, help="Distances beside a .csv.")
    parser.add_argument("--window", type=int | None, help="Steps in (default: the data set's).")
    parser.add_argument("--horizon", type=int | None, help="Steps ahead (default: the data set's).")
    parser.add_argument(
        "--split",
        type=tuple[float, float, float] | None,
        help="Parts of training, validation and test, as in [0.7,0.1,0.2].",
    )
    parser.add_argument("--order", type=str | None, help="windows-first or series-first.")


def default_root(name: str) -> Path:
    r"""Where the data set of this name lies unless :obj:`--root` says otherwise."""
    from pyg_stmamba.datasets import DATASETS

    return folder_of_dataset(DATASETS[name])


def load_data(given: Namespace) -> tuple[TemporalGraph, Protocol]:
    r"""Reads the series that the options name, and the lengths and splits of its windows."""
    from pyg_stmamba.data import Protocol, load_csv, load_npz
    from pyg_stmamba.datasets import DATASETS, open_dataset

    name = given.dataset
    if name is None:
        raise ValueError(f"give --dataset: one of {', '.join(DATASETS)}, or a .npz or .csv file")
    if name in DATASETS:
        dataset = open_dataset(name, given.root or default_root(name))
        graph, protocol = dataset[0], dataset.protocol
    elif name.endswith(".npz"):
        # Missing values of one's own data are known by their mask; nothing stands for them.
        graph, protocol = load_npz(name), Protocol(scale_missing=False)
    elif name.endswith(".csv"):
        graph = load_csv(name, given.adjacency, given.distances)
        protocol = Protocol(scale_missing=False)
    else:
        raise ValueError(
            f"unknown data set {name!r}; choose one of {', '.join(DATASETS)}, "
            "or give the path of a .npz or .csv file"
        )
    wanted = {key: given.get(key) for key in ("window", "horizon", "order")}
    wanted = {key: value for key, value in wanted.items() if value is not None}
    split = given.get("split")
    if isinstance(split, list | tuple):
        wanted["split"] = tuple(split)
    protocol = protocol._replace(**wanted)
    if protocol.horizon < 1:
        raise ValueError(f"--horizon {protocol.horizon} must be at least 1")
    return graph, protocol
