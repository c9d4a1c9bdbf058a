"""Generates the sample: invented speeds in the format of PEMSD7(M). None of it is real data."""

import sys
from pathlib import Path

import numpy as np

# Four days and a half: from Tuesday over the weekend into Monday.
STEPS = 1300


def make_sample(folder: Path) -> None:
    random = np.random.default_rng(3)
    hours = np.arange(STEPS)[:, None] / 12 % 24
    rush = np.exp(-((hours - 8) ** 2) / 4) + np.exp(-((hours - 17) ** 2) / 6)
    speed = 66 - rush * np.array([25.0, 15.0, 5.0]) + random.integers(-20, 21, (STEPS, 3)) / 10
    np.savetxt(folder / "PeMSD7_V_228.csv", speed, fmt="%.1f", delimiter=",")
    distances = np.array([[0, 1800, 3500], [1800, 0, 2400], [3500, 2400, 0]])
    np.savetxt(folder / "PeMSD7_W_228.csv", distances, fmt="%.1f", delimiter=",")


if __name__ == "__main__":
    make_sample(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "sample/raw")
