from pyg_stmamba.nn.blocks.pivot import pivot, unpivot
from pyg_stmamba.nn.blocks.st_mamba import STMambaBlock

__all__ = ["STMambaBlock", "pivot", "unpivot"]
