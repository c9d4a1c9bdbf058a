import csv
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.utils import subgraph

from pyg_stmamba.data import Protocol, TemporalGraph, gaussian_kernel_graph
from pyg_stmamba.datasets.download import Mirror, RawFile
from pyg_stmamba.datasets.sensor_graph import heard_nodes, positions_of
from pyg_stmamba.datasets.series_dataset import SeriesDataset
from pyg_stmamba.datasets.upstream import ASTGNN, ST_SSDL


class _Upstream(NamedTuple):
    start: str
    num_steps: int
    num_nodes: int
    archive: str
    values_blob: str
    edges_blob: str
    edges_size: int


_UPSTREAM = {
    "PEMS03": _Upstream(
        "2018-09-01",
        26208,
        358,
        "6nMenRqUe0i6nt8",
        "b4487154fc9611a3bf9856b0aad34efa610ea8ae",
        "00dec00c904e85045f41fd5325eccbbbdf30e70d",
        11994,
    ),
    "PEMS04": _Upstream(
        "2018-01-01",
        16992,
        307,
        "z4cMrY19EMN7AZA",
        "a1a39eac4b86963b1ac22874fd1cc693eb642cd2",
        "2569623e29fa9685ae230246a20f31741ee6cf01",
        4852,
    ),
    "PEMS07": _Upstream(
        "2017-05-01",
        28224,
        883,
        "rLQzOhOFF2jIBAk",
        "28c547f80eb8804d3e378168c80f77f82db2680a",
        "0a5a3bb0b5a1510fbe424fe7887f31ea2e178fbc",
        15016,
    ),
    "PEMS08": _Upstream(
        "2016-07-01",
        17856,
        170,
        "X0nkiDgb8oacOD0",
        "f5f3e84a00417573aa8487fe1e9e8cd13c6026c8",
        "cf11bea3ff4229d2d900fdcf1085828d25429c88",
        4032,
    ),
}
_SENSORS_03 = ("4d5aacb57797d3d701a890e7a91d2f7458646531", 2862)
_CHANNELS = ("flow", "occupancy", "speed")
_UNITS = ("vehicles/5 min", "1", "mi/h")


class PEMS(SeriesDataset):
    r"""Flow, occupancy and speed on Californian highways in the districts 3, 4, 7 and 8 of the
    Caltrans Performance Measurement System, as published with `"Spatial-Temporal Synchronous
    Graph Convolutional Networks" <https://ojs.aaai.org/index.php/AAAI/article/view/5438>`_.

    Vehicles in 5 minutes, the share of time a detector is covered and, where
    there is one, the mean speed in miles per hour; PEMS03 and PEMS07 have the
    flow only. The files hold no timestamps; those made here start at the
    documented first day (PEMS03 2018-09-01, PEMS04 2018-01-01, PEMS07
    2017-05-01, PEMS08 2016-07-01) and have no gap. A flow of 0 means that the
    value is missing. The published pairs of neighbours are joined in both
    directions, as the paper does, with :math:`\exp(-d^2/\sigma^2)` of the
    published distance, whose standard deviation is :math:`\sigma`.

    Published numbers take 12 steps to forecast 12 of the flow, split 60/20/20
    by windows: :obj:`PEMS.protocol`.

    Args:
        root: Folder of the data set.
        name: :obj:`"PEMS03"`, :obj:`"PEMS04"`, :obj:`"PEMS07"` or
            :obj:`"PEMS08"` (default: :obj:`"PEMS08"`).
        transform: Applied at each access (default: :obj:`None`).
        pre_transform: Applied once, before the graph is written
            (default: :obj:`None`).
        force_reload: Whether to process the raw files again
            (default: :obj:`False`).

    **STATS:**

    .. list-table::
        :widths: 10 10 10 10 10
        :header-rows: 1

        * - Name
          - #nodes
          - #edges
          - #steps
          - #channels
        * - PEMS03
          - 358
          - 1,092
          - 26,208
          - 1
        * - PEMS04
          - 307
          - 680
          - 16,992
          - 3
        * - PEMS07
          - 883
          - 1,732
          - 28,224
          - 1
        * - PEMS08
          - 170
          - 548
          - 17,856
          - 3
    """

    protocol = Protocol(split=(0.6, 0.2, 0.2), order="windows-first", scale_missing=True)

    def __init__(
        self,
        root: str | Path,
        name: str = "PEMS08",
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        force_reload: bool = False,
    ) -> None:
        if name not in _UPSTREAM:
            raise ValueError(f"PEMS has no {name!r}; choose one of {', '.join(_UPSTREAM)}")
        self.name = name
        self.num_steps_upstream = _UPSTREAM[name].num_steps
        self.num_nodes_upstream = _UPSTREAM[name].num_nodes
        super().__init__(root, transform, pre_transform, force_reload)

    @property
    def raw_files(self) -> tuple[RawFile, ...]:
        name, upstream = self.name, _UPSTREAM[self.name]
        values = RawFile(
            f"{name}.npz",
            f"{name}.npz from the data that https://github.com/Davidham3/STSGCN names, or in the "
            f"archive https://drive.switch.ch/index.php/s/{upstream.archive}/download",
            # ST-SSDL has the other three only.
            () if name == "PEMS03" else (Mirror(f"{ST_SSDL}{name}/{name}.npz"),),
            git_blob=upstream.values_blob,
        )
        folder = f"data/{name} of https://github.com/guoshnBJTU/ASTGNN"
        edges = RawFile(
            f"{name}.csv",
            f"{name}.csv in {folder}",
            (Mirror(f"{ASTGNN}{name}/{name}.csv"),),
            git_blob=upstream.edges_blob,
            size=upstream.edges_size,
        )
        if name != "PEMS03":
            return values, edges
        blob, size = _SENSORS_03
        mirror = Mirror(f"{ASTGNN}{name}/{name}.txt")
        sensors = RawFile(f"{name}.txt", f"{name}.txt in {folder}", (mirror,), None, blob, size)
        return values, edges, sensors

    @property
    def processed_file_names(self) -> list[str]:
        return [f"{self.name.lower()}.pt"]

    def read(self) -> TemporalGraph:
        values = _read_values(self.raw_path(f"{self.name}.npz"))
        num_steps, num_nodes, num_channels = values.shape
        if self.name == "PEMS03":
            path = self.raw_path("PEMS03.txt")
            sensors = path.read_text(encoding="utf-8").split()
            if len(sensors) != num_nodes:
                raise ValueError(f"{path} names {len(sensors)} sensors, PEMS03.npz has {num_nodes}")
        else:
            sensors = [str(node) for node in range(num_nodes)]
        edges, weights = _read_edges(self.raw_path(f"{self.name}.csv"), sensors)
        mask = np.isfinite(values)
        mask[..., 0] &= values[..., 0] != 0
        heard = heard_nodes(mask, sensors, self.name)
        edges, weights = subgraph(
            torch.from_numpy(heard), edges, weights, relabel_nodes=True, num_nodes=num_nodes
        )
        start = np.datetime64(_UPSTREAM[self.name].start, "s")
        return TemporalGraph.from_arrays(
            values[:, heard],
            mask=mask[:, heard],
            timestamps=start + np.arange(num_steps) * np.timedelta64(300, "s"),
            edge_index=edges,
            edge_weight=weights,
            node_ids=[sensors[node] for node in heard],
            channels=list(_CHANNELS[:num_channels]),
            units=list(_UNITS[:num_channels]),
            name=self.name,
        )


def _read_values(path: Path) -> np.ndarray:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
            values = content["data"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path}: truncated or corrupted, or no npz file with an array named data ({error})"
        ) from error
    if values.ndim != 3 or values.shape[2] not in (1, 3) or values.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: data has shape {values.shape} and dtype {values.dtype}; expected numbers of "
            "shape [steps, nodes, 1 or 3 channels]"
        )
    return values.astype(np.float64)


def _read_edges(path: Path, sensors: list[str]) -> tuple[Tensor, Tensor]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    if header[:2] != ["from", "to"] or any(len(row) != len(header) for row in rows):
        raise ValueError(f"{path}: truncated, or no table of from, to, cost (header {header})")
    try:
        distances = np.array([float(row[2]) for row in rows])
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: the third column has to be a distance ({error})") from error
    ends = positions_of([end for row in rows for end in row[:2]], sensors, path).reshape(-1, 2)
    return gaussian_kernel_graph(
        ends.T, distances, len(sensors), threshold=0.0, directed=False, self_loops=False
    )
