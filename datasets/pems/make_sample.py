"""Generates the samples: invented flows in the format of PEMS03/04/07/08. None is real data."""

import sys
from pathlib import Path

import numpy as np

STEPS = 144
SENSORS_03 = [700101, 700105, 700109, 700113]


def make_sample(folder: Path) -> None:
    for seed, name in enumerate(["PEMS03", "PEMS04", "PEMS07", "PEMS08"]):
        random = np.random.default_rng(seed)
        hours = np.arange(STEPS)[:, None] / 12 + 6
        day = np.sin(np.pi * (hours - 5) / 14)
        flow = np.round(40 + 250 * day * np.array([1.0, 0.8, 0.6, 0.4]))
        flow = np.abs(flow + random.integers(-20, 21, flow.shape))
        flow[random.random(flow.shape) < 0.03] = 0
        occupancy = np.round(flow / 4000, 4)
        speed = np.round(70 - flow / 25, 1)
        channels = [flow, occupancy, speed] if name in ("PEMS04", "PEMS08") else [flow]
        np.savez(folder / f"{name}.npz", data=np.stack(channels, axis=-1))

        ends = SENSORS_03 if name == "PEMS03" else [0, 1, 2, 3]
        unit = "distance" if name == "PEMS03" else "cost"
        roads = [(0, 1, 0.9), (1, 2, 1.4), (3, 2, 2.1)]
        lines = [f"{ends[a]},{ends[b]},{cost}\n" for a, b, cost in roads]
        (folder / f"{name}.csv").write_text(f"from,to,{unit}\n" + "".join(lines))
    (folder / "PEMS03.txt").write_text("".join(f"{sensor}\n" for sensor in SENSORS_03))


if __name__ == "__main__":
    make_sample(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "sample/raw")
