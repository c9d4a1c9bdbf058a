from pyg_stmamba.nn.blocks.pivot import pivot, unpivot
from pyg_stmamba.nn.blocks.st_mamba import STMambaBlock

from .divided import DividedSpaceTimeBlock
from .factorized_encoder import FactorizedEncoder
from .joint import JointSpaceTimeTransformer
from .mini import MiniSpaceTimeTransformer
from .spatial_transformer import SpatialTransformer
from .temporal_transformer import TemporalTransformer

__all__ = [
    "DividedSpaceTimeBlock",
    "FactorizedEncoder",
    "JointSpaceTimeTransformer",
    "MiniSpaceTimeTransformer",
    "STMambaBlock",
    "SpatialTransformer",
    "TemporalTransformer",
    "pivot",
    "unpivot",
]
