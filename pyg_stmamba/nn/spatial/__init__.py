from pyg_stmamba.nn.spatial.attention import SpatialAttention
from pyg_stmamba.nn.spatial.gat import SpatialGAT
from pyg_stmamba.nn.spatial.interaction import SpatialInteraction
from pyg_stmamba.nn.spatial.resolver import WITH_EDGE_FEATURES, spatial_resolver
from pyg_stmamba.nn.spatial.snapshot import Snapshot
from pyg_stmamba.nn.spatial.spatial_operator import SpatialOperator

__all__ = [
    "WITH_EDGE_FEATURES",
    "Snapshot",
    "SpatialAttention",
    "SpatialGAT",
    "SpatialInteraction",
    "SpatialOperator",
    "spatial_resolver",
]
