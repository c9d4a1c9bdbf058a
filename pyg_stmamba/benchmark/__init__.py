r"""Ours beside what users have: equal first, then faster."""

from .cases import SETS, block_case, conv_case, graph_attention_case, scan_case
from .comparison import Comparison, Cost, compare
from .contender import Case, Contender
from .machine import describe_machine
from .memory import peak_memory
from .parity import Parity, parity
from .report import Report, measure_set
from .table import markdown_table

__all__ = [
    "SETS",
    "Case",
    "Comparison",
    "Contender",
    "Cost",
    "Parity",
    "Report",
    "block_case",
    "compare",
    "conv_case",
    "describe_machine",
    "graph_attention_case",
    "markdown_table",
    "measure_set",
    "parity",
    "peak_memory",
    "scan_case",
]
