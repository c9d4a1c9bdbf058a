import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyg_stmamba.visualization import write_report

DAY = 86400


def made_up_run(
    folder: Path,
    nodes: int = 12,
    horizon: int = 12,
    samples: int = 400,
    stride: int = 4,
    step_seconds: int = 300,
    window: int = 12,
    epochs: int = 14,
    seed: int = 0,
) -> Path:
    """A run's folder as a training leaves it: traffic speeds with rush hours and missing data."""
    random = np.random.default_rng(seed)
    start = 1338508800 + 3 * 3600  # 2012-06-01 03:00
    starts = start + np.arange(samples) * stride * step_seconds
    times = starts[:, None] + (window + np.arange(horizon)) * step_seconds
    hours = times / 3600 % 24
    rush = np.exp(-((hours - 8) ** 2) / 2) + 1.3 * np.exp(-((hours - 17) ** 2) / 3)
    strength = random.uniform(2, 38, nodes)
    target = 64 - strength[None, :, None] * rush[:, None, :]
    noise = {}
    for instant in np.unique(times):
        noise[instant] = random.normal(0, 1.5, nodes)
    target = target + np.stack([[noise[t] for t in row] for row in times]).transpose(0, 2, 1)
    spread = 0.4 + 0.25 * np.sqrt(np.arange(1, horizon + 1)) * (strength[:, None] / 12)
    prediction = target + random.normal(0, 1, target.shape) * spread
    mask = np.ones(target.shape, dtype=bool)
    silent = (times // (4 * 3600)) % 11 == 5
    mask &= ~np.broadcast_to(silent[:, None], mask.shape)
    target = np.where(mask, target, 0.0)
    horizon_mae = np.abs(prediction - target).mean((0, 1), where=mask)
    day_error = 1.5 + 2.5 * np.exp(-((np.arange(288) / 12 - 17) ** 2) / 4)
    place = np.cumsum(random.normal(0, 1, (nodes, 2)), 0)
    chain = np.arange(nodes - 1)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "forecasts.npz",
        prediction=prediction.astype("float32"),
        target=target.astype("float32"),
        mask=mask,
        start_timestamps=starts,
        step_seconds=step_seconds,
        window=window,
        node_ids=np.array([f"77{3860 + 7 * n}" for n in range(nodes)]),
        positions=place,
        edge_index=np.stack([np.r_[chain, 0], np.r_[chain + 1, 0]]),
        channel="speed",
        unit="mph",
        time_of_day_mae=day_error + random.normal(0, 0.08, 288),
        node_mae=np.abs(prediction - target).mean((0, 2), where=mask),
        horizon_mae=horizon_mae,
        baseline_last_value_horizon_mae=horizon_mae * 1.1 + np.arange(horizon) * 0.2,
        baseline_historical_average_horizon_mae=np.full(horizon, 3.7),
        baseline_linear_autoregression_horizon_mae=horizon_mae * 1.15,
    )

    def scores(factor: float) -> dict:
        def row(mae: float) -> dict:
            return {"mae": factor * mae, "rmse": 1.9 * factor * mae, "mape": 0.021 * factor * mae}

        steps = [step for step in (3, 6, 12) if step <= horizon]
        return {
            "horizons": {str(step): row(float(horizon_mae[step - 1])) for step in steps},
            "average": row(float(horizon_mae.mean())),
        }

    metrics = {
        "test": scores(1.0),
        "baselines": {"last_value": scores(1.31), "historical_average": scores(1.72)},
        "parameters": 131337,
        "epochs": epochs,
        "seconds": 431.7,
        "device": "cpu",
        "kernels": {"selective_scan": "torch", "graph_attention": "csr"},
        "windows": {"train": 23974, "val": 3425, "test": 6850},
        "seed": 7,
        "versions": {"pyg_stmamba": "0.1.0", "torch": "2.13.0"},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        errors = ["train_loss", "val_mae", "val_rmse", "val_mape"]
        writer.writerow(["epoch", *errors, "learning_rate", "seconds"])
        for epoch in range(epochs):
            loss = 2.2 + 3 * np.exp(-epoch / 3)
            error = 2.6 + 2.4 * np.exp(-epoch / 3) + 0.02 * max(0, epoch - 9)
            rate = 1e-3 * 0.5 ** (epoch // 4)
            writer.writerow([epoch, loss, error, 2 * error, error / 40, rate, 31.2])
    (folder / "config.yaml").write_text("data: metr-la\nmodel:\n  channels: 64\nseed: 7\n")
    return folder


@pytest.fixture(scope="session")
def usual_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every piece and its report, written once."""
    folder = made_up_run(tmp_path_factory.mktemp("usual") / "run", samples=60)
    write_report(folder)
    return folder


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Makes run folders of any size; ``change`` rewrites ``forecasts.npz`` before use."""

    def make(change: Callable[[dict], None] | None = None, **sizes: int) -> Path:
        folder = made_up_run(tmp_path / "run", **sizes)
        if change is not None:
            with np.load(folder / "forecasts.npz") as file:
                stored = dict(file)
            change(stored)
            np.savez(folder / "forecasts.npz", **stored)
        return folder

    return make
