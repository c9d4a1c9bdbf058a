"""Generates the sample: invented flows in the format of LargeST. None of it is real data."""

import csv
import sys
from pathlib import Path

import numpy as np

from pyg_stmamba.datasets.pandas_hdf5 import write_frame

STEPS = 432
DISTRICTS = [3, 4, 4, 7, 8, 11, 11, 12]
SENSORS = [600000 + 7 * i for i in range(len(DISTRICTS))]


def make_sample(folder: Path) -> None:
    random = np.random.default_rng(4)
    hours = np.arange(STEPS)[:, None] / 12 % 24
    flow = np.round(200 + 150 * np.sin(np.pi * (hours - 6) / 12)) * np.linspace(1, 0.5, 8)
    flow = np.round(flow) + random.integers(0, 15, flow.shape)
    flow[random.random(flow.shape) < 0.05] = np.nan
    flow[60:72, 5] = np.nan
    start = np.datetime64("2019-01-01", "ns").astype(np.int64)
    index = start + np.arange(STEPS) * 300 * 10**9
    names = [str(sensor) for sensor in SENSORS]
    write_frame(folder / "ca_his_raw_2019.h5", flow, index, names, key="t")

    with open(folder / "ca_meta.csv", "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        header = ["ID", "Lat", "Lng", "District", "County", "Fwy", "Lane", "Type", "Direction"]
        table.writerow([*header, "ID2"])
        for i, (sensor, district) in enumerate(zip(SENSORS, DISTRICTS, strict=True)):
            place = [f"{33 + 0.1 * i:.4f}", f"{-117 - 0.1 * i:.4f}", district]
            table.writerow([sensor, *place, "Nowhere", "I0-N", 4, "Mainline", "N", i])
    road = np.abs(np.subtract.outer(np.arange(8.0), np.arange(8.0)))
    weights = np.where(road <= 2, np.exp(-(road**2) / 4), 0.0).astype(np.float32)
    weights[np.triu_indices(8, 1)] *= 0.5
    np.save(folder / "ca_rn_adj.npy", weights)


if __name__ == "__main__":
    make_sample(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "sample/raw")
