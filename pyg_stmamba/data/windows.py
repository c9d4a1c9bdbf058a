from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyg_stmamba.data.calendar import day_of_week, time_of_day
from pyg_stmamba.data.series_data import SeriesData
from pyg_stmamba.data.split import check_length
from pyg_stmamba.data.temporal_graph import TemporalGraph


class Windows(Dataset[SeriesData]):
    r"""The windows of a series on a graph, each a view of it, never a copy.

    A window is a :class:`torch_geometric.data.Data` with

    * :obj:`x`, :obj:`x_mask` :math:`[N, W, C]`: the steps the model sees,
    * :obj:`y`, :obj:`y_mask` :math:`[N, H, C_y]`: the steps it forecasts,
    * :obj:`time_of_day` :math:`[1, W]` (float32 in :math:`[0, 1)`) and :obj:`day_of_week`
      :math:`[1, W]` (int64, Monday = 0), and :obj:`y_time_of_day`, :obj:`y_day_of_week`
      :math:`[1, H]`, where the graph has time stamps,
    * :obj:`profile` :math:`[N, W + H, C_y]`, if one is given,
    * :obj:`start` :math:`[1]`, :obj:`edge_index` and :obj:`edge_attr`, shared by all windows.

    Batch windows with :class:`torch_geometric.loader.DataLoader` (a disjoint union of graphs,
    :math:`[B N, W, C]`), or with :class:`torch.utils.data.DataLoader` and
    :func:`collate_shared` (one shared graph, :math:`[N, B, W, C]`, which is much cheaper).

    Args:
        graph (TemporalGraph): The series.
        window (int): Input steps :math:`W`.
        horizon (int): Target steps :math:`H`.
        starts (torch.Tensor, optional): First steps of the windows, int64, in any order.
            (default: :obj:`None`, all)
        target_channels (sequence): Channels of :obj:`y`. Channels that are not evenly spaced
            cost one copy of the series. (default: :obj:`(0,)`)
        stride (int): Takes every :obj:`stride`-th of the starts. (default: :obj:`1`)
        targets (bool): If :obj:`False`, windows carry no :obj:`y` and may reach up to the last
            step, to forecast what has not happened yet; the time features of the horizon are
            there all the same. (default: :obj:`True`)
        profile (torch.Tensor, optional): What is expected at each step before anything is
            observed, :math:`[N, T, C_y]`, see
            :class:`~pyg_stmamba.models.weekly_profile.WeeklyProfile`. (default: :obj:`None`)

    Raises:
        ValueError: If the series is shorter than one window, a start, channel or stride is
            out of range, or the profile is not of the right shape.
    """

    def __init__(
        self,
        graph: TemporalGraph,
        window: int,
        horizon: int,
        starts: Tensor | None = None,
        target_channels: Sequence[int] = (0,),
        stride: int = 1,
        *,
        targets: bool = True,
        profile: Tensor | None = None,
    ) -> None:
        num_steps = graph.num_steps
        needed = horizon if targets else 0
        check_length(num_steps, window, needed)
        if stride < 1:
            raise ValueError(f"stride must be at least 1, got {stride}")
        last = num_steps - window - needed
        if starts is None:
            starts = torch.arange(last + 1)
        if starts.dim() != 1 or starts.dtype != torch.long:
            raise ValueError(
                f"starts must be a one-dimensional int64 tensor, got {starts.dtype} "
                f"{list(starts.shape)}"
            )
        if starts.numel() and (int(starts.min()) < 0 or int(starts.max()) > last):
            raise ValueError(
                f"starts must be from 0 to {last} for {num_steps} steps and windows of {window} + "
                f"{needed} steps, got {int(starts.min())} to {int(starts.max())}"
            )
        self.graph = graph
        self.window = window
        self.horizon = horizon
        self.starts = starts[::stride].cpu()
        self.target_channels = tuple(target_channels)
        self.targets = targets
        channels = _as_slice(self.target_channels, graph.num_channels)
        self._x, self._x_mask = graph.values, graph.mask
        self._y, self._y_mask = self._x[..., channels], self._x_mask[..., channels]
        self._time_of_day, self._day_of_week = _time_features(graph, window + horizon)
        if profile is not None and profile.shape != self._y.shape:
            raise ValueError(
                f"profile must be [N, T, C_y] = {list(self._y.shape)}, got {list(profile.shape)}"
            )
        self.profile = profile

    def __len__(self) -> int:
        return self.starts.numel()

    def __getitem__(self, i: int) -> SeriesData:
        if not -len(self) <= i < len(self):
            raise IndexError(f"window {i} of {len(self)}")
        start = int(self.starts[i])
        middle = start + self.window
        end = middle + self.horizon
        graph = self.graph
        window = SeriesData(
            x=self._x[:, start:middle],
            edge_index=graph.edge_index,
            edge_attr=graph.edge_attr,
            x_mask=self._x_mask[:, start:middle],
        )
        if self.targets:
            window.y = self._y[:, middle:end]
            window.y_mask = self._y_mask[:, middle:end]
        if self._time_of_day is not None and self._day_of_week is not None:
            window.time_of_day = self._time_of_day[None, start:middle]
            window.day_of_week = self._day_of_week[None, start:middle]
            window.y_time_of_day = self._time_of_day[None, middle:end]
            window.y_day_of_week = self._day_of_week[None, middle:end]
        if self.profile is not None:
            window.profile = self.profile[:, start:end]
        window.start = torch.tensor([start])
        return window

    def __getitems__(self, indices: Sequence[int]) -> Selection:
        return Selection(self, indices)

    def batch(self, indices: Sequence[int] | Tensor) -> SeriesData:
        r"""Several windows on one shared graph, as :func:`collate_shared` makes them, without
        making each of them.

        Args:
            indices (sequence or torch.Tensor): Which windows.
        """
        starts = self.starts[torch.as_tensor(indices, dtype=torch.long)]
        firsts, middles = starts.tolist(), (starts + self.window).tolist()
        inputs = starts[:, None] + torch.arange(self.window)
        outputs = starts[:, None] + torch.arange(self.window, self.window + self.horizon)
        graph = self.graph
        batch = SeriesData(
            x=_stack(self._x, firsts, self.window),
            edge_index=graph.edge_index,
            edge_attr=graph.edge_attr,
            x_mask=_stack(self._x_mask, firsts, self.window),
        )
        if self.targets:
            batch.y = _stack(self._y, middles, self.horizon)
            batch.y_mask = _stack(self._y_mask, middles, self.horizon)
        if self._time_of_day is not None and self._day_of_week is not None:
            batch.time_of_day = self._time_of_day[inputs]
            batch.day_of_week = self._day_of_week[inputs]
            batch.y_time_of_day = self._time_of_day[outputs]
            batch.y_day_of_week = self._day_of_week[outputs]
        if self.profile is not None:
            batch.profile = _stack(self.profile, firsts, self.window + self.horizon)
        batch.start = starts
        return batch

    def step_counts(self) -> Tensor:
        r"""How many windows see each step as an input: the weight with which
        :meth:`Scaler.fit <pyg_stmamba.data.Scaler.fit>` counts it.

        Returns:
            torch.Tensor: int64, shape :math:`[T]`.
        """
        changes = torch.zeros(self.graph.num_steps + 1, dtype=torch.long)
        ones = torch.ones_like(self.starts)
        changes.index_add_(0, self.starts, ones)
        changes.index_add_(0, self.starts + self.window, -ones)
        return changes.cumsum(0)[:-1]

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({len(self)}, window={self.window}, horizon={self.horizon})"
        )


class Selection(Sequence[SeriesData]):
    r"""Some windows, made when they are asked for: what a loader hands to its collate
    function."""

    def __init__(self, windows: Windows, indices: Sequence[int]) -> None:
        self.windows = windows
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, i: int) -> SeriesData: ...
    @overload
    def __getitem__(self, i: slice) -> Selection: ...
    def __getitem__(self, i: int | slice) -> SeriesData | Selection:
        if isinstance(i, slice):
            return Selection(self.windows, self.indices[i])
        return self.windows[self.indices[i]]

    def __iter__(self) -> Iterator[SeriesData]:
        return (self.windows[i] for i in self.indices)


def collate_shared(windows: Sequence[SeriesData]) -> SeriesData:
    r"""Batches windows of one graph without repeating the graph.

    Args:
        windows (sequence): Windows of one :class:`Windows`.

    Returns:
        torch_geometric.data.Data: :obj:`x` :math:`[N, B, W, C]`, :obj:`y`
        :math:`[N, B, H, C_y]`, their masks, :obj:`time_of_day` and :obj:`day_of_week`
        :math:`[B, W]`, :obj:`start` :math:`[B]`, :obj:`edge_index` and :obj:`edge_attr` of the
        one graph.

    Raises:
        ValueError: If the windows lie on different graphs.
    """
    if isinstance(windows, Selection):
        return windows.windows.batch(windows.indices)
    first = windows[0]
    batch = SeriesData(edge_index=first.edge_index, edge_attr=first.edge_attr)
    for window in windows[1:]:
        if not (
            _same(window.edge_index, first.edge_index) and _same(window.edge_attr, first.edge_attr)
        ):
            raise ValueError(
                "collate_shared needs windows of one graph, but their edge_index or edge_attr "
                "differ; batch different graphs with torch_geometric.loader.DataLoader"
            )
    for key in first.keys():  # noqa: SIM118
        if key in ("x", "x_mask", "y", "y_mask", "profile"):
            batch[key] = torch.stack([window[key] for window in windows], dim=1)
        elif key not in ("edge_index", "edge_attr"):
            batch[key] = torch.cat([window[key] for window in windows])
    return batch


def _stack(series: Tensor, starts: list[int], length: int) -> Tensor:
    return torch.stack([series[:, start : start + length] for start in starts], dim=1)


def _time_features(graph: TemporalGraph, ahead: int) -> tuple[Tensor | None, Tensor | None]:
    if graph.timestamps is None:
        return None, None
    seconds = graph.timestamps[0]
    future = torch.arange(1, ahead + 1, device=seconds.device) * (graph.step_seconds or 0)
    seconds = torch.cat([seconds, seconds[-1] + future])
    return time_of_day(seconds), day_of_week(seconds)


def _as_slice(channels: tuple[int, ...], num_channels: int) -> slice | list[int]:
    if not channels or any(not 0 <= c < num_channels for c in channels):
        raise ValueError(
            f"target_channels must be among 0 to {num_channels - 1} for {num_channels} channel(s), "
            f"got {channels}"
        )
    step = channels[1] - channels[0] if len(channels) > 1 else 1
    spaced = tuple(range(channels[0], channels[-1] + 1, step)) if step > 0 else ()
    return slice(channels[0], channels[-1] + 1, step) if spaced == channels else list(channels)


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))
