import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyg_stmamba.nn.transformer.residual_phase import ResidualPhase


def test_pre_norm():
    phase, x = ResidualPhase(6, "pre_norm", dropout=0.0), torch.randn(2, 5, 6)
    change = torch.randn(2, 5, 6)
    torch.testing.assert_close(phase.enter(x), F.layer_norm(x, (6,)))
    assert torch.equal(phase.leave(x, change), x + change)


def test_post_norm():
    phase, x = ResidualPhase(6, "post_norm", dropout=0.0), torch.randn(2, 5, 6)
    change = torch.randn(2, 5, 6)
    assert torch.equal(phase.enter(x), x)
    torch.testing.assert_close(phase.leave(x, change), F.layer_norm(x + change, (6,)))


def test_dropout_is_of_the_change_alone():
    phase, x = ResidualPhase(6, dropout=0.5), torch.randn(40, 50, 6)
    change = phase.leave(x, torch.ones_like(x)) - x
    kept = change.round() != 0
    torch.testing.assert_close(change[kept], torch.full_like(change[kept], 2.0))
    assert abs(kept.float().mean() - 0.5) < 0.02
    phase.eval()
    torch.testing.assert_close(phase.leave(x, torch.ones_like(x)), x + 1)


def test_condition_reaches_the_norm():
    phase, x = ResidualPhase(6, norm="adaptive", cond_dim=3), torch.randn(2, 5, 6)
    cond = torch.randn(2, 3)
    plain = phase.enter(x, cond)
    torch.testing.assert_close(plain, F.layer_norm(x, (6,)))
    for parameter in phase.norm.parameters():
        nn.init.normal_(parameter)
    assert not torch.allclose(phase.enter(x, cond), plain)
    with pytest.raises(ValueError, match="cond"):
        phase.enter(x)


def test_unknown_strategy():
    with pytest.raises(ValueError, match="'sandwich'; choose 'pre_norm' or 'post_norm'"):
        ResidualPhase(6, "sandwich")
