from pyg_stmamba.nn.spacetime.attention_phase import AttentionPhase
from pyg_stmamba.nn.spacetime.conv_block import ConvBlock
from pyg_stmamba.nn.spacetime.decoder import Decoder, DecoderLayer
from pyg_stmamba.nn.spacetime.encoder import Encoder, EncoderLayer
from pyg_stmamba.nn.spacetime.feed_forward import FeedForward
from pyg_stmamba.nn.spacetime.global_attention import GlobalAttention
from pyg_stmamba.nn.spacetime.local_attention import LocalAttention
from pyg_stmamba.nn.spacetime.normalization import Normalization, ScaleNorm
from pyg_stmamba.nn.spacetime.padding import CrossMaskingSeq, SelfMaskingSeq
from pyg_stmamba.nn.spacetime.token_layout import (
    Flatten,
    Localize,
    PredRearrange,
    ReverseLocalize,
    localize,
    reverse_localize,
)
from pyg_stmamba.nn.spacetime.windowing import ReverseWindowing, Windowed, Windowing

__all__ = [
    "AttentionPhase",
    "ConvBlock",
    "CrossMaskingSeq",
    "Decoder",
    "DecoderLayer",
    "Encoder",
    "EncoderLayer",
    "FeedForward",
    "Flatten",
    "GlobalAttention",
    "LocalAttention",
    "Localize",
    "Normalization",
    "PredRearrange",
    "ReverseLocalize",
    "ReverseWindowing",
    "ScaleNorm",
    "SelfMaskingSeq",
    "Windowed",
    "Windowing",
    "localize",
    "reverse_localize",
]
