from .adaptive_norm import AdaptiveLayerNorm, AdaptiveRMSNorm
from .global_norm import GlobalNorm
from .revin import InstanceStatistics, RevIN
from .rms_norm import RMSNorm

__all__ = [
    "AdaptiveLayerNorm",
    "AdaptiveRMSNorm",
    "GlobalNorm",
    "InstanceStatistics",
    "RMSNorm",
    "RevIN",
]
