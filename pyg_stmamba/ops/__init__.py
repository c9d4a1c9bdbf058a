r"""Pure functions on tensors, each with a readable reference and its faster implementations."""

from .backend import implementations
from .causal_conv1d import causal_conv1d
from .dropout_mask import dropout_mask
from .graph_attention import graph_attention
from .linear_attention import LinearAttentionState, linear_attention
from .neighborhood import Neighborhood, neighborhood
from .random_features import (
    Features,
    hyperbolic_features,
    optimal_features,
    positive_features,
    random_projection,
    relu_features,
)
from .selective_scan import selective_scan

__all__ = [
    "Features",
    "LinearAttentionState",
    "Neighborhood",
    "causal_conv1d",
    "dropout_mask",
    "graph_attention",
    "hyperbolic_features",
    "implementations",
    "linear_attention",
    "neighborhood",
    "optimal_features",
    "positive_features",
    "random_projection",
    "relu_features",
    "selective_scan",
]
