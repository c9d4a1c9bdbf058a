"""METR-LA from its upstream files, measured as the papers do.

Put ``metr-la.h5``, ``adj_mx.pkl`` and ``graph_sensor_locations.csv`` into ``ROOT/raw`` (or let
them be downloaded), all 207 sensors or a part of them:

    export OMP_NUM_THREADS=1
    python examples/metr_la_from_raw_files.py --root ROOT --minutes 36 --seed 0 --out runs/0 &
    python examples/metr_la_from_raw_files.py --root ROOT --minutes 36 --seed 1 --out runs/1 &
    wait; pyg-stmamba evaluate runs/0 runs/1 --dataset metr-la --root ROOT

The protocol is the published one: 12 steps of 5 minutes in, 12 ahead, windows first, then split
70/10/20 in time; missing values (zeros) count in mean and standard deviation and are left out of
the errors, which are those of the whole test set at 15, 30 and 60 minutes. The last command
measures the mean of the forecasts of two runs, one on each of two cores. Without a root the
few invented sensors of the repository's sample show that everything runs.
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from pyg_stmamba.datasets import METRLA
from pyg_stmamba.models import STMamba
from pyg_stmamba.training import fit, score_table

SAMPLE = Path(__file__).parents[1] / "datasets" / "metr_la" / "sample"


def run(
    root: Path, minutes: float, epochs: int, channels: int, seed: int, out: Path | None
) -> dict:
    dataset = METRLA(root)
    graph, protocol = dataset[0], dataset.protocol
    missing = 1 - graph.x_mask.float().mean()
    print(f"{graph.num_nodes} sensors, {graph.num_steps} steps, {missing:.2%} missing")

    torch.manual_seed(seed)
    model = STMamba(
        **STMamba.data_arguments(graph, protocol),
        channels=channels,
        spatial=["gat", "attention"],
        d_state=4,
        expand=1,
        readout_channels=6 * channels,
        readout_layers=3,
        # What each sensor shows at a time of the week says more than an embedding of that time,
        # and cannot be learnt by heart.
        weekly_profile=True,
        time_embedding=False,
        dropout=0.15,
        input_dropout=0.1,
    )
    result = fit(
        model,
        graph,
        protocol,
        out=out,
        seed=seed,
        max_time=minutes,
        max_epochs=epochs,
        patience=None,
        batch_size=32,
        learning_rate=5e-3,
        warmup=0.01,
        weight_decay=1e-2,
        ema_decay=0.999,
    )
    windows = result.metrics["windows"]
    print("windows:", ", ".join(f"{count} {split}" for split, count in windows.items()))
    test, baselines = result.metrics["test"], result.metrics["baselines"]
    print(score_table(test, baselines, graph.step_seconds, "STMamba"))
    return result.metrics


def main(arguments: Sequence[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="folder of the data set, with the files in raw/")
    parser.add_argument("--minutes", type=float, default=0.5, help="training time")
    parser.add_argument("--epochs", type=int, default=100, help="at most this many epochs")
    parser.add_argument("--channels", type=int, default=32, help="width of the model")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, order and dropout")
    parser.add_argument("--out", type=Path, help="folder of the run, to evaluate several together")
    given = parser.parse_args(arguments)
    options = (given.minutes, given.epochs, given.channels, given.seed, given.out)
    if given.root is not None:
        return run(given.root, *options)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(SAMPLE, folder, dirs_exist_ok=True)
        return run(Path(folder), *options)


if __name__ == "__main__":
    main()
