"""Generates the sample: invented dust in the format of AQI-36. None of it is real data."""

import sys
from pathlib import Path

import numpy as np

STEPS = 240
STATIONS = ["009001", "009002", "009003", "009004"]


def make_sample(folder: Path) -> None:
    random = np.random.default_rng(5)
    shape = (STEPS, len(STATIONS))
    weather = 60 + 50 * np.sin(np.arange(STEPS) / 30)[:, None]
    dust = np.round(weather + np.array([0.0, 10.0, 20.0, 30.0])).astype(int)
    dust = np.abs(dust + random.integers(-9, 10, shape))
    lost = random.random(shape) < 0.1
    hidden = ~lost & (random.random(shape) < 0.1)
    _write(folder / "pm25_ground.txt", dust, lost)
    _write(folder / "pm25_missing.txt", dust, lost | hidden)
    lines = ["sensor_id,latitude,longitude"]
    lines += [f"{s},{40 + 0.05 * i:.6f},{116 + 0.02 * i * i:.6f}" for i, s in enumerate(STATIONS)]
    (folder / "pm25_latlng.txt").write_text("\n".join(lines) + "\n")


def _write(path: Path, dust: np.ndarray, lost: np.ndarray) -> None:
    lines = [",".join(["datetime", *STATIONS])]
    for step in range(STEPS):
        hour = np.datetime64("2014-05-01T01:00:00") + np.timedelta64(step, "h")
        fields = ["" if gone else str(v) for v, gone in zip(dust[step], lost[step], strict=True)]
        lines.append(",".join([str(hour).replace("-", "/").replace("T", " "), *fields]))
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    make_sample(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "sample/raw")
