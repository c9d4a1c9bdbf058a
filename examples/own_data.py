"""One's own data: arrays, one .npz file, a trained model, a forecast.

Here the arrays are invented. Along a river stand gauges that write down the level every hour. Rain
comes as it likes at the first gauge, and what one gauge shows, the next shows two hours later. So
the levels of the next two hours are known at all gauges but the first, to whoever looks upstream:
the noise of the gauges alone remains. Whoever looks at each gauge alone has to guess the rain.

The file is what ``pyg-stmamba train --dataset river.npz`` reads as well.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from pyg_stmamba.data import Protocol, load_npz
from pyg_stmamba.models import STMamba
from pyg_stmamba.training import fit, load_forecaster, predict, score_table

TRAVEL_HOURS = 2
NOISE = 0.05  # metres


def write_river(path: Path, num_gauges: int = 8, num_hours: int = 1500) -> None:
    random = np.random.default_rng(0)
    rain = random.normal(size=num_hours + TRAVEL_HOURS * num_gauges)
    level = np.zeros_like(rain)
    for hour in range(1, len(rain)):
        level[hour] = 0.8 * level[hour - 1] + 0.6 * rain[hour]
    starts = TRAVEL_HOURS * np.arange(num_gauges)[::-1]
    values = 3 + np.stack([level[start : start + num_hours] for start in starts], axis=1)
    values += random.normal(scale=NOISE, size=values.shape)
    values[random.random(values.shape) < 0.01] = np.nan  # missing
    upstream = np.arange(num_gauges - 1)
    np.savez(
        path,
        values=values,  # [T, N]
        timestamps=np.datetime64("2026-01-01T00", "h") + np.arange(num_hours),
        edge_index=np.stack([upstream, upstream + 1]),  # source to target
        node_ids=[f"gauge {number}" for number in range(num_gauges)],
        channels=["level"],
        units=["m"],
    )


def run(folder: Path, epochs: int, channels: int) -> dict[str, float]:
    write_river(folder / "river.npz")
    graph = load_npz(folder / "river.npz")
    print(graph)
    protocol = Protocol(window=12, horizon=2, report_steps=(1, 2))

    torch.manual_seed(0)
    model = STMamba(**STMamba.data_arguments(graph, protocol), channels=channels, num_layers=1)
    result = fit(model, graph, protocol, out=folder / "run", max_epochs=epochs, batch_size=32)
    test, baselines = result.metrics["test"], result.metrics["baselines"]
    print(score_table(test, baselines, graph.step_seconds, "STMamba"))

    # A checkpoint and the series up to now are all that a forecast needs.
    forecasts = predict(load_forecaster(folder / "run"), graph)
    times = forecasts.timestamps[0].astype("datetime64[s]").astype("datetime64[m]")
    for node, values in zip(forecasts.node_ids, forecasts.values[0, :, :, 0]):
        print(node, *(f"{time}: {value:.2f} m" for time, value in zip(times, values)), sep="  ")
    return {
        "mae": test["average"]["mae"],
        "best baseline": min(scores["average"]["mae"] for scores in baselines.values()),
        "noise of the gauges": NOISE * (2 / np.pi) ** 0.5,
        "hours ahead": (forecasts.timestamps[0, -1] - graph.timestamps[0, -1].item()) / 3600,
    }


def main(epochs: int = 20, channels: int = 32) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        return run(Path(folder), epochs, channels)


if __name__ == "__main__":
    main()
