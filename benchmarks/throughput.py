r"""Training windows a second of STMamba on the shapes of METR-LA-29.

Two blocks of 64 channels, of graph attention or of attention among all nodes, each with Mamba over
time; 29 sensors, 12 steps in and 12 ahead, batches of 64. A step is all that training does: make
the batch, forward, masked error, backward, clip, AdamW, in float32 and in bfloat16 as
fit(precision="bf16-mixed") trains. The values are drawn, unless a data set is given.

    python benchmarks/throughput.py
    python benchmarks/throughput.py --dataset metr-la --root datasets/metr_la
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch_geometric.data import Data

from pyg_stmamba.benchmark import describe_machine
from pyg_stmamba.benchmark.report import checked_device
from pyg_stmamba.benchmark.shapes import random_graph
from pyg_stmamba.benchmark.timing import interleaved_medians
from pyg_stmamba.data import Protocol, TemporalGraph, Windows, collate_shared
from pyg_stmamba.datasets import open_dataset
from pyg_stmamba.models import STMamba
from pyg_stmamba.training import masked_mae
from pyg_stmamba.training.forecast_data import fit_scaler, windows_of
from pyg_stmamba.training.run_module import parameter_groups

SPATIAL = {"graph attention": "gat", "attention over nodes": "attention"}
PRECISIONS = {"float32": False, "bfloat16": True}
WARM_UP = 3


def drawn_series(nodes: int = 29, edges: int = 120, days: int = 7) -> TemporalGraph:
    r"""Draws speeds that rise and fall with the day, every 5 minutes."""
    rng = np.random.default_rng(0)
    steps = np.arange(288 * days)
    daily = 10 * np.sin(2 * np.pi * steps / 288)[:, None]
    return TemporalGraph.from_arrays(
        50 + daily + rng.normal(size=(len(steps), nodes)),
        timestamps=np.datetime64("2012-03-01T00:00", "s") + 300 * steps,
        edge_index=random_graph(nodes, edges).numpy(),
    )


def batches(windows: Windows, size: int) -> Iterator[Data]:
    loader: DataLoader = DataLoader(
        windows, size, shuffle=True, drop_last=True, collate_fn=collate_shared
    )
    while True:
        yield from loader


def training_step(
    graph: TemporalGraph,
    protocol: Protocol,
    spatial: str,
    channels: int,
    size: int,
    device: str,
    narrow: bool,
) -> Callable[[], None]:
    r"""Returns what trains a new model on one more batch each time it is called."""
    torch.manual_seed(0)
    options = STMamba.data_arguments(graph, protocol)
    model = STMamba(**options, channels=channels, num_layers=2, spatial=spatial)
    windows = windows_of(graph, protocol)["train"]
    fit_scaler(model, windows, protocol)
    model.to(device).train()
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-4), lr=1e-3)
    coming = batches(windows, size)

    def step() -> None:
        batch = next(coming).to(device)
        optimizer.zero_grad()
        with torch.autocast(batch.x.device.type, torch.bfloat16, enabled=narrow):
            loss = masked_mae(model(batch), batch.y, batch.y_mask)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()

    return step


def main(
    arguments: Sequence[str] | None = None, graph: TemporalGraph | None = None
) -> dict[tuple[str, str], float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", help="A data set instead of drawn values.")
    parser.add_argument("--root", type=Path, help="Its folder.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=20)
    given = parser.parse_args(arguments)
    device = checked_device(given.device)
    protocol = Protocol()
    if given.dataset is not None:
        dataset = open_dataset(given.dataset, given.root)
        graph, protocol = dataset[0], dataset.protocol
    graph = graph or drawn_series()

    kinds = {
        (name, precision): training_step(
            graph, protocol, spatial, given.channels, given.batch_size, given.device, narrow
        )
        for name, spatial in SPATIAL.items()
        for precision, narrow in PRECISIONS.items()
    }
    steps = list(kinds.values())
    for step in steps * WARM_UP:
        step()
    medians = interleaved_medians(steps, device, given.repeats)
    rates = {kind: given.batch_size / seconds for kind, seconds in zip(kinds, medians)}
    print(describe_machine(device))
    print(f"\n{graph.num_nodes} nodes, {graph.num_edges} edges, batches of {given.batch_size}\n")
    print("| over the nodes | precision | training windows a second |\n|---|---|---|")
    for (name, precision), rate in rates.items():
        print(f"| {name} | {precision} | {rate:.0f} |")
    return rates


if __name__ == "__main__":
    main()
