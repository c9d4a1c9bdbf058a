from pyg_stmamba.nn.blocks import STMambaBlock, pivot, unpivot
from pyg_stmamba.nn.dropout import Dropout
from pyg_stmamba.nn.spatial import Snapshot, SpatialAttention, SpatialGAT, SpatialOperator
from pyg_stmamba.nn.temporal import TemporalAttention, TemporalMamba, TemporalOperator

__all__ = [
    "Dropout",
    "STMambaBlock",
    "Snapshot",
    "SpatialAttention",
    "SpatialGAT",
    "SpatialOperator",
    "TemporalAttention",
    "TemporalMamba",
    "TemporalOperator",
    "pivot",
    "unpivot",
]
