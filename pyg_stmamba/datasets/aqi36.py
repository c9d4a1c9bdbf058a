import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pyg_stmamba.data import (
    Protocol,
    TemporalGraph,
    from_adjacency,
    great_circle_distance,
)
from pyg_stmamba.datasets.download import Mirror, RawFile
from pyg_stmamba.datasets.sensor_graph import read_locations
from pyg_stmamba.datasets.series_dataset import SeriesDataset

ARCHIVE = "https://www.microsoft.com/en-us/research/wp-content/uploads/2016/06/STMVL-Release.zip"
SMALLEST_WEIGHT = 0.1


class AQI36(SeriesDataset):
    r"""Fine dust at 36 stations in Beijing, from `"ST-MVL: Filling Missing Values in Geo-sensory
    Time Series Data" <https://www.ijcai.org/Proceedings/16/Papers/384.pdf>`_.

    One channel, PM2.5 in micrograms per cubic metre, every hour from 2014-05-01
    01:00 to 2015-04-30 23:00. Empty fields are missing; 0 is a value. Stations
    are joined if :math:`\exp(-d^2/\sigma^2) \geq 0.1` for the great-circle
    distance :math:`d`, where :math:`\sigma` is the standard deviation of all
    distances; there are no self loops.

    With :obj:`masked=True` the values that the authors hid for the comparison
    of imputation methods are missing too; they are in :obj:`target`
    :math:`[N, T, 1]`, and :obj:`target_mask` says where.

    There is no published forecasting protocol for the 36 stations alone (those
    for imputation test on the months 3, 6, 9 and 12); here 24 hours forecast
    24, split 70/10/20 in time by windows: :obj:`AQI36.protocol`.

    Args:
        root: Folder of the data set; the upstream files in :obj:`raw/` may hold
            a subset of the stations.
        masked: Whether to hide what the authors hid for imputation
            (default: :obj:`False`).
        transform: Applied at each access (default: :obj:`None`).
        pre_transform: Applied once, before the graph is written
            (default: :obj:`None`).
        force_reload: Whether to process the raw files again
            (default: :obj:`False`).

    **STATS:**

    .. list-table::
        :widths: 10 10 10 10 10
        :header-rows: 1

        * - #nodes
          - #edges
          - #steps
          - #channels
          - missing
        * - 36
          - 654
          - 8,759
          - 1
          - 13.2 %
    """

    protocol = Protocol(
        window=24,
        horizon=24,
        split=(0.7, 0.1, 0.2),
        order="windows-first",
        scale_missing=False,
        report_steps=(3, 6, 12, 24),
    )
    num_steps_upstream = 8759
    num_nodes_upstream = 36

    def __init__(
        self,
        root: str | Path,
        masked: bool = False,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        force_reload: bool = False,
    ) -> None:
        self.masked = masked
        super().__init__(root, transform, pre_transform, force_reload)

    @property
    def raw_files(self) -> tuple[RawFile, ...]:
        known = (
            ("pm25_ground.txt", "422ac2e7d067677a3f925611961be79a5502f2fa", 1098878),
            ("pm25_missing.txt", "7542d5489bd42c27d02b07b38db09994a66152b2", 1022029),
            ("pm25_latlng.txt", "6819e3a4d3f055a4bd3c9e38db77a3761b2d5780", 958),
        )
        return tuple(
            RawFile(
                name,
                f"Code/STMVL/SampleData/{name} in the archive {ARCHIVE}",
                (Mirror(ARCHIVE, member=name),),
                git_blob=blob,
                size=size,
            )
            for name, blob, size in known
            if self.masked or name != "pm25_missing.txt"
        )

    @property
    def processed_file_names(self) -> list[str]:
        return ["aqi36_masked.pt" if self.masked else "aqi36.pt"]

    def read(self) -> TemporalGraph:
        ground, timestamps, stations = _read_table(self.raw_path("pm25_ground.txt"))
        observed = np.isfinite(ground)
        mask = observed
        if self.masked:
            path = self.raw_path("pm25_missing.txt")
            shown, other_timestamps, other_stations = _read_table(path)
            if other_stations != stations or not np.array_equal(timestamps, other_timestamps):
                raise ValueError(f"{path} has other stations or hours than pm25_ground.txt")
            mask = observed & np.isfinite(shown)
        positions = read_locations(self.raw_path("pm25_latlng.txt"), stations)
        distances = great_circle_distance(positions[:, None], positions).numpy()
        weights = np.exp(-((distances / distances.std()) ** 2))
        edge_index, edge_weight = from_adjacency(
            np.where(weights >= SMALLEST_WEIGHT, weights, 0.0), self_loops=False
        )
        graph = TemporalGraph.from_arrays(
            np.where(mask, ground, 0.0),
            mask=mask,
            timestamps=timestamps,
            edge_index=edge_index,
            edge_weight=edge_weight,
            positions=positions,
            node_ids=stations,
            channels=["PM2.5"],
            units=["µg/m³"],
            name="AQI-36",
        )
        if self.masked:
            hidden = observed & ~mask
            graph.target = _nodes_first(np.where(hidden, ground, 0.0).astype(np.float32))
            graph.target_mask = _nodes_first(hidden)
        return graph


def _nodes_first(table: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(table.T)).unsqueeze(-1)


def _read_table(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if header[:1] != ["datetime"]:
        raise ValueError(f"{path}: the first line starts with {header[:3]}, not with datetime")
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(
                f"{path}: line {line} has {len(row)} fields instead of {len(header)}; truncated?"
            )
    try:
        stamps = [row[0].replace("/", "-").replace(" ", "T") for row in rows]
        timestamps = np.array(stamps, dtype="datetime64[s]")
        values = np.array([[float(v) if v else np.nan for v in row[1:]] for row in rows])
    except ValueError as error:
        raise ValueError(f"{path}: not a table of hours and numbers ({error})") from error
    return values, timestamps, header[1:]
