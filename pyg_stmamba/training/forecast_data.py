from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, Subset

from pyg_stmamba.data import Protocol, TemporalGraph, Windows, collate_shared, split_windows

from .run_data import RunData

SPLITS = ("train", "val", "test")


def windows_of(graph: TemporalGraph, protocol: Protocol) -> dict[str, Windows]:
    r"""Cuts the windows of the training, validation and test set, in the order of time."""
    starts = split_windows(
        graph.num_steps, protocol.window, protocol.horizon, protocol.split, protocol.order
    )
    return {
        split: Windows(
            graph,
            protocol.window,
            protocol.horizon,
            starts=starts[split],
            target_channels=protocol.target_channels,
        )
        for split in SPLITS
    }


def fit_scaler(model: nn.Module, train: Windows, protocol: Protocol) -> None:
    r"""Fits :obj:`model.scaler`, if there is one, on the inputs of the training windows: a step
    counts once for each window that reads it, as in the published protocol."""
    scaler: Any = getattr(model, "scaler", None)
    if scaler is None:
        return
    mask = None if protocol.scale_missing else train.graph.x_mask
    scaler.fit(train.graph.x, mask, train.step_counts())


def fit_profile(model: nn.Module, train: Windows) -> None:
    r"""Fits :obj:`model.weekly_profile`, if there is one, on the training windows, and gives
    these the profile without the week that each lies in."""
    profile: Any = getattr(model, "weekly_profile", None)
    if profile is not None:
        train.profile = profile.fit(train).leave_one_week_out(train)


def fit_spectral_time(model: nn.Module, train: Windows) -> None:
    r"""Fits :obj:`model.spectral_time`, if there is one, on the steps that the training windows
    read; its unit of time is the step.

    Raises:
        ValueError: If they have no dominant frequency.
    """
    spectral: Any = getattr(model, "spectral_time", None)
    if spectral is None:
        return
    read = train.step_counts() > 0
    steps = slice(int(read.nonzero()[0]), int(read.nonzero()[-1]) + 1)
    values, mask = train.graph.values[:, steps], train.graph.mask[:, steps]
    series, observed = (v.transpose(0, 1).flatten(1) for v in (values, mask))
    try:
        spectral.fit(series, observed_mask=observed)
    except ValueError as error:
        raise ValueError(
            f"{error}; a model with time_embedding='none' needs no frequencies"
        ) from error


class EpochOrder(Sampler[int]):
    r"""Shuffles by seed and number of the epoch alone, so that any epoch can be repeated.

    Args:
        length (int): Number of samples.
        seed (int): The seed of the run.
        rank (int, optional): Which of the processes this is. (default: :obj:`0`)
        world_size (int, optional): Number of processes; each takes an equal share.
            (default: :obj:`1`)
        limit (int, optional): Number of samples of an epoch, other ones each time.
            (default: :obj:`None`, all)
    """

    def __init__(
        self,
        length: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        limit: int | None = None,
    ) -> None:
        self.length, self.seed = length, seed
        self.count = length if limit is None else min(limit, length)
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def order(self) -> Tensor:
        generator = torch.Generator().manual_seed(random_seed(self.seed, self.epoch))
        order = torch.randperm(self.length, generator=generator)
        # An equal number on each process: one that ends early would leave the others waiting.
        return order[self.rank : self.count : self.world_size][: len(self)]

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())

    def __len__(self) -> int:
        return self.count // self.world_size


class ForecastData(RunData):
    r"""The training, validation and test windows of one series on one graph.

    Batches are what :func:`~pyg_stmamba.data.collate_shared` makes, :obj:`[N, B, W, C]` on one
    shared graph. No window is dropped, none is repeated.

    Args:
        graph (TemporalGraph): The series.
        protocol (Protocol): Lengths of windows and the way they are split.
        batch_size (int, optional): Windows a batch. (default: :obj:`64`)
        seed (int, optional): Seed of the order of training windows. (default: :obj:`0`)
        num_workers (int, optional): Processes that prepare batches. Windows are views, so that
            there is little to prepare. (default: :obj:`0`)
    """

    def __init__(
        self,
        graph: TemporalGraph,
        protocol: Protocol,
        batch_size: int = 64,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        self.graph, self.protocol = graph, protocol
        self.batch_size, self.seed, self.num_workers = batch_size, seed, num_workers
        self.windows = windows_of(graph, protocol)

    def train_dataloader(self) -> DataLoader:
        windows = self.windows["train"]
        order = EpochOrder(len(windows), self.seed, *self._share())
        order.set_epoch(self._finished_epochs())
        return self._loader(windows, sampler=order)

    def val_dataloader(self) -> DataLoader:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._evaluation_loader("test")

    def _evaluation_loader(self, split: str) -> DataLoader:
        windows = self.windows[split]
        rank, world_size = self._share()
        if world_size == 1:
            return self._loader(windows)
        return self._loader(Subset(windows, range(rank, len(windows), world_size)))

    def _loader(self, windows: Windows | Subset, sampler: EpochOrder | None = None) -> DataLoader:
        return DataLoader(
            windows,
            self.batch_size,
            sampler=sampler,
            collate_fn=collate_shared,
            num_workers=self.num_workers,
            # A loader without a generator of its own draws from the random state of training.
            generator=torch.Generator(),
            pin_memory=torch.cuda.is_available(),
        )


def random_seed(*numbers: int) -> int:
    r"""Mixes numbers into one seed; unlike numbers give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
