from pyg_stmamba.nn.spatial.attention import SpatialAttention
from pyg_stmamba.nn.spatial.gat import SpatialGAT
from pyg_stmamba.nn.spatial.resolver import spatial_resolver
from pyg_stmamba.nn.spatial.snapshot import Snapshot
from pyg_stmamba.nn.spatial.spatial_operator import SpatialOperator

__all__ = ["Snapshot", "SpatialAttention", "SpatialGAT", "SpatialOperator", "spatial_resolver"]
