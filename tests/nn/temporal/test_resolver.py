import pytest

from pyg_stmamba.nn import (
    TemporalAttention,
    TemporalFactorized,
    TemporalFrequency,
    TemporalMamba,
    TemporalPerformer,
)
from pyg_stmamba.nn.temporal import temporal_resolver


def test_names():
    op = temporal_resolver("mamba", 16, d_state=3, d_conv=2, expand=4)
    assert isinstance(op, TemporalMamba)
    assert (op.channels, op.d_state, op.d_conv, op.expand) == (16, 3, 2, 4)
    op = temporal_resolver("attention", 16, heads=8)
    assert isinstance(op, TemporalAttention)
    assert op.heads == 8
    others = {
        "performer": TemporalPerformer,
        "factorized": TemporalFactorized,
        "frequency": TemporalFrequency,
    }
    for name, kind in others.items():
        op = temporal_resolver(name, 16, heads=8)
        assert isinstance(op, kind)
        assert (op.channels, op.causal) == (16, name != "frequency")
        assert "heads=8" in repr(op)


def test_instances_pass():
    op = TemporalMamba(4)
    assert temporal_resolver(op, 4) is op
    assert temporal_resolver(None, 4) is None


def test_unknown_names_list_the_choices():
    with pytest.raises(
        ValueError, match=r"'lstm'.*'attention', 'factorized', 'frequency', 'mamba', "
    ):
        temporal_resolver("lstm", 4)
