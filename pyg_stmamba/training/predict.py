from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from pyg_stmamba.data import TemporalGraph, Windows, collate_shared
from pyg_stmamba.data.whole_file import written_whole

from .checkpoint import Forecaster, check_fits

STARTS = ("last", "all")


class Forecasts(NamedTuple):
    r"""Forecasts of the steps after one or more windows.

    Args:
        values (numpy.ndarray): :obj:`[S, N, H, C]` in original units.
        timestamps (numpy.ndarray): Seconds since the epoch of each forecast step,
            :obj:`[S, H]`; the numbers of the steps where the series has no timestamps.
        node_ids (list[str]): The nodes.
        channels (list[str]): The forecast channels.
        units (list[str]): Their units.
        has_time (bool): Whether :obj:`timestamps` are times.
    """

    values: np.ndarray
    timestamps: np.ndarray
    node_ids: list[str]
    channels: list[str]
    units: list[str]
    has_time: bool

    def save(self, path: str | Path) -> tuple[Path, Path]:
        r"""Writes :obj:`path.npz` and :obj:`path.csv`, and returns their names. The table has one
        row for each window, step ahead and node."""
        path = Path(path)
        if path.suffix in (".npz", ".csv"):
            path = path.with_suffix("")
        arrays, table = (path.with_name(path.name + suffix) for suffix in (".npz", ".csv"))
        with written_whole(arrays) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                prediction=self.values,
                timestamps=self.timestamps,
                node_ids=np.array(self.node_ids),
                channels=np.array(self.channels),
                units=np.array(self.units),
            )
        with (
            written_whole(table) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["window", "step", "timestamp", "node_id", *self.channels])
            writer.writerows(self._rows())
        return arrays, table

    def _rows(self) -> Iterator[list]:
        times = self.timestamps
        labels = times.astype("datetime64[s]").astype(str) if self.has_time else times.astype(str)
        for window, values in enumerate(self.values):
            for step in range(values.shape[1]):
                label = labels[window, step]
                for node, node_id in enumerate(self.node_ids):
                    yield [window, step + 1, label, node_id, *values[node, step].tolist()]


def predict(
    forecaster: Forecaster,
    graph: TemporalGraph,
    *,
    starts: str = "last",
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Forecasts:
    r"""Forecasts what follows; no targets are needed.

    Args:
        forecaster (Forecaster): What :func:`load_forecaster` returns.
        graph (TemporalGraph): The series up to now.
        starts (str, optional): :obj:`"last"` forecasts after the last window only,
            :obj:`"all"` after every window of the series. (default: :obj:`"last"`)
        batch_size (int, optional): Windows a batch. (default: :obj:`64`)
        device (str or torch.device, optional): Where the model runs. (default: :obj:`"cpu"`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`False`)
    """
    if starts not in STARTS:
        raise ValueError(f"starts={starts!r} is unknown; choose from 'last', 'all'")
    check_fits(forecaster, graph)
    model, protocol, _ = forecaster
    last = graph.num_steps - protocol.window
    chosen = torch.arange(0 if starts == "all" else last, last + 1)
    windows = Windows(
        graph,
        protocol.window,
        protocol.horizon,
        starts=chosen,
        target_channels=protocol.target_channels,
        targets=False,
    )

    device = torch.device(device)
    model.to(device).eval()
    loader = DataLoader(windows, batch_size, collate_fn=collate_shared, generator=torch.Generator())
    with torch.no_grad():
        values = [
            model(batch.to(device)).float().cpu().transpose(0, 1)
            for batch in tqdm(loader, desc="predict", disable=not progress, leave=False)
        ]
    channels = protocol.target_channels
    return Forecasts(
        torch.cat(values).numpy(),
        _times(graph, chosen + protocol.window - 1, protocol.horizon).numpy(),
        graph.node_id,
        [graph.channel_names[channel] for channel in channels],
        [graph.units[channel] for channel in channels],
        graph.step_seconds is not None,
    )


def _times(graph: TemporalGraph, last_seen: Tensor, horizon: int) -> Tensor:
    r"""The times of the steps after :obj:`last_seen`, or their numbers."""
    ahead = torch.arange(1, horizon + 1)
    if graph.timestamps is None or graph.step_seconds is None:
        return last_seen.unsqueeze(1) + ahead
    return graph.timestamps[0, last_seen].unsqueeze(1) + ahead * graph.step_seconds
