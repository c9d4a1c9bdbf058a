import numpy as np

from pyg_stmamba.data import Protocol, TemporalGraph
from pyg_stmamba.datasets.download import Mirror, RawFile
from pyg_stmamba.datasets.pandas_hdf5 import read_frame
from pyg_stmamba.datasets.sensor_graph import read_locations, read_sensor_graph
from pyg_stmamba.datasets.series_dataset import SeriesDataset
from pyg_stmamba.datasets.upstream import DCRNN, ST_SSDL


class PEMSBAY(SeriesDataset):
    r"""Speeds of 325 loop detectors in the San Francisco Bay Area, from `"Diffusion
    Convolutional Recurrent Neural Network: Data-Driven Traffic Forecasting"
    <https://arxiv.org/abs/1707.01926>`_.

    One channel, speed in miles per hour, every 5 minutes from 2017-01-01 00:00
    to 2017-06-30 23:55. The hour that the change to summer time skips
    (2017-03-12, 02:00 to 02:55) is absent, so the time of day has to come from
    the timestamps. A 0 means that the value is missing. An edge leads from one
    detector to another that is near by road, with the published weight
    :math:`\exp(-d^2/\sigma^2) \geq 0.1`; there are no self loops.

    Published numbers take 12 steps to forecast 12, split 70/10/20 by windows,
    count zeros in mean and standard deviation, and leave them out of the
    metrics: :obj:`PEMSBAY.protocol`.

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
        * - 325
          - 2,369
          - 52,116
          - 1
          - 0.003 %
    """

    protocol = Protocol(split=(0.7, 0.1, 0.2), order="windows-first", scale_missing=True)
    num_steps_upstream = 52116
    num_nodes_upstream = 325

    @property
    def raw_files(self) -> tuple[RawFile, ...]:
        return (
            RawFile(
                "pems-bay.h5",
                "pems-bay.h5 from the Google Drive folder 10FOTa6HXPqX8Pf5WRoRwcFnW9BrNZEIX that "
                "https://github.com/liyaguang/DCRNN names, or pems_bay.h5 in the archive "
                "https://drive.switch.ch/index.php/s/5NPcgGFAIJ4oFcT/download",
                (
                    Mirror(
                        ST_SSDL + "PEMSBAY/PEMS-BAY.zip",
                        member="pems-bay.h5",
                        git_blob="2832e46d2d9823ce1969601e2ee3c1256b046594",
                    ),
                ),
            ),
            RawFile(
                "adj_mx_bay.pkl",
                "data/sensor_graph/adj_mx_bay.pkl of https://github.com/liyaguang/DCRNN",
                (Mirror(DCRNN + "adj_mx_bay.pkl"), Mirror(ST_SSDL + "PEMSBAY/adj_mx_bay.pkl")),
                sha256="116275f5704d0d492018e14c047f7ae5004385b450aa907f88424055a4a97370",
                git_blob="6651951a08ab101c818b1f27ba9a908d3ad56539",
                size=1681480,
            ),
            RawFile(
                "graph_sensor_locations_bay.csv",
                "data/sensor_graph/graph_sensor_locations_bay.csv of "
                "https://github.com/liyaguang/DCRNN",
                (
                    Mirror(DCRNN + "graph_sensor_locations_bay.csv"),
                    Mirror(DCRNN + "graph_sensor_locations_pems_bay.csv"),
                ),
                sha256="276ee01059610774d4e59572507f7e32eaac21f1f5882fcd9e3d7d426a4b7a6c",
                git_blob="b3e2471001f719e805ed4bae8d5d5e6262a1006a",
                size=9750,
            ),
        )

    @property
    def processed_file_names(self) -> list[str]:
        return ["pems_bay.pt"]

    def read(self) -> TemporalGraph:
        frame = read_frame(self.raw_path("pems-bay.h5"))
        edge_index, edge_weight = read_sensor_graph(self.raw_path("adj_mx_bay.pkl"), frame.columns)
        locations = self.raw_path("graph_sensor_locations_bay.csv")
        header = ("sensor_id", "latitude", "longitude")
        return TemporalGraph.from_arrays(
            frame.values,
            mask=~np.isnan(frame.values),
            timestamps=frame.times.astype("datetime64[ns]"),
            edge_index=edge_index,
            edge_weight=edge_weight,
            positions=read_locations(locations, frame.columns, header),
            node_ids=frame.columns,
            channels=["speed"],
            units=["mi/h"],
            null_value=0.0,
            name="PEMS-BAY",
            gaps="keep",
        )
