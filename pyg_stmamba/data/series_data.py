from __future__ import annotations

from typing import Any

from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.storage import GlobalStorage

NODE_KEYS = frozenset({"x", "x_mask", "y", "y_mask", "pos", "node_row"})
GRAPH_KEYS = frozenset(
    {
        "timestamps",
        "time_of_day",
        "day_of_week",
        "y_time_of_day",
        "y_day_of_week",
        "start",
        "node_names",
        "channel_names",
        "units",
        "name",
        "null_value",
    }
)


class SeriesStorage(GlobalStorage):
    r"""Knows by name which attributes of a :class:`SeriesData` belong to nodes and which to the
    graph; other attributes are told apart by their size, as PyG does."""

    def is_node_attr(self, key: str) -> bool:
        if key in GRAPH_KEYS:
            return False
        if key in NODE_KEYS:
            return True
        return super().is_node_attr(key)

    def is_edge_attr(self, key: str) -> bool:
        if key in GRAPH_KEYS or key in NODE_KEYS:
            return False
        return super().is_edge_attr(key)


class SeriesData(Data):
    r"""A :class:`torch_geometric.data.Data` whose nodes carry series.

    PyG takes an attribute for one of nodes or edges when its size happens to be that of the
    nodes or edges. Here one row of time stamps stays an attribute of the graph even where there
    is one node, one edge, or as many steps as nodes, so that :meth:`subgraph`,
    :class:`~torch_geometric.loader.NeighborLoader` and
    :class:`~torch_geometric.loader.ClusterData` never cut time.

    Args:
        x (torch.Tensor, optional): Series :math:`[N, T, C]`. (default: :obj:`None`)
        edge_index (torch.Tensor, optional): :math:`[2, E]`. (default: :obj:`None`)
        edge_attr (torch.Tensor, optional): :math:`[E, D]`. (default: :obj:`None`)
        **kwargs (optional): Further attributes.
    """

    def __init__(
        self,
        x: Tensor | None = None,
        edge_index: Tensor | None = None,
        edge_attr: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.__dict__["_store"] = SeriesStorage(_parent=self)
        for key, value in {
            "x": x,
            "edge_index": edge_index,
            "edge_attr": edge_attr,
            **kwargs,
        }.items():
            if value is not None:
                setattr(self, key, value)
