from __future__ import annotations

from torch import nn

from pyg_stmamba.nn.temporal.attention import TemporalAttention
from pyg_stmamba.nn.temporal.factorized import TemporalFactorized
from pyg_stmamba.nn.temporal.frequency import TemporalFrequency
from pyg_stmamba.nn.temporal.mamba import TemporalMamba
from pyg_stmamba.nn.temporal.performer import TemporalPerformer
from pyg_stmamba.nn.temporal.temporal_operator import TemporalOperator


def _mamba(channels: int, d_state: int, d_conv: int, expand: int, heads: int) -> TemporalOperator:
    return TemporalMamba(channels, d_state, d_conv, expand)


def _attention(
    channels: int, d_state: int, d_conv: int, expand: int, heads: int
) -> TemporalOperator:
    return TemporalAttention(channels, heads)


def _performer(
    channels: int, d_state: int, d_conv: int, expand: int, heads: int
) -> TemporalOperator:
    return TemporalPerformer(channels, heads)


def _frequency(
    channels: int, d_state: int, d_conv: int, expand: int, heads: int
) -> TemporalOperator:
    return TemporalFrequency(channels, heads)


def _factorized(
    channels: int, d_state: int, d_conv: int, expand: int, heads: int
) -> TemporalOperator:
    return TemporalFactorized(channels, heads)


TEMPORAL_OPERATORS = {
    "mamba": _mamba,
    "performer": _performer,
    "attention": _attention,
    "frequency": _frequency,
    "factorized": _factorized,
}


def temporal_resolver(
    query: str | TemporalOperator | None,
    channels: int,
    d_state: int = 16,
    d_conv: int = 4,
    expand: int = 2,
    heads: int = 4,
) -> TemporalOperator | None:
    r"""Builds the temporal operator of a name; an instance and :obj:`None` pass through.

    Args:
        query (str or TemporalOperator, optional): :obj:`"mamba"`, :obj:`"performer"`,
            :obj:`"attention"`, :obj:`"frequency"` (not causal), :obj:`"factorized"` (a whole
            transformer layer), or an instance.
        channels (int): Size of each step.
        d_state (int, optional): States of each inner channel of Mamba. (default: :obj:`16`)
        d_conv (int, optional): Steps the convolution of Mamba sees. (default: :obj:`4`)
        expand (int, optional): Inner channels of Mamba for each channel. (default: :obj:`2`)
        heads (int, optional): Heads of all but Mamba. (default: :obj:`4`)

    Raises:
        ValueError: If the name is unknown; the choices are listed.
    """
    if query is None or isinstance(query, nn.Module):
        return query  # any module with the methods of the protocol will do
    if query not in TEMPORAL_OPERATORS:
        raise ValueError(
            f"unknown temporal operator {query!r}; choose one of {sorted(TEMPORAL_OPERATORS)}, "
            f"None, or pass an instance of TemporalOperator"
        )
    return TEMPORAL_OPERATORS[query](channels, d_state, d_conv, expand, heads)
