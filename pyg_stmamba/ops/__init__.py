r"""Pure functions on tensors, each with a readable reference and its faster implementations."""

from .backend import implementations
from .causal_conv1d import causal_conv1d
from .dropout_mask import dropout_mask
from .graph_attention import graph_attention
from .neighborhood import Neighborhood, neighborhood
from .selective_scan import selective_scan

__all__ = [
    "Neighborhood",
    "causal_conv1d",
    "dropout_mask",
    "graph_attention",
    "implementations",
    "neighborhood",
    "selective_scan",
]
