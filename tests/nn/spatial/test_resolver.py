import pytest
from torch_geometric.nn import GATv2Conv, GCNConv

from pyg_stmamba.nn import Snapshot, SpatialAttention, SpatialGAT
from pyg_stmamba.nn.spatial import spatial_resolver
from pyg_stmamba.nn.spatial.interaction import SpatialInteraction
from pyg_stmamba.nn.spatial.resolver import SPATIAL_OPERATORS, WITH_EDGE_FEATURES


def test_names():
    op = spatial_resolver("gat", 16, 2, negative_slope=0.1, add_self_loops=False, edge_dim=3)
    assert isinstance(op, SpatialGAT)
    assert (op.in_channels, op.out_channels, op.heads) == (16, 8, 2)
    assert (op.negative_slope, op.add_self_loops, op.edge_dim) == (0.1, False, 3)
    op = spatial_resolver("gat", 16, 3, concat=False)
    assert (op.out_channels, op.concat) == (16, False)

    op = spatial_resolver("gatv2", 16, 2, negative_slope=0.1, add_self_loops=False, edge_dim=3)
    assert isinstance(op, Snapshot)
    assert isinstance(op.conv, GATv2Conv)
    assert (op.conv.in_channels, op.conv.out_channels, op.conv.heads) == (16, 8, 2)
    assert (op.conv.negative_slope, op.conv.add_self_loops, op.conv.edge_dim) == (0.1, False, 3)

    for name, neighbors_only in (("attention", False), ("dot", True)):
        op = spatial_resolver(name, 16, 2)
        assert isinstance(op, SpatialAttention)
        assert (op.heads, op.neighbors_only) == (2, neighbors_only)

    op = spatial_resolver("interaction", 6, heads=4, edge_dim=3)
    assert isinstance(op, SpatialInteraction)
    assert (op.channels, op.edge_dim) == (6, 3)
    assert spatial_resolver("interaction", 6).edge_dim is None


def test_which_names_use_edge_features():
    for name in SPATIAL_OPERATORS:
        if name in WITH_EDGE_FEATURES:
            assert spatial_resolver(name, 8, edge_dim=2) is not None
        else:
            with pytest.raises(ValueError, match=r"\('gat', 'gatv2', 'interaction'\)"):
                spatial_resolver(name, 8, edge_dim=2)


def test_instances_pass_and_convolutions_are_wrapped():
    op = SpatialGAT(4, 4)
    assert spatial_resolver(op, 4) is op
    assert spatial_resolver(None, 4) is None
    conv = GCNConv(4, 4)
    wrapped = spatial_resolver(conv, 4)
    assert isinstance(wrapped, Snapshot)
    assert wrapped.conv is conv


def test_errors():
    with pytest.raises(
        ValueError, match=r"'gcn'.*'attention', 'dot', 'gat', 'gatv2', 'interaction'"
    ):
        spatial_resolver("gcn", 4)
    for name in ("gat", "gatv2", "attention", "dot"):
        with pytest.raises(ValueError, match=r"channels \(6\).*heads \(4\)"):
            spatial_resolver(name, 6, 4)
    for name in ("attention", "dot"):
        with pytest.raises(ValueError, match=f"{name}.*edge_dim=2"):
            spatial_resolver(name, 8, 4, edge_dim=2)
