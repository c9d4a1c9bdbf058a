"""Generates the sample: invented speeds in the format of METR-LA. None of it is real data."""

import csv
import pickle
import sys
from pathlib import Path

import numpy as np

from pyg_stmamba.datasets.pandas_hdf5 import write_frame

STEPS = 432
SENSORS = ["900001", "900002", "900003", "900004"]


def make_sample(folder: Path) -> None:
    random = np.random.default_rng(1)
    hours = np.arange(STEPS) / 12 % 24
    rush = np.exp(-((hours - 8) ** 2) / 4) + np.exp(-((hours - 17) ** 2) / 6)
    slow_down = np.array([30.0, 25.0, 15.0, 5.0])
    speed = 65 - rush[:, None] * slow_down + random.integers(-24, 25, (STEPS, 4)) / 8
    speed[random.random(speed.shape) < 0.05] = 0
    speed[100:124, 2] = 0
    start = np.datetime64("2012-03-01", "ns").astype(np.int64)
    index = start + np.arange(STEPS) * 300 * 10**9
    # Rounded, because the last bit of an exponential is not the same on every processor.
    write_frame(folder / "metr-la.h5", speed.round(4), index, SENSORS)

    # As upstream, the graph knows more sensors than the values hold.
    ids = ["900000", *SENSORS]
    road = np.abs(np.subtract.outer(np.arange(5), np.arange(5))) * 1500.0
    weights = np.exp(-((road / 2500.0) ** 2))
    weights[np.triu_indices(5, 1)] *= 0.5
    weights = np.where(weights >= 0.1, weights, 0.0).astype(np.float32)
    graph = [ids, {name: i for i, name in enumerate(ids)}, weights]
    (folder / "adj_mx.pkl").write_bytes(pickle.dumps(graph, protocol=2))

    with open(folder / "graph_sensor_locations.csv", "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["index", "sensor_id", "latitude", "longitude"])
        for i, name in enumerate(ids):
            table.writerow([i, name, f"{34.1 + 0.01 * i:.5f}", f"{-118.3 + 0.012 * i:.5f}"])


if __name__ == "__main__":
    make_sample(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "sample/raw")
