import numpy as np

from pyg_stmamba.data import Protocol, TemporalGraph
from pyg_stmamba.datasets.download import Mirror, RawFile
from pyg_stmamba.datasets.pandas_hdf5 import read_frame
from pyg_stmamba.datasets.sensor_graph import read_locations, read_sensor_graph
from pyg_stmamba.datasets.series_dataset import SeriesDataset
from pyg_stmamba.datasets.upstream import DCRNN, ST_SSDL


class METRLA(SeriesDataset):
    r"""Speeds of 207 loop detectors on the highways of Los Angeles County, from `"Diffusion
    Convolutional Recurrent Neural Network: Data-Driven Traffic Forecasting"
    <https://arxiv.org/abs/1707.01926>`_.

    One channel, speed in miles per hour, every 5 minutes from 2012-03-01 00:00
    to 2012-06-27 23:55, without a gap in time. A 0 means that the value is
    missing. An edge leads from one detector to another that is near by road,
    with the published weight :math:`\exp(-d^2/\sigma^2) \geq 0.1`; there are no
    self loops.

    Published numbers take 12 steps to forecast 12, split 70/10/20 by windows,
    count zeros in mean and standard deviation, and leave them out of the
    metrics: :obj:`METRLA.protocol`.

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
        :widths: 10 10 10 10 10
        :header-rows: 1

        * - #nodes
          - #edges
          - #steps
          - #channels
          - missing
        * - 207
          - 1,515
          - 34,272
          - 1
          - 8.11 %
    """

    protocol = Protocol(split=(0.7, 0.1, 0.2), order="windows-first", scale_missing=True)
    num_steps_upstream = 34272
    num_nodes_upstream = 207

    @property
    def raw_files(self) -> tuple[RawFile, ...]:
        return (
            RawFile(
                "metr-la.h5",
                "metr-la.h5 from the Google Drive folder 10FOTa6HXPqX8Pf5WRoRwcFnW9BrNZEIX that "
                "https://github.com/liyaguang/DCRNN names, or metr_la.h5 in the archive "
                "https://drive.switch.ch/index.php/s/Z8cKHAVyiDqkzaG/download",
                (Mirror(ST_SSDL + "METRLA/metr-la.h5"),),
                git_blob="7df0003054d1bccd255d38949b2ef011dcadad3f",
            ),
            RawFile(
                "adj_mx.pkl",
                "data/sensor_graph/adj_mx.pkl of https://github.com/liyaguang/DCRNN",
                (Mirror(DCRNN + "adj_mx.pkl"), Mirror(ST_SSDL + "METRLA/adj_mx.pkl")),
                sha256="a35687c6e15aa228dc45027b0ed2a0ea0f4ec78f573deb992c595092d12f61b3",
                git_blob="a15a5904a83e7f13fe94d32fcd45c00f163ffd97",
                size=680459,
            ),
            RawFile(
                "graph_sensor_locations.csv",
                "data/sensor_graph/graph_sensor_locations.csv of "
                "https://github.com/liyaguang/DCRNN",
                (Mirror(DCRNN + "graph_sensor_locations.csv"),),
                sha256="eb8ea96e07358b45d0e4ba3b89c2673fa20c54af50150249e627389e749ade6f",
                git_blob="d0bb95872860d274678d2dff4ab52ce51f74b706",
                size=6341,
            ),
        )

    @property
    def processed_file_names(self) -> list[str]:
        return ["metr_la.pt"]

    def read(self) -> TemporalGraph:
        frame = read_frame(self.raw_path("metr-la.h5"))
        edge_index, edge_weight = read_sensor_graph(self.raw_path("adj_mx.pkl"), frame.columns)
        return TemporalGraph.from_arrays(
            frame.values,
            mask=~np.isnan(frame.values),
            timestamps=frame.times.astype("datetime64[ns]"),
            edge_index=edge_index,
            edge_weight=edge_weight,
            positions=read_locations(self.raw_path("graph_sensor_locations.csv"), frame.columns),
            node_ids=frame.columns,
            channels=["speed"],
            units=["mi/h"],
            null_value=0.0,
            name="METR-LA",
        )
