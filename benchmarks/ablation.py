r"""What each phase of STMamba is worth: the whole model, without the phase over nodes, without the
phase over time, and with attention in place of Mamba.

Every variant is trained for the same number of epochs and again for the same time, that which the
whole model needs for those epochs, with several seeds. Prints a Markdown table of the average
masked MAE on the test windows, mean and standard deviation over the seeds.

    python benchmarks/ablation.py --dataset freeway --root datasets/freeway_traffic --epochs 4
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch

from pyg_stmamba.datasets import open_dataset
from pyg_stmamba.models import STMamba
from pyg_stmamba.training import fit
from pyg_stmamba.training.run_folder import versions

VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "no spatial phase": {"spatial": None},
    "no temporal phase": {"temporal": None},
    "attention instead of Mamba": {"temporal": "attention"},
}


def run(
    arguments: argparse.Namespace, variant: str, seed: int, minutes: float | None
) -> dict[str, float]:
    dataset = open_dataset(arguments.dataset, arguments.root)
    graph, protocol = dataset[0], dataset.protocol
    torch.manual_seed(seed)
    options = STMamba.data_arguments(graph, protocol) | {
        name: getattr(arguments, name) for name in ("channels", "num_layers", "d_state", "expand")
    }
    model = STMamba(**options | VARIANTS[variant])
    result = fit(
        model,
        graph,
        protocol,
        max_epochs=arguments.epochs if minutes is None else 1000,
        max_time=minutes,
        patience=None,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        ema_decay=0.999,
        seed=seed,
        baselines=False,
        progress=False,
    )
    metrics = result.metrics
    return {
        "mae": metrics["test"]["average"]["mae"],
        "epochs": metrics["epochs"],
        "seconds": metrics["seconds"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="freeway")
    parser.add_argument("--root", type=Path, default=Path("datasets/freeway_traffic"))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--num-layers", type=int, default=1)
    parser.add_argument("--d-state", type=int, default=8)
    parser.add_argument("--expand", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="Where to keep the rows as JSON.")
    arguments = parser.parse_args()

    rows: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        whole = run(arguments, "full", seed, None)
        # The whole model at equal epochs is the whole model at equal time.
        rows += [{"variant": "full", "seed": seed, "equal": e, **whole} for e in ("epochs", "time")]
        for variant in list(VARIANTS)[1:]:
            for equal, minutes in (("epochs", None), ("time", whole["seconds"] / 60)):
                result = run(arguments, variant, seed, minutes)
                rows.append({"variant": variant, "seed": seed, "equal": equal, **result})
                print(rows[-1], flush=True)

    print(f"\n{arguments.dataset}, {vars(arguments)}, {versions()}\n")
    print("| variant | MAE, equal epochs | MAE, equal time | epochs in equal time |")
    print("|---|---|---|---|")
    for variant in VARIANTS:
        cells = []
        for equal in ("epochs", "time"):
            errors = [r["mae"] for r in rows if r["variant"] == variant and r["equal"] == equal]
            spread = f" ± {statistics.stdev(errors):.3f}" if len(errors) > 1 else ""
            cells.append(f"{statistics.mean(errors):.3f}{spread}")
        same_time = [r for r in rows if r["variant"] == variant and r["equal"] == "time"]
        cells.append(f"{statistics.mean(r['epochs'] for r in same_time):.1f}")
        print(f"| {variant} | {' | '.join(cells)} |")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
