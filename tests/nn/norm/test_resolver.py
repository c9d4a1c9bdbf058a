import functools

import pytest
import torch
from torch import nn

from pyg_stmamba.nn.norm.adaptive_norm import AdaptiveLayerNorm, AdaptiveRMSNorm
from pyg_stmamba.nn.norm.resolver import norm_resolver
from pyg_stmamba.nn.norm.rms_norm import RMSNorm


@pytest.mark.parametrize(
    ("name", "norm_class"),
    [
        ("layer", nn.LayerNorm),
        ("rms", RMSNorm),
        ("adaptive", AdaptiveLayerNorm),
        ("adaptive_layer", AdaptiveLayerNorm),
        ("adaptive_rms", AdaptiveRMSNorm),
    ],
)
def test_names(name, norm_class):
    norm = norm_resolver(name, 6, eps=0.25)
    assert type(norm) is norm_class
    assert norm.eps == 0.25
    assert norm(torch.randn(2, 3, 6)).shape == (2, 3, 6)


@pytest.mark.parametrize("name", ["adaptive", "adaptive_layer", "adaptive_rms"])
def test_condition(name):
    norm = norm_resolver(name, 6, cond_dim=4)
    assert norm.modulation.in_features == norm.cond_dim == 4
    assert norm.eps == 1e-5


@pytest.mark.parametrize("name", ["layer", "rms"])
def test_no_condition(name):
    with pytest.raises(ValueError, match=rf"'{name}' takes no condition, got cond_dim=4; .*'adap"):
        norm_resolver(name, 6, cond_dim=4)


def test_functions_of_channels():
    norm = norm_resolver(functools.partial(nn.LayerNorm, eps=1e-6), 6)
    assert (norm.eps, norm.normalized_shape) == (1e-6, (6,))


def test_unknown():
    choices = r"\['adaptive', 'adaptive_layer', 'adaptive_rms', 'layer', 'rms'\]"
    with pytest.raises(ValueError, match=f"unknown norm 'batch'; choose one of {choices}"):
        norm_resolver("batch", 6)
    for query in (nn.LayerNorm(6), None):
        with pytest.raises(ValueError, match="built anew"):
            norm_resolver(query, 6)
