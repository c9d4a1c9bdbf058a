from .global_norm import GlobalNorm
from .revin import InstanceStatistics, RevIN

__all__ = ["GlobalNorm", "InstanceStatistics", "RevIN"]
