r"""Graphs whose nodes carry time series, for PyTorch Geometric."""

__version__ = "0.1.0"

from pyg_stmamba.models import (
    SpaceTimeTransformer,
    SpatioTemporalPerformer,
    STMamba,
    TransformerForecaster,
)
from pyg_stmamba.nn import (
    FactorizedEncoder,
    FrequencyAttention,
    GlobalNorm,
    JointSpaceTimeTransformer,
    LinearModel,
    MiniSpaceTimeTransformer,
    MixtureOfExperts,
    MovingAvg,
    MultiAttention,
    PerformerAttention,
    RevIN,
    SeriesDecomposition,
    SpatialTransformer,
    SpectralTimeEmbedding,
    STMambaBlock,
    TemporalTransformer,
    Time2Vec,
    TransformerDecoder,
    TransformerEncoder,
    pivot,
    unpivot,
)
from pyg_stmamba.ops import selective_scan

__all__ = [
    "FactorizedEncoder",
    "FrequencyAttention",
    "GlobalNorm",
    "JointSpaceTimeTransformer",
    "LinearModel",
    "MiniSpaceTimeTransformer",
    "MixtureOfExperts",
    "MovingAvg",
    "MultiAttention",
    "PerformerAttention",
    "RevIN",
    "STMamba",
    "STMambaBlock",
    "SeriesDecomposition",
    "SpaceTimeTransformer",
    "SpatialTransformer",
    "SpatioTemporalPerformer",
    "SpectralTimeEmbedding",
    "TemporalTransformer",
    "Time2Vec",
    "TransformerDecoder",
    "TransformerEncoder",
    "TransformerForecaster",
    "__version__",
    "pivot",
    "selective_scan",
    "unpivot",
]
