from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from pyg_stmamba.data import Protocol, TemporalGraph, Windows, collate_shared
from pyg_stmamba.models import HistoricalAverage, LastValue, LinearAutoregression

from .forecast_data import windows_of
from .metrics import HorizonMetrics

Baseline = LastValue | HistoricalAverage | LinearAutoregression

BASELINES: dict[str, Callable[[TemporalGraph, Protocol], Baseline]] = {
    # Where zero stands for a missing value, the published rows forecast that zero.
    "last_value": lambda g, p: LastValue(
        p.horizon, p.target_channels, observed_only=g.null_value is None
    ),
    "historical_average": lambda _, p: HistoricalAverage(p.horizon, p.target_channels),
    "linear_autoregression": lambda _, p: LinearAutoregression(
        p.window, p.horizon, p.target_channels
    ),
    "linear_autoregression_shared": lambda _, p: LinearAutoregression(
        p.window, p.horizon, p.target_channels, shared=True
    ),
}


class Evaluation(NamedTuple):
    r"""What :func:`evaluate` returns.

    Args:
        test (dict): Masked errors :obj:`{"horizons": {"3": {"mae", "rmse", "mape"}, ...},
            "average": {...}}` of the model.
        baselines (dict): The same for each baseline.
        windows (dict[str, int]): Number of windows of each split.
        arrays (dict[str, numpy.ndarray]): Forecasts, truth and errors by node, time of day and
            step ahead, for pictures.
    """

    test: dict[str, Any]
    baselines: dict[str, dict[str, Any]]
    windows: dict[str, int]
    arrays: dict[str, np.ndarray]


def evaluate(
    model: nn.Module,
    graph: TemporalGraph,
    protocol: Protocol,
    *,
    split: str = "test",
    baselines: bool = True,
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    max_windows: int = 2000,
    progress: bool = False,
) -> Evaluation:
    r"""Measures a forecaster and the baselines on every window of a split, in original units.

    Errors are summed over the whole split and divided once; nothing is averaged over batches.
    The baselines are fitted on the training windows.

    Args:
        model (torch.nn.Module): The forecaster.
        graph (TemporalGraph): The series.
        protocol (Protocol): Lengths, splits and reported steps.
        split (str, optional): :obj:`"train"`, :obj:`"val"` or :obj:`"test"`.
            (default: :obj:`"test"`)
        baselines (bool, optional): Whether to measure the baselines too. (default: :obj:`True`)
        batch_size (int, optional): Windows a batch. (default: :obj:`64`)
        device (str or torch.device, optional): Where the model runs. (default: :obj:`"cpu"`)
        max_windows (int, optional): The returned forecasts are thinned out to at most this
            many windows; the errors are those of all. (default: :obj:`2000`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`False`)
    """
    all_windows = windows_of(graph, protocol)
    if split not in all_windows:
        choices = ", ".join(repr(name) for name in all_windows)
        raise ValueError(f"split={split!r} is unknown; choose from {choices}")
    windows = all_windows[split]
    train = all_windows["train"]
    rivals = {
        name: make(graph, protocol).fit(train) for name, make in BASELINES.items() if baselines
    }

    device = torch.device(device)
    was_training = model.training
    model.to(device).eval()
    scores = {name: HorizonMetrics(protocol.horizon, protocol.report_steps) for name in rivals}
    score = HorizonMetrics(protocol.horizon, protocol.report_steps)
    profile = _Profile(graph)
    kept = _Kept(len(windows), max_windows)
    loader = DataLoader(windows, batch_size, collate_fn=collate_shared, generator=torch.Generator())
    with torch.no_grad():
        for batch in tqdm(loader, desc=f"evaluate ({split})", disable=not progress, leave=False):
            for name, rival in rivals.items():
                scores[name].update(rival(batch), batch.y, batch.y_mask)
            prediction = model(batch.to(device)).float().cpu()
            batch = batch.to("cpu")
            score.update(prediction, batch.y, batch.y_mask)
            profile.update(prediction, batch.y, batch.y_mask, batch.get("y_time_of_day"))
            kept.update(prediction[..., 0], batch.y[..., 0], batch.y_mask[..., 0])
    model.train(was_training)

    return Evaluation(
        score.compute(),
        {name: value.compute() for name, value in scores.items()},
        {name: len(value) for name, value in all_windows.items()},
        {
            **kept.arrays(),
            **profile.arrays(),
            "horizon_mae": score.mae_by_step().numpy(),
            **{
                f"baseline_{name}_horizon_mae": value.mae_by_step().numpy()
                for name, value in scores.items()
            },
            **_facts(graph, protocol, windows, kept.chosen),
        },
    )


class _Kept:
    r"""Keeps the forecasts of some windows, evenly spread."""

    def __init__(self, num_windows: int, max_windows: int) -> None:
        count = min(num_windows, max_windows)
        self.chosen = torch.linspace(0, max(num_windows - 1, 0), count).round().long()
        self._seen = 0
        self._kept: list[tuple[Tensor, ...]] = []

    def update(self, *values: Tensor) -> None:
        stop = self._seen + values[0].size(1)
        here = self.chosen[(self.chosen >= self._seen) & (self.chosen < stop)] - self._seen
        self._kept.append(tuple(value[:, here].transpose(0, 1) for value in values))
        self._seen = stop

    def arrays(self) -> dict[str, np.ndarray]:
        prediction, target, mask = (torch.cat(values).numpy() for values in zip(*self._kept))
        return {"prediction": prediction, "target": target, "mask": mask}


class _Profile:
    r"""Absolute errors by node and by time of day."""

    def __init__(self, graph: TemporalGraph) -> None:
        self._node = torch.zeros(2, graph.num_nodes, dtype=torch.double)
        self._day = torch.zeros(2, graph.steps_per_day or 0, dtype=torch.double)

    def update(
        self, prediction: Tensor, target: Tensor, mask: Tensor, time_of_day: Tensor | None
    ) -> None:
        error = (prediction - target).where(mask, 0.0).abs().double()
        both = torch.stack([error, mask.double()]).sum(-1)
        self._node += both.sum((2, 3))
        steps_per_day = self._day.size(1)
        if time_of_day is not None and steps_per_day:
            slot = (time_of_day * steps_per_day).round().long() % steps_per_day
            self._day.index_add_(1, slot.flatten(), both.sum(1).flatten(1))

    def arrays(self) -> dict[str, np.ndarray]:
        return {
            "node_mae": (self._node[0] / self._node[1]).numpy(),
            "time_of_day_mae": (self._day[0] / self._day[1]).numpy(),
        }


def _facts(
    graph: TemporalGraph, protocol: Protocol, windows: Windows, chosen: Tensor
) -> dict[str, np.ndarray]:
    channel = protocol.target_channels[0]
    clock = graph.timestamps
    times = torch.zeros(0).long() if clock is None else clock[0, windows.starts[chosen]]
    positions = torch.zeros(0, 2) if graph.pos is None else graph.pos
    return {
        "start_timestamps": times.numpy(),
        "step_seconds": np.array(graph.step_seconds or 0),
        "window": np.array(protocol.window),
        "node_ids": np.array(graph.node_id),
        "positions": positions.numpy(),
        "edge_index": graph.edge_index.numpy(),
        "channel": np.array(graph.channel_names[channel]),
        "unit": np.array(graph.units[channel]),
    }
