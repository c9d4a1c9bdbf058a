from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from pyg_stmamba.data import TemporalGraph, Windows
from pyg_stmamba.data.calendar import SECONDS_PER_DAY
from pyg_stmamba.data.calendar import time_of_day as fraction_of_day
from pyg_stmamba.models.fitted_to_data import FittedToData

SECONDS_PER_WEEK = 7 * SECONDS_PER_DAY

# The first Monday after 1970-01-01.
_FIRST_MONDAY = 4 * SECONDS_PER_DAY

# Entries of float64 that are held at a time, whatever the size of the graph.
_CHUNK = 2**24


class WeeklyProfile(FittedToData):
    r"""What each node shows on average at each time of the week: what is known of the future
    before anything is observed, akin to the weekly-periodic input of `"Attention Based
    Spatial-Temporal Graph Convolutional Networks for Traffic Flow Forecasting"
    <https://ojs.aaai.org/index.php/AAAI/article/view/3881>`_.

    .. math::
        p_{i,s} = \frac{\sum_t k(t - s) \, m_{i,t} \, x_{i,t}}{\sum_t k(t - s) \, m_{i,t}}, \qquad
        k(\tau) = \exp \left( - \frac{\tau^2}{2 \sigma^2} \right)

    over the steps :math:`t` of the training data, with differences within the week. Where a time
    of the week was never observed it is the mean of that time of the day, where that is missing
    too the mean of the node, and for a node that was never observed the mean of all.

    A profile that holds the very values that a model is trained to forecast teaches it to trust
    the profile too much: train with :meth:`leave_one_week_out`.

    Args:
        target_channels (tuple[int, ...], optional): The channels it is taken of.
            (default: :obj:`(0, )`)
        smoothing (float, optional): The width :math:`\sigma` in minutes; :obj:`0` averages each
            time of the week on its own. (default: :obj:`0`)
        num_nodes (int, optional): The size that it will have when fitted. (default: :obj:`0`)
        steps_per_day (int, optional): Likewise. (default: :obj:`0`)

    Shapes:
        - **input:** times of the day and days of the week :math:`(*, T)`
        - **output:** :math:`(N, *, T, C_y)`, in original units
    """

    mean: Tensor

    def __init__(
        self,
        target_channels: tuple[int, ...] = (0,),
        smoothing: float = 0.0,
        num_nodes: int = 0,
        steps_per_day: int = 0,
    ) -> None:
        super().__init__()
        self.target_channels, self.smoothing = tuple(target_channels), smoothing
        size = (num_nodes, 7 * steps_per_day, len(self.target_channels))
        self.register_buffer("mean", torch.zeros(size))

    @torch.no_grad()
    def fit(self, windows: Windows) -> WeeklyProfile:
        r"""Averages the steps that the windows cover, each step once."""
        self.mean = self._averages(windows, leave_out=False).squeeze(1)
        return self

    @torch.no_grad()
    def leave_one_week_out(self, windows: Windows) -> Tensor:
        r"""Returns the profile at every step of the series, taken without the (Monday to Sunday)
        week that the step lies in.

        Args:
            windows (Windows): The training windows.

        Shapes:
            - **output:** :math:`(N, T, C_y)`
        """
        graph = windows.graph
        averages = self._averages(windows, leave_out=True)
        places, per_week = _places(graph)
        weeks = places // per_week
        # The weeks after the training windows are in no average.
        inside = weeks < averages.size(1)
        profile = averages[:, weeks.clamp(max=averages.size(1) - 1), places % per_week]
        profile[:, ~inside] = self._averages(windows, leave_out=False)[
            :, 0, places[~inside] % per_week
        ]
        return profile

    def forward(self, time_of_day: Tensor, day_of_week: Tensor, ahead: int = 0) -> Tensor:
        r"""Looks up the profile.

        Args:
            time_of_day (torch.Tensor): Fraction of the day in :math:`[0, 1)`.
            day_of_week (torch.Tensor): Monday = 0.
            ahead (int, optional): Adds this many steps after the last. (default: :obj:`0`)
        """
        per_week = self.mean.size(1)
        per_day = per_week // 7
        slots = (time_of_day * per_day).round().long() % per_day + day_of_week * per_day
        if ahead > 0:
            steps = torch.arange(1, ahead + 1, device=slots.device)
            slots = torch.cat([slots, (slots[..., -1:] + steps) % per_week], dim=-1)
        return self.mean[:, slots]

    def _averages(self, windows: Windows, leave_out: bool) -> Tensor:
        """By node, week (all in one, or each left out in turn), time of the week and channel."""
        parts = []
        total = torch.zeros(2, dtype=torch.double)
        for sums, counts in self._weekly_sums(windows):
            all_sums, all_counts = (x.sum(1, keepdim=True) for x in (sums, counts))
            total += torch.stack([all_sums.sum(), all_counts.sum()])
            if leave_out:
                all_sums, all_counts = all_sums - sums, all_counts - counts
            parts.append(_averages(all_sums, all_counts).float())
        return torch.cat(parts).nan_to_num(float(total[0] / total[1].clamp(min=1e-6)))

    def _weekly_sums(self, windows: Windows) -> Iterator[tuple[Tensor, Tensor]]:
        """The sums and counts of some nodes at a time, by week and time of the week."""
        graph = windows.graph
        start = int(windows.starts.min())
        stop = int(windows.starts.max()) + windows.window + windows.horizon
        places, per_week = _places(graph)
        places = places[start:stop]
        weeks = int(places.max()) // per_week + 1
        kernel = self._kernel(graph)
        channels = list(self.target_channels)
        nodes = max(1, _CHUNK // (weeks * per_week * len(channels)))
        for first in range(0, graph.num_nodes, nodes):
            of_these = slice(first, first + nodes)
            observed = graph.mask[of_these, start:stop, channels].double()
            values = graph.values[of_these, start:stop, channels].double() * observed
            both = torch.stack([values, observed])
            placed = both.new_zeros(*both.shape[:2], weeks * per_week, len(channels))
            placed.index_add_(2, places, both)
            smooth = F.conv1d(placed.mT.reshape(-1, 1, placed.size(2)), kernel, padding="same")
            smooth = smooth.reshape(*placed.mT.shape[:-1], weeks, per_week)
            sums, counts = smooth.permute(0, 1, 3, 4, 2)
            yield sums, counts

    def _kernel(self, graph: TemporalGraph) -> Tensor:
        width = 60 * self.smoothing / (graph.step_seconds or float("inf"))
        reach = int(3 * width)
        steps = torch.arange(-reach, reach + 1, dtype=torch.double)
        weights = torch.exp(-0.5 * (steps / max(width, 1e-6)) ** 2)
        return weights.reshape(1, 1, -1)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.target_channels}, smoothing={self.smoothing})"


def _places(graph: TemporalGraph) -> tuple[Tensor, int]:
    """How many steps after the Monday before the series each step lies, and the steps a week.
    Without a calendar all steps lie at one place."""
    if graph.timestamps is None or graph.steps_per_day is None:
        return torch.zeros(graph.num_steps, dtype=torch.long), 7
    seconds = graph.timestamps[0]
    monday = (seconds[0] - _FIRST_MONDAY) // SECONDS_PER_WEEK * SECONDS_PER_WEEK + _FIRST_MONDAY
    per_day = graph.steps_per_day
    days = (seconds - monday) // SECONDS_PER_DAY
    slots = (fraction_of_day(seconds) * per_day).round().long() % per_day
    return days * per_day + slots, 7 * per_day


def _averages(sums: Tensor, counts: Tensor) -> Tensor:
    per_day = sums.size(-2) // 7
    of_week = _mean(sums, counts)
    by_day = (x.unflatten(-2, (7, per_day)).sum(-3).repeat(1, 1, 7, 1) for x in (sums, counts))
    of_day = _mean(*by_day)
    of_node = _mean(*(x.sum(-2, keepdim=True) for x in (sums, counts)))
    averages = torch.where(of_week.isnan(), of_day, of_week)
    return torch.where(averages.isnan(), of_node, averages)


def _mean(sums: Tensor, counts: Tensor) -> Tensor:
    # What is left of a count after its own week has been taken off may be rounding.
    return (sums / counts).where(counts > 1e-6, torch.nan)
