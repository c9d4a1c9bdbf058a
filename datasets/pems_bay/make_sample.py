"""Generates the sample: invented speeds in the format of PEMS-BAY. None of it is real data."""

import pickle
import sys
from pathlib import Path

import numpy as np

from pyg_stmamba.datasets.pandas_hdf5 import write_frame

SENSORS = [800001, 800002, 800003, 800004]


def make_sample(folder: Path) -> None:
    random = np.random.default_rng(2)
    # The night of the change to summer time: the hour from 02:00 on is absent.
    start = np.datetime64("2017-03-11T12:00", "ns").astype(np.int64)
    index = start + np.arange(432) * 300 * 10**9
    skipped = np.datetime64("2017-03-12T02:00", "ns").astype(np.int64)
    index = index[(index < skipped) | (index >= skipped + 3600 * 10**9)]
    hours = (index // 10**9 % 86400) / 3600
    rush = np.exp(-((hours - 8) ** 2) / 4) + np.exp(-((hours - 17) ** 2) / 6)
    speed = 68 - rush[:, None] * np.array([20.0, 15.0, 10.0, 5.0])
    speed += random.integers(-15, 16, speed.shape) / 10
    speed[30, 1] = speed[200, 3] = 0
    write_frame(folder / "pems-bay.h5", speed.round(1), index, SENSORS, key="speed")

    ids = [str(name) for name in SENSORS]
    road = np.abs(np.subtract.outer(np.arange(4), np.arange(4))) * 2.0
    weights = np.exp(-((road / 2.5) ** 2))
    weights = np.where(weights >= 0.1, weights, 0.0).astype(np.float32)
    graph = [ids, {name: i for i, name in enumerate(ids)}, weights]
    (folder / "adj_mx_bay.pkl").write_bytes(pickle.dumps(graph, protocol=2))

    lines = [f"{name},{37.3 + 0.01 * i:.6f},{-121.9:.6f}\n" for i, name in enumerate(ids)]
    (folder / "graph_sensor_locations_bay.csv").write_text("".join(lines))


if __name__ == "__main__":
    make_sample(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "sample/raw")
