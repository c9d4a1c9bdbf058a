from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyg_stmamba.data.arrays import (
    as_edges,
    as_floats,
    as_mask,
    as_names,
    as_numbers,
    check_finite,
    fill_gaps,
    some,
)
from pyg_stmamba.data.calendar import SECONDS_PER_DAY, as_seconds, check_increasing, step_of
from pyg_stmamba.data.graph import as_edge_index
from pyg_stmamba.data.series_data import SeriesData

GAPS = ("fill", "keep")


class TemporalGraph(SeriesData):
    r"""One graph whose nodes carry series: the container every data set yields.

    It is a :class:`torch_geometric.data.Data`, so PyG's loaders, transforms and batches work on
    it. Build it with :meth:`from_arrays`, which checks everything; the constructor, as that of
    :class:`~torch_geometric.data.Data`, takes attributes as they are.

    Attributes:
        x (torch.Tensor): Values :math:`[N, T, C]`, float32, original units, 0 where missing.
        x_mask (torch.Tensor): :math:`[N, T, C]`, boolean, :obj:`True` = observed.
        edge_index (torch.Tensor): :math:`[2, E]`, source to target.
        edge_attr (torch.Tensor, optional): :math:`[E, D]`, float32.
        pos (torch.Tensor, optional): Positions :math:`[N, P]`.
        timestamps (torch.Tensor, optional): :math:`[1, T]`, int64, seconds since 1970-01-01
            00:00 on the local wall clock. The leading 1 makes one row a graph in a batch.
        node_row (torch.Tensor): :math:`[N]`, which entry of :obj:`node_names` a node is.
        node_names (list): Node ids of the graph this one was made with; :attr:`node_id` gives
            those of the present nodes, also after :meth:`subgraph` or in a loader.
        channel_names (list): :math:`C` names.
        units (list): :math:`C` units.
        name (str): Of the data set.
        null_value (float, optional): The value that means missing in the source.
    """

    @classmethod
    def from_arrays(
        cls,
        values: Any,
        *,
        mask: Any = None,
        timestamps: Any = None,
        edge_index: Any = None,
        edge_weight: Any = None,
        adjacency: Any = None,
        positions: Any = None,
        node_ids: Sequence[Any] | None = None,
        channels: Sequence[str] | str | None = None,
        units: Sequence[str] | str | None = None,
        null_value: float | None = None,
        name: str = "",
        gaps: str = "fill",
    ) -> TemporalGraph:
        r"""Builds the container from arrays as files hold them, time first.

        Args:
            values: :math:`[T, N]` or :math:`[T, N, C]`, numbers in original units.
            mask (optional): Boolean, :obj:`True` = observed, of the shape of :obj:`values` or
                :math:`[T, N]`. Missing entries become 0. (default: :obj:`None`, all observed)
            timestamps (optional): :math:`[T]`, strictly increasing; see
                :func:`~pyg_stmamba.data.as_seconds`. (default: :obj:`None`)
            edge_index (optional): :math:`[2, E]`, source to target. (default: :obj:`None`)
            edge_weight (optional): :math:`[E]` or :math:`[E, D]`. (default: :obj:`None`)
            adjacency (optional): :math:`[N, N]`, :obj:`adjacency[target, source]`, in place of
                :obj:`edge_index`. (default: :obj:`None`)
            positions (optional): :math:`[N, P]`. (default: :obj:`None`)
            node_ids (optional): :math:`N` different names. (default: :obj:`None`, "0", "1", ...)
            channels (optional): :math:`C` names. (default: :obj:`None`)
            units (optional): :math:`C` units. (default: :obj:`None`)
            null_value (float, optional): A value that means missing, :obj:`0.0` or
                :obj:`float("nan")` for instance. (default: :obj:`None`)
            name (str): Of the data set. (default: :obj:`""`)
            gaps (str): :obj:`"fill"` puts the series on the regular grid of its median step,
                with missing steps where there is a gap, and refuses time stamps off the grid;
                :obj:`"keep"` takes the steps as they come. (default: :obj:`"fill"`)

        Raises:
            ValueError: If anything does not fit; the message says what and how to mend it.
        """
        if gaps not in GAPS:
            raise ValueError(f"unknown gaps {gaps!r}, choose from {list(GAPS)}")
        array = as_numbers(values)
        num_steps, num_nodes, num_channels = array.shape
        observed = as_mask(mask, array)
        if null_value is not None:
            observed &= ~np.isnan(array) if np.isnan(null_value) else array != null_value
        check_finite(array, observed)
        array = np.where(observed, array, 0)

        seconds = None
        if timestamps is not None:
            seconds = as_seconds(timestamps)
            if len(seconds) != num_steps:
                raise ValueError(
                    f"{len(seconds)} timestamps for values of {num_steps} steps (shape "
                    f"{list(array.shape)} = [T, N, C])"
                )
            check_increasing(seconds)
            if gaps == "fill":
                seconds, array, observed = fill_gaps(seconds, array, observed)

        x_mask = torch.from_numpy(observed.transpose(1, 0, 2).copy())
        x = torch.from_numpy(array.transpose(1, 0, 2).astype(np.float32, order="C"))
        edges, edge_attr = as_edges(edge_index, edge_weight, adjacency, num_nodes)
        graph = cls(
            x=x,
            edge_index=edges,
            edge_attr=edge_attr,
            x_mask=x_mask,
            pos=None if positions is None else as_floats(positions, "positions"),
            timestamps=None if seconds is None else torch.from_numpy(seconds)[None],
            node_id=as_names(node_ids, num_nodes, "node_ids", [str(i) for i in range(num_nodes)]),
            channel_names=as_names(
                channels, num_channels, "channels", _default_channels(num_channels)
            ),
            units=as_names(units, num_channels, "units", [""] * num_channels),
            name=name,
            null_value=None if null_value is None else float(null_value),
        )
        graph.validate()
        return graph

    @property
    def x_mask(self) -> Tensor | None:
        return self["x_mask"] if "x_mask" in self._store else None

    @property
    def timestamps(self) -> Tensor | None:
        return self["timestamps"] if "timestamps" in self._store else None

    @property
    def null_value(self) -> float | None:
        return self["null_value"] if "null_value" in self._store else None

    @property
    def node_id(self) -> list[str]:
        r"""The names of the nodes, in the order of the nodes."""
        if "node_row" not in self._store:
            return [str(i) for i in range(self.num_nodes)]
        rows, names = self.node_row.tolist(), self.node_names
        if not names or isinstance(names[0], str):
            return [names[i] for i in rows]
        return [names[b][i] for b, i in zip(self.batch.tolist(), rows)]

    @node_id.setter
    def node_id(self, names: Sequence[str]) -> None:
        self.node_names = list(names)
        self.node_row = torch.arange(len(self.node_names))

    @property
    def values(self) -> Tensor:
        r"""The series :math:`[N, T, C]`; the same as :obj:`x`."""
        if self.x is None:
            raise ValueError("this graph carries no series x [N, T, C]")
        return self.x

    @property
    def mask(self) -> Tensor:
        r"""Which entries are observed :math:`[N, T, C]`; all where there is no :obj:`x_mask`."""
        mask = self.x_mask
        return torch.ones_like(self.values, dtype=torch.bool) if mask is None else mask

    @property
    def num_channels(self) -> int:
        r"""The number of channels :math:`C`."""
        return self.values.size(2)

    @property
    def num_steps(self) -> int:
        r"""The number of steps :math:`T`."""
        return self.values.size(1)

    @property
    def step_seconds(self) -> int | None:
        r"""The regular step in seconds; :obj:`None` without at least two time stamps."""
        if self.timestamps is None or self.timestamps.size(-1) < 2:
            return None
        return step_of(self.timestamps[0].cpu().numpy())

    @property
    def steps_per_day(self) -> int | None:
        r"""Steps a day; :obj:`None` without time stamps or where a day is no whole number of
        steps."""
        step = self.step_seconds
        return None if step is None or SECONDS_PER_DAY % step else SECONDS_PER_DAY // step

    def select(self, node_ids: Sequence[Any]) -> TemporalGraph:
        r"""The graph among some nodes only, in the order they are named.

        Args:
            node_ids (sequence): Names as in :attr:`node_id`.

        Raises:
            ValueError: If a name is unknown or repeated.
        """
        names = [str(i) for i in node_ids]
        row = {name: i for i, name in enumerate(self.node_id)}
        unknown = [name for name in names if name not in row]
        if unknown:
            raise ValueError(f"unknown node id(s) {some(unknown)}; the graph has {some(list(row))}")
        if len(set(names)) != len(names):
            raise ValueError(f"node ids must differ, got {some(names)}")
        subset = torch.tensor([row[name] for name in names], dtype=torch.long)
        return self.subgraph(subset.to(self.values.device))

    def validate(self, raise_on_error: bool = True) -> bool:
        r"""Checks that all parts fit each other.

        Args:
            raise_on_error (bool): If :obj:`False`, only the answer is returned.
                (default: :obj:`True`)

        Raises:
            ValueError: Naming what does not fit.
        """
        try:
            self._check_series()
            self._check_graph()
            self._check_time()
        except ValueError:
            if raise_on_error:
                raise
            return False
        return True

    def _check_series(self) -> None:
        x, mask = self.x, self.x_mask
        if not isinstance(x, Tensor) or x.dim() != 3 or not x.is_floating_point():
            given = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"x must be a floating point tensor [N, T, C], got {given}")
        if mask is None or mask.dtype != torch.bool or mask.shape != x.shape:
            given = "none" if mask is None else f"{mask.dtype} {list(mask.shape)}"
            raise ValueError(
                f"x_mask must be boolean (True = observed) of the shape of x {list(x.shape)}, got "
                f"{given}"
            )
        if not bool(x.isfinite().all()):
            raise ValueError(
                f"x holds {int((~x.isfinite()).sum())} NaN or infinite entries; missing ones must "
                "be 0 in x and False in x_mask"
            )
        silent = ~mask.flatten(1).any(dim=1)
        if bool(silent.any()):
            names = [name for name, s in zip(self.node_id, silent.tolist()) if s]
            raise ValueError(
                f"all values are missing at {len(names)} of {len(silent)} node(s): {some(names)}. "
                "Drop them, or correct the mask or null_value"
            )
        for key in ("channel_names", "units"):
            if key in self and len(self[key]) != x.size(2):
                raise ValueError(f"{len(self[key])} {key} for {x.size(2)} channel(s): {self[key]}")

    def _check_graph(self) -> None:
        num_nodes = self.x.size(0)
        if self.edge_index is not None:
            if self.edge_index.dtype != torch.long:
                raise ValueError(f"edge_index must be int64, got {self.edge_index.dtype}")
            as_edge_index(self.edge_index, num_nodes)
        if self.edge_attr is not None:
            if self.edge_attr.size(0) != self.num_edges:
                raise ValueError(
                    f"edge_attr has {self.edge_attr.size(0)} rows for {self.num_edges} edges"
                )
            if not bool(self.edge_attr.isfinite().all()):
                raise ValueError("edge_attr (edge_weight) holds NaN or infinity")
        if self.pos is not None and (self.pos.dim() != 2 or self.pos.size(0) != num_nodes):
            raise ValueError(
                f"positions must be of shape [N, P] with N = {num_nodes} nodes, got "
                f"{list(self.pos.shape)}"
            )
        if self.pos is not None and not bool(self.pos.isfinite().all()):
            raise ValueError("positions hold NaN or infinity")
        names = self.node_id
        if len(names) != num_nodes or len(set(names)) != num_nodes:
            raise ValueError(
                f"node ids must be {num_nodes} different names, got {len(names)} with "
                f"{len(set(names))} different ones: {some(names)}"
            )

    def _check_time(self) -> None:
        if self.timestamps is None:
            return
        if self.timestamps.dtype != torch.long or self.timestamps.shape != (1, self.num_steps):
            raise ValueError(
                f"timestamps must be int64 of shape [1, T] = [1, {self.num_steps}], got "
                f"{self.timestamps.dtype} {list(self.timestamps.shape)}"
            )
        check_increasing(self.timestamps[0].cpu().numpy())


def _default_channels(count: int) -> list[str]:
    return ["value"] if count == 1 else [f"channel {i}" for i in range(count)]


# So that PyG's InMemoryDataset loads processed files with weights_only=True.
torch.serialization.add_safe_globals([TemporalGraph])
