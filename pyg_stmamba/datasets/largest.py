import csv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from pyg_stmamba.data import Protocol, TemporalGraph, from_adjacency
from pyg_stmamba.datasets.download import RawFile
from pyg_stmamba.datasets.pandas_hdf5 import OpenFrame, open_frame
from pyg_stmamba.datasets.sensor_graph import heard_nodes, positions_of
from pyg_stmamba.datasets.series_dataset import SeriesDataset

KAGGLE = "https://www.kaggle.com/datasets/liuxu77/largest (log in and download)"
STEP = 15 * 60 * 10**9
ROWS_AT_ONCE = 1008

_DISTRICTS: dict[str, tuple[int, ...] | None] = {
    "SD": (11,),
    "GBA": (4,),
    "GLA": (7, 8, 12),
    "CA": None,
}
_NUM_NODES = {"SD": 716, "GBA": 2352, "GLA": 3834, "CA": 8600}
_YEARS = (2017, 2018, 2019, 2020, 2021)


class _Meta(NamedTuple):
    sensors: list[str]
    positions: np.ndarray
    districts: np.ndarray
    rows: np.ndarray


class LargeST(SeriesDataset):
    r"""Traffic flow at up to 8,600 detectors of California over five years, from `"LargeST: A
    Benchmark Dataset for Large-Scale Traffic Forecasting" <https://arxiv.org/abs/2306.08259>`_.

    One channel, vehicles in 5 minutes averaged over 15 minutes and rounded, as
    the benchmark does, so a step is 15 minutes. A 0 means that the value is
    missing. An edge leads from one detector to another that is near by road,
    with the published weight; there are no self loops. :obj:`"SD"` (San Diego)
    is district 11, :obj:`"GBA"` (Greater Bay Area) 4, :obj:`"GLA"` (Greater
    Los Angeles) 7, 8 and 12, and :obj:`"CA"` all of them.

    Published numbers take 12 steps of 2019 to forecast 12, split 60/20/20 by
    windows: :obj:`LargeST.protocol`.

    The files are on Kaggle, which wants a login, so they are fetched by hand:
    :obj:`ca_his_raw_2019.h5` (or another year), :obj:`ca_meta.csv` and
    :obj:`ca_rn_adj.npy`.

    Args:
        root: Folder of the data set; the upstream files in :obj:`raw/` may hold
            a subset of the sensors.
        name: :obj:`"SD"`, :obj:`"GBA"`, :obj:`"GLA"` or :obj:`"CA"`
            (default: :obj:`"SD"`).
        year: 2017 to 2021 (default: :obj:`2019`).
        transform: Applied at each access (default: :obj:`None`).
        pre_transform: Applied once, before the graph is written
            (default: :obj:`None`).
        force_reload: Whether to process the raw files again
            (default: :obj:`False`).

    **STATS:**

    .. list-table::
        :widths: 10 10 10 10
        :header-rows: 1

        * - Name
          - #nodes
          - #steps (2019)
          - #channels
        * - SD
          - 716
          - 35,040
          - 1
        * - GBA
          - 2,352
          - 35,040
          - 1
        * - GLA
          - 3,834
          - 35,040
          - 1
        * - CA
          - 8,600
          - 35,040
          - 1
    """

    protocol = Protocol(split=(0.6, 0.2, 0.2), order="windows-first", scale_missing=True)

    def __init__(
        self,
        root: str | Path,
        name: str = "SD",
        year: int = 2019,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        force_reload: bool = False,
    ) -> None:
        if name not in _DISTRICTS:
            raise ValueError(f"LargeST has no {name!r}; choose one of {', '.join(_DISTRICTS)}")
        if year not in _YEARS:
            raise ValueError(f"LargeST has no year {year!r}; choose one of {_YEARS}")
        self.name, self.year = name, year
        self.num_steps_upstream = (366 if year == 2020 else 365) * 96
        self.num_nodes_upstream = _NUM_NODES[name]
        super().__init__(root, transform, pre_transform, force_reload)

    @property
    def raw_files(self) -> tuple[RawFile, ...]:
        names = (f"ca_his_raw_{self.year}.h5", "ca_meta.csv", "ca_rn_adj.npy")
        return tuple(RawFile(name, f"{name} from {KAGGLE}") for name in names)

    @property
    def processed_file_names(self) -> list[str]:
        return [f"largest_{self.name.lower()}_{self.year}.pt"]

    def read(self) -> TemporalGraph:
        meta = _read_meta(self.raw_path("ca_meta.csv"))
        path = self.raw_path(f"ca_his_raw_{self.year}.h5")
        with open_frame(path) as frame:
            known, districts = set(frame.columns), _DISTRICTS[self.name]
            nodes = [
                node
                for node, sensor in enumerate(meta.sensors)
                if sensor in known and (districts is None or meta.districts[node] in districts)
            ]
            if not nodes:
                raise ValueError(f"{path} has no sensor that ca_meta.csv places in {self.name}")
            sensors = [meta.sensors[node] for node in nodes]
            values, timestamps = quarter_hours(frame, positions_of(sensors, frame.columns, path))
        heard = heard_nodes(values != 0, sensors, f"LargeST {self.name} {self.year}")
        rows = meta.rows[nodes][heard]
        edge_index, edge_weight = from_adjacency(
            _read_weights(self.raw_path("ca_rn_adj.npy"), rows), source_first=True, self_loops=False
        )
        return TemporalGraph.from_arrays(
            values[:, heard],
            timestamps=timestamps,
            edge_index=edge_index,
            edge_weight=edge_weight,
            positions=meta.positions[nodes][heard],
            node_ids=[sensors[node] for node in heard],
            channels=["flow"],
            units=["vehicles/5 min"],
            null_value=0.0,
            name=f"LargeST-{self.name}",
        )


def quarter_hours(frame: OpenFrame, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Means over each quarter of an hour, rounded, 0 where nothing was observed.

    Args:
        frame: An open table with increasing timestamps.
        columns: Positions of the wanted columns.

    Returns:
        Values :math:`[T, N]` in single precision and timestamps :math:`[T]`.
    """
    if len(frame.times) == 0 or (np.diff(frame.times) <= 0).any():
        raise ValueError("the timestamps of the table are not increasing, or there are none")
    quarter = frame.times // STEP
    quarter, first = quarter - quarter[0], quarter[0]
    sums = np.zeros((quarter[-1] + 1, len(columns)), dtype=np.float32)
    counts = np.zeros(sums.shape, dtype=np.uint8)
    starts = range(0, len(quarter), ROWS_AT_ONCE)
    for start in tqdm(starts, desc="averaging over 15 minutes", disable=len(starts) < 2):
        rows = frame.rows(start, start + ROWS_AT_ONCE)[:, columns]
        into = quarter[start : start + ROWS_AT_ONCE]
        reached, begin = np.unique(into, return_index=True)
        present = np.isfinite(rows)
        sums[reached] += np.add.reduceat(np.where(present, rows, 0.0), begin)
        counts[reached] += np.add.reduceat(present.astype(np.uint8), begin)
    means = np.round(np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0))
    timestamps = (np.arange(len(means)) + first) * STEP
    return means, timestamps.astype("datetime64[ns]")


def _read_meta(path: Path) -> _Meta:
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    try:
        return _Meta(
            [str(row["ID"]) for row in rows],
            np.array([(float(row["Lat"]), float(row["Lng"])) for row in rows]),
            np.array([int(row["District"]) for row in rows]),
            np.array([int(row["ID2"]) for row in rows]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: truncated, or without the columns ID, Lat, Lng, District, ID2 ({error!r})"
        ) from error


def _read_weights(path: Path, rows: np.ndarray) -> np.ndarray:
    try:
        weights = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: truncated, or no array of numpy ({error})") from error
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or rows.max() >= len(weights):
        raise ValueError(
            f"{path} has shape {weights.shape}; ca_meta.csv asks for rows up to {rows.max()}"
        )
    return np.asarray(weights[np.ix_(rows, rows)])
