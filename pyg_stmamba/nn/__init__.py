from pyg_stmamba.nn.blocks import STMambaBlock, pivot, unpivot
from pyg_stmamba.nn.decomposition import MovingAvg, SeriesDecomposition
from pyg_stmamba.nn.direct_linear import DLinear, NLinear
from pyg_stmamba.nn.dropout import Dropout
from pyg_stmamba.nn.embedding import Embedding, SpectralTimeEmbedding, Time2Vec
from pyg_stmamba.nn.full_attention import FullAttention
from pyg_stmamba.nn.linear_model import LinearModel
from pyg_stmamba.nn.multi_head_attention import (
    AttentionClass,
    create_full_attention,
    create_performer_attention,
)
from pyg_stmamba.nn.norm import GlobalNorm, RevIN
from pyg_stmamba.nn.performer_attention import (
    PerformerAttention,
    redraw_projections,
    redraw_when_due,
)
from pyg_stmamba.nn.spacetime import (
    ConvBlock,
    CrossMaskingSeq,
    Decoder,
    DecoderLayer,
    Encoder,
    EncoderLayer,
    Flatten,
    Localize,
    Normalization,
    PredRearrange,
    ReverseLocalize,
    ReverseWindowing,
    SelfMaskingSeq,
    Windowing,
    localize,
    reverse_localize,
)
from pyg_stmamba.nn.spatial import Snapshot, SpatialAttention, SpatialGAT, SpatialOperator
from pyg_stmamba.nn.temporal import (
    TemporalAttention,
    TemporalMamba,
    TemporalOperator,
    TemporalPerformer,
)
from pyg_stmamba.nn.token_transformer import TokenTransformer

__all__ = [
    "AttentionClass",
    "ConvBlock",
    "CrossMaskingSeq",
    "DLinear",
    "Decoder",
    "DecoderLayer",
    "Dropout",
    "Embedding",
    "Encoder",
    "EncoderLayer",
    "Flatten",
    "FullAttention",
    "GlobalNorm",
    "LinearModel",
    "Localize",
    "MovingAvg",
    "NLinear",
    "Normalization",
    "PerformerAttention",
    "PredRearrange",
    "RevIN",
    "ReverseLocalize",
    "ReverseWindowing",
    "STMambaBlock",
    "SelfMaskingSeq",
    "SeriesDecomposition",
    "Snapshot",
    "SpatialAttention",
    "SpatialGAT",
    "SpatialOperator",
    "SpectralTimeEmbedding",
    "TemporalAttention",
    "TemporalMamba",
    "TemporalOperator",
    "TemporalPerformer",
    "Time2Vec",
    "TokenTransformer",
    "Windowing",
    "create_full_attention",
    "create_performer_attention",
    "localize",
    "pivot",
    "redraw_projections",
    "redraw_when_due",
    "reverse_localize",
    "unpivot",
]
