import pytest
import torch

from pyg_stmamba.nn.embedding.node import NodeEmbed
from tests.laws import close, copies_are_equal, inputs_stay_untouched, same


def test_against_the_formula():
    op = NodeEmbed(3, 8)
    x, mask = torch.randn(5, 2, 4, 3), torch.rand(5, 2, 4, 3) > 0.4
    W, b = op.projection.weight, op.projection.bias
    close(op(x), x @ W.t() + b, 1e-6)
    m = mask.float()
    close(op(x, mask), (m * x) @ W.t() + b + (1 - m) @ op.missing.weight.t(), 1e-6)
    same(op(x, torch.ones_like(mask)), op(x))
    every = mask[..., 0]
    same(op(x, every), op(x, every.unsqueeze(-1).expand_as(x)))


def test_what_is_missing_has_no_influence_but_its_flag_has():
    op = NodeEmbed(2, 8)
    x, mask = torch.zeros(5, 4, 2), torch.rand(5, 4, 2) > 0.4
    y = op(x, mask)
    for junk in (1e4, float("nan"), float("inf")):
        same(op(x.masked_fill(~mask, junk), mask), y)
    moved = (y - op(x)).abs().amax(-1) > 1e-4
    assert torch.equal(moved, ~mask.all(-1))


def test_bad_masks():
    op, x = NodeEmbed(2, 8), torch.randn(5, 4, 2)
    for mask in (torch.ones(5, 4), torch.ones(4, 5).bool(), torch.ones(5, 4, 1).bool()):
        with pytest.raises(ValueError, match=r"value, \[5, 4, 2\], or for each step, \[5, 4\]"):
            op(x, mask)


def test_initialization():
    op = NodeEmbed(20, 100)
    kept = op.missing.weight.clone()
    assert kept.std().item() == pytest.approx(0.02, rel=0.1)
    op.reset_parameters()
    assert not torch.equal(op.missing.weight, kept)


def test_copies_inputs_and_gradients():
    op, x, mask = NodeEmbed(2, 4), torch.randn(5, 3, 2), torch.rand(5, 3) > 0.5
    copies_are_equal(op, lambda op: op(x, mask))
    inputs_stay_untouched(op, x, mask)
    x = x.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: op.double()(x, mask), x)
    assert str(NodeEmbed(2, 4)) == "NodeEmbed(2, 4)"
    assert NodeEmbed()(torch.randn(3, 1)).shape == (3, 64)
