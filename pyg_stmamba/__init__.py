r"""Graphs whose nodes carry time series, for PyTorch Geometric."""

__version__ = "0.1.0"

from pyg_stmamba.models import SpatioTemporalPerformer, STMamba
from pyg_stmamba.nn import (
    GlobalNorm,
    LinearModel,
    MovingAvg,
    PerformerAttention,
    RevIN,
    SeriesDecomposition,
    SpectralTimeEmbedding,
    STMambaBlock,
    Time2Vec,
    pivot,
    unpivot,
)
from pyg_stmamba.ops import selective_scan

__all__ = [
    "GlobalNorm",
    "LinearModel",
    "MovingAvg",
    "PerformerAttention",
    "RevIN",
    "STMamba",
    "STMambaBlock",
    "SeriesDecomposition",
    "SpatioTemporalPerformer",
    "SpectralTimeEmbedding",
    "Time2Vec",
    "__version__",
    "pivot",
    "selective_scan",
    "unpivot",
]
