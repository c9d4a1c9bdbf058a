from pathlib import Path

import numpy as np

from pyg_stmamba.data import Protocol, TemporalGraph, from_adjacency
from pyg_stmamba.datasets.download import Mirror, RawFile
from pyg_stmamba.datasets.series_dataset import SeriesDataset
from pyg_stmamba.datasets.upstream import ST_SSDL

STGCN = "https://github.com/VeritasYin/STGCN_IJCAI-18"
STEPS_PER_DAY = 288
SCALE_METRES = 10_000 * 0.1**0.5
SMALLEST_WEIGHT = 0.5


class PEMSD7M(SeriesDataset):
    r"""Speeds of 228 detectors in district 7 (Los Angeles) of the Caltrans Performance
    Measurement System, from `"Spatio-Temporal Graph Convolutional Networks: A Deep Learning
    Framework for Traffic Forecasting" <https://arxiv.org/abs/1709.04875>`_.

    One channel, speed in miles per hour, every 5 minutes of the 44 working days
    (Monday to Friday) of May and June 2012, from 2012-05-01 00:00; nothing is
    missing. The file holds no timestamps; those made here jump over the
    weekends, and so do windows. Detectors are joined if
    :math:`\exp(-d^2 / (0.1 \cdot (10\,\mathrm{km})^2)) \geq 0.5` for their
    distance :math:`d`, as the paper does; there are no self loops.

    Recent tables take 12 steps to forecast 12, split 60/20/20 by windows:
    :obj:`PEMSD7M.protocol`. (The paper itself splits into 34, 5 and 5 days.)

    Args:
        root: Folder of the data set; the upstream files in :obj:`raw/` may hold
            a subset of the sensors.
        transform: Applied at each access (default: :obj:`None`).
        pre_transform: Applied once, before the graph is written
            (default: :obj:`None`).
        force_reload: Whether to process the raw files again
            (default: :obj:`False`).

    **STATS:**

    .. list-table::
        :widths: 10 10 10 10
        :header-rows: 1

        * - #nodes
          - #steps
          - #channels
          - missing
        * - 228
          - 12,672
          - 1
          - 0 %
    """

    protocol = Protocol(split=(0.6, 0.2, 0.2), order="windows-first", scale_missing=True)
    num_steps_upstream = 12672
    num_nodes_upstream = 228

    @property
    def raw_files(self) -> tuple[RawFile, ...]:
        archive = f"{STGCN}/raw/master/data_loader/PeMS-M.zip"
        return (
            RawFile(
                "PeMSD7_V_228.csv",
                f"V_228.csv in the archive {archive}",
                (
                    Mirror(ST_SSDL + "PEMSD7M/PeMSD7_V_228.csv"),
                    Mirror(archive, member="*V_228.csv"),
                ),
                git_blob="2a76cb181e8e917c5d9b85891d26614981024fab",
            ),
            # Nobody has published a hash of this one, and unverified files are not downloaded.
            RawFile("PeMSD7_W_228.csv", f"W_228.csv in the archive {archive}"),
        )

    @property
    def processed_file_names(self) -> list[str]:
        return ["pemsd7m.pt"]

    def read(self) -> TemporalGraph:
        values = _read_matrix(self.raw_path("PeMSD7_V_228.csv"))
        path = self.raw_path("PeMSD7_W_228.csv")
        distances = _read_matrix(path)
        num_steps, num_nodes = values.shape
        if distances.shape != (num_nodes, num_nodes):
            raise ValueError(
                f"{path} is a table of {distances.shape}; the {num_nodes} columns of "
                f"PeMSD7_V_228.csv need {(num_nodes, num_nodes)} distances"
            )
        weights = np.exp(-((distances / SCALE_METRES) ** 2))
        edge_index, edge_weight = from_adjacency(
            np.where(weights >= SMALLEST_WEIGHT, weights, 0.0), source_first=True, self_loops=False
        )
        return TemporalGraph.from_arrays(
            values,
            timestamps=working_days(num_steps),
            edge_index=edge_index,
            edge_weight=edge_weight,
            node_ids=[str(node) for node in range(num_nodes)],
            channels=["speed"],
            units=["mi/h"],
            null_value=0.0,
            name="PEMSD7(M)",
            gaps="keep",
        )


def working_days(num_steps: int) -> np.ndarray:
    r"""5-minute timestamps from 2012-05-01 on, without the weekends."""
    num_days = -(-num_steps // STEPS_PER_DAY)
    first = np.array(["2012-05-01"], dtype="datetime64[D]")
    days = np.busday_offset(first, np.arange(num_days)).astype("datetime64[s]")
    steps = np.arange(STEPS_PER_DAY) * np.timedelta64(300, "s")
    return (days[:, None] + steps).reshape(-1)[:num_steps]


def _read_matrix(path: Path) -> np.ndarray:
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty")
    try:
        matrix = np.loadtxt(path, delimiter=",", ndmin=2, encoding="utf-8-sig")
    except ValueError as error:
        raise ValueError(f"{path}: truncated, or no table of numbers ({error})") from error
    if not np.isfinite(matrix).all():
        raise ValueError(f"{path} holds NaN or infinity, unlike the published file")
    return matrix
