from pyg_stmamba.nn.temporal.attention import AttentionState, TemporalAttention
from pyg_stmamba.nn.temporal.factorized import TemporalFactorized
from pyg_stmamba.nn.temporal.frequency import TemporalFrequency
from pyg_stmamba.nn.temporal.mamba import MambaState, TemporalMamba
from pyg_stmamba.nn.temporal.performer import PerformerState, TemporalPerformer
from pyg_stmamba.nn.temporal.resolver import temporal_resolver
from pyg_stmamba.nn.temporal.temporal_operator import TemporalOperator

__all__ = [
    "AttentionState",
    "MambaState",
    "PerformerState",
    "TemporalAttention",
    "TemporalFactorized",
    "TemporalFrequency",
    "TemporalMamba",
    "TemporalOperator",
    "TemporalPerformer",
    "temporal_resolver",
]
