"""Forecasting traffic on the built-in freeway network: no download, no file of one's own.

The speeds are those of a simulated network with rush hours, incidents, ramps and failing
detectors. Jams grow against the traffic, from detector to detector, so a model that looks along
the road sees them coming. The errors are measured on all the windows of the last fifth of the
weeks, beside simple forecasts on the same windows. A run of the full length is

    pyg-stmamba train --dataset freeway
"""

from pathlib import Path

import torch

from pyg_stmamba.datasets import FreewayTraffic
from pyg_stmamba.models import STMamba
from pyg_stmamba.training import fit, score_table

ROOT = Path(__file__).parents[1] / "datasets" / "freeway_traffic"


def main(root: Path = ROOT, num_weeks: int = 2, epochs: int = 2, channels: int = 16) -> dict:
    dataset = FreewayTraffic(root, num_weeks=num_weeks)
    graph, protocol = dataset[0], dataset.protocol
    print(graph)

    torch.manual_seed(0)
    model = STMamba(**STMamba.data_arguments(graph, protocol), channels=channels, num_layers=1)
    result = fit(model, graph, protocol, max_epochs=epochs, batch_size=16, learning_rate=5e-3)
    test, baselines = result.metrics["test"], result.metrics["baselines"]
    print(score_table(test, baselines, graph.step_seconds, "STMamba"))

    best = min(scores["average"]["mae"] for scores in baselines.values())
    share = test["average"]["mae"] / best - 1
    side = "below" if share < 0 else "above"
    print(f"STMamba's average error is {abs(share):.1%} {side} the best baseline's")
    return result.metrics


if __name__ == "__main__":
    main()
