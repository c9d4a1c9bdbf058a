from pyg_stmamba.nn.embedding.position import PositionEmbedding
from pyg_stmamba.nn.embedding.power_spectrum import power_spectrum
from pyg_stmamba.nn.embedding.spectral_time import SpectralTimeEmbedding
from pyg_stmamba.nn.embedding.time2vec import Time2Vec
from pyg_stmamba.nn.embedding.tokens import Embedding

from .patch import PatchEmbed
from .temporal_position import TemporalPositionalEncoding

__all__ = [
    "Embedding",
    "PatchEmbed",
    "PositionEmbedding",
    "SpectralTimeEmbedding",
    "TemporalPositionalEncoding",
    "Time2Vec",
    "power_spectrum",
]
