from __future__ import annotations

from typing import Any

from torch import nn

from pyg_stmamba.data import Protocol, Scaler, TemporalGraph
from pyg_stmamba.models.weekly_profile import WeeklyProfile
from pyg_stmamba.models.window_encoder import WindowEncoder


class WindowForecaster(nn.Module):
    r"""What forecasters whose windows go through a
    :class:`~pyg_stmamba.models.window_encoder.WindowEncoder`, their :attr:`encoder`, tell of
    themselves: what is fitted to the data, what the data decide, and their arguments."""

    encoder: WindowEncoder
    _arguments: dict[str, Any]

    @property
    def scaler(self) -> Scaler:
        r"""What brings values to zero mean and unit variance, and forecasts back."""
        return self.encoder.scaler

    @property
    def weekly_profile(self) -> WeeklyProfile | None:
        r"""What each node shows on average at each time of the week."""
        return self.encoder.weekly_profile

    @property
    def num_nodes(self) -> int | None:
        r"""The number of nodes of a fixed graph; :obj:`None` where any graph will do."""
        return self.encoder.num_nodes

    @property
    def steps_per_day(self) -> int | None:
        r"""The number of times of the day; :obj:`None` where time plays no part."""
        return self.encoder.steps_per_day

    @staticmethod
    def data_arguments(graph: TemporalGraph, protocol: Protocol) -> dict[str, Any]:
        r"""Returns the arguments of the constructor that the data decide."""
        return {
            "in_channels": graph.x.size(-1),
            "window": protocol.window,
            "horizon": protocol.horizon,
            "target_channels": protocol.target_channels,
            "num_nodes": graph.num_nodes,
            "steps_per_day": graph.steps_per_day,
            "edge_dim": None if graph.edge_attr is None else graph.edge_attr.size(-1),
        }

    def config(self) -> dict[str, Any]:
        r"""Returns the arguments of the constructor."""
        return dict(self._arguments)
