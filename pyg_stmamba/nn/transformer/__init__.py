from .decoder import TransformerDecoder
from .decoder_layer import TransformerDecoderLayer
from .encoder import TransformerEncoder
from .encoder_layer import TransformerEncoderLayer
from .feed_forward import FeedForwardBlock
from .fourier_block import FourierBlock
from .frequency_attention import FrequencyAttention
from .incremental_state import reorder_incremental_state
from .layer import BaseTransformerLayer
from .mixture_of_experts import MixtureOfExperts
from .multi_attention import MultiAttention
from .positional_encoding import PositionalEncoding
from .router import TopKRouter, load_balancing_loss, router_z_loss

__all__ = [
    "BaseTransformerLayer",
    "FeedForwardBlock",
    "FourierBlock",
    "FrequencyAttention",
    "MixtureOfExperts",
    "MultiAttention",
    "PositionalEncoding",
    "TopKRouter",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    "load_balancing_loss",
    "reorder_incremental_state",
    "router_z_loss",
]
