from __future__ import annotations

from typing import NamedTuple

from torch import nn
from torch_geometric.nn import GATv2Conv, MessagePassing

from pyg_stmamba.nn.spatial.attention import SpatialAttention
from pyg_stmamba.nn.spatial.gat import SpatialGAT
from pyg_stmamba.nn.spatial.interaction import SpatialInteraction
from pyg_stmamba.nn.spatial.snapshot import Snapshot

# The operators that use the features of edges.
WITH_EDGE_FEATURES = ("gat", "gatv2", "interaction")


class _Options(NamedTuple):
    channels: int
    heads: int
    concat: bool
    negative_slope: float
    add_self_loops: bool
    edge_dim: int | None

    @property
    def head_channels(self) -> int:
        if not self.concat:
            return self.channels
        if self.channels % self.heads != 0:
            raise ValueError(
                f"channels ({self.channels}) must be divisible by heads ({self.heads}) when the "
                f"heads are concatenated"
            )
        return self.channels // self.heads


def _gat(o: _Options) -> nn.Module:
    return SpatialGAT(
        o.channels,
        o.head_channels,
        o.heads,
        o.concat,
        o.negative_slope,
        add_self_loops=o.add_self_loops,
        edge_dim=o.edge_dim,
    )


def _gatv2(o: _Options) -> nn.Module:
    conv = GATv2Conv(
        o.channels,
        o.head_channels,
        o.heads,
        o.concat,
        o.negative_slope,
        add_self_loops=o.add_self_loops,
        edge_dim=o.edge_dim,
    )
    return Snapshot(conv)


def _interaction(o: _Options) -> nn.Module:
    return SpatialInteraction(o.channels, o.edge_dim)


def _without_edge_features(name: str, o: _Options) -> None:
    if o.edge_dim is not None:
        raise ValueError(
            f"the spatial operator {name!r} uses no edge features, got edge_dim={o.edge_dim}; "
            f"choose one of {WITH_EDGE_FEATURES}, or leave edge_dim at None"
        )


def _attention(o: _Options) -> nn.Module:
    _without_edge_features("attention", o)
    return SpatialAttention(o.channels, o.heads)


def _dot(o: _Options) -> nn.Module:
    _without_edge_features("dot", o)
    return SpatialAttention(o.channels, o.heads, neighbors_only=True)


SPATIAL_OPERATORS = {
    "gat": _gat,
    "gatv2": _gatv2,
    "attention": _attention,
    "dot": _dot,
    "interaction": _interaction,
}


def spatial_resolver(
    query: str | nn.Module | None,
    channels: int,
    heads: int = 4,
    concat: bool = True,
    negative_slope: float = 0.2,
    add_self_loops: bool = True,
    edge_dim: int | None = None,
) -> nn.Module | None:
    r"""Builds the spatial operator of a name.

    An instance and :obj:`None` pass through, a convolution of PyG is wrapped in
    :class:`Snapshot`.

    Args:
        query (str or torch.nn.Module, optional): :obj:`"gat"`, :obj:`"gatv2"`,
            :obj:`"attention"` (among all nodes), :obj:`"dot"` (among neighbours),
            :obj:`"interaction"` (messages that see both ends), or an instance that follows
            :class:`SpatialOperator`.
        channels (int): Size of each sample, in and out.
        heads (int, optional): Number of heads. (default: :obj:`4`)
        concat (bool, optional): Whether heads are concatenated or averaged.
            (default: :obj:`True`)
        negative_slope (float, optional): Angle of the LeakyReLU. (default: :obj:`0.2`)
        add_self_loops (bool, optional): Whether each node sees itself. (default: :obj:`True`)
        edge_dim (int, optional): Size of the edge features. (default: :obj:`None`)

    Raises:
        ValueError: If the name is unknown; the choices are listed.
    """
    if isinstance(query, MessagePassing):
        return Snapshot(query)
    if query is None or isinstance(query, nn.Module):
        return query
    if query not in SPATIAL_OPERATORS:
        raise ValueError(
            f"unknown spatial operator {query!r}; choose one of {sorted(SPATIAL_OPERATORS)}, "
            f"None, or pass an instance of SpatialOperator or a PyG convolution"
        )
    options = _Options(channels, heads, concat, negative_slope, add_self_loops, edge_dim)
    return SPATIAL_OPERATORS[query](options)
