r"""Graphs whose nodes carry time series, for PyTorch Geometric."""

__version__ = "0.1.0"

from pyg_stmamba.models import STMamba
from pyg_stmamba.nn import STMambaBlock, pivot, unpivot
from pyg_stmamba.ops import selective_scan

__all__ = ["STMamba", "STMambaBlock", "__version__", "pivot", "selective_scan", "unpivot"]
