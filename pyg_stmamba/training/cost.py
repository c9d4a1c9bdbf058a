from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch_geometric.data import Data
from tqdm import tqdm

from pyg_stmamba.nn.losses import masked_mae

from .run_module import parameter_groups


class Cost(NamedTuple):
    r"""What a forecaster costs.

    Args:
        parameters (int): Number of learnable parameters.
        train_seconds (float): Seconds of training for 1,000 windows.
        inference_milliseconds (float): Milliseconds of a forecast for one window.
    """

    parameters: int
    train_seconds: float
    inference_milliseconds: float


def measure_costs(
    models: Sequence[nn.Module], batch: Data, repeats: int = 5, progress: bool = False
) -> list[Cost]:
    r"""Measures forecasters side by side on the same batch of windows, on the CPU.

    They run in turn, over and over, so that what else the machine does falls on all alike. Each
    runs twice in its turn, and the second run counts: the first finds the caches as another model
    has left them. The median of the rounds is taken. The models are left as they are.

    Args:
        models (Sequence[torch.nn.Module]): The forecasters.
        batch (Data): Windows as :func:`~pyg_stmamba.data.collate_shared` makes them.
        repeats (int, optional): Number of rounds. (default: :obj:`5`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`False`)
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats} must be at least 1")
    windows = batch.y.size(1)
    inference = _medians([_forecast(model, batch) for model in models], repeats, progress)
    training = _medians([training_step(model, batch) for model in models], repeats, progress)
    return [
        Cost(
            sum(parameter.numel() for parameter in model.parameters()),
            1000 * seconds_of_step / windows,
            1000 * seconds_of_forecast / windows,
        )
        for model, seconds_of_step, seconds_of_forecast in zip(models, training, inference)
    ]


def _forecast(model: nn.Module, batch: Data) -> Callable[[], object]:
    model = copy.deepcopy(model).eval()

    @torch.no_grad()
    def run() -> object:
        return model(batch)

    return run


def training_step(model: nn.Module, batch: Data) -> Callable[[], object]:
    r"""Returns what trains a copy of a forecaster on one batch.

    Args:
        model (torch.nn.Module): The forecaster.
        batch (Data): Windows with their targets.
    """
    model = copy.deepcopy(model).train()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-4), fused=True)

    def run() -> None:
        optimizer.zero_grad()
        masked_mae(model(batch), batch.y, batch.y_mask).backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()

    return run


def _medians(runs: Sequence[Callable[[], object]], repeats: int, progress: bool) -> list[float]:
    taken: list[list[float]] = [[] for _ in runs]
    for _ in tqdm(range(repeats), desc="costs", unit="round", disable=not progress, leave=False):
        for run, times in zip(runs, taken):
            run()
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in taken]
