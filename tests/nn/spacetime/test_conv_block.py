import pytest
import torch

from pyg_stmamba.nn.spacetime import ConvBlock
from tests.laws import close, copies_are_equal, inputs_stay_untouched, layout_does_not_matter, same
from tests.nn.spacetime.oracles import conv_block, shortened, spread

B, N, D = 2, 3, 4


@pytest.mark.parametrize("length", range(1, 34))
def test_against_torch(length):
    block = spread(ConvBlock(N, D)).eval()
    x = torch.randn(B, N * length, D)
    mask = torch.rand(B, N * length) < 0.7
    y = block(x)
    assert y.shape == (B, N * ((length + 1) // 2), D)
    close(y, conv_block(block, x, N), 1e-6)
    close(block(x, mask), conv_block(block, x, N, mask), 1e-6)
    same(block.shorten_padding_mask(mask), shortened(mask, N))


@torch.no_grad()
def test_statistics_in_training():
    block = spread(ConvBlock(N, D))
    x = torch.randn(B, N * 6, D)
    y = block(x)
    series = torch.cat(x.unflatten(1, (N, 6)).unbind(1))
    h = block.conv(series.transpose(1, 2))
    mean, var = h.mean((0, 2)), h.var((0, 2), correction=0)
    block.eval()
    block.norm.running_mean.copy_(mean)
    block.norm.running_var.copy_(var)
    close(y, block(x), 1e-5)


@torch.no_grad()
def test_variables_and_samples_do_not_mix():
    block = ConvBlock(N, D).eval()
    x = torch.randn(B, N, 7, D)
    other = x.clone()
    other[0, 1] = 3.0 - 2.0 * other[0, 1]
    moved = (block(other.flatten(1, 2)) != block(x.flatten(1, 2))).unflatten(1, (N, 4))
    expected = torch.zeros(B, N, dtype=torch.bool)
    expected[0, 1] = True
    same(moved.flatten(2).any(-1), expected)


@torch.no_grad()
def test_padding_has_no_influence():
    block = ConvBlock(N, D)
    x = torch.randn(B, N * 7, D)
    mask = torch.rand(B, N * 7) > 0.5
    for training in (True, False):
        block.train(training)
        y = block(x, mask)
        assert y.isfinite().all()
        for junk in (5.0, torch.nan, torch.inf):
            same(block(x.masked_fill(mask.unsqueeze(-1), junk), mask), y)
    assert not torch.equal(block(x), y)


def test_a_token_is_padding_if_it_saw_nothing_else():
    block = ConvBlock(1, D)
    mask = torch.ones(1, 12, dtype=torch.bool)
    mask[0, 5] = False
    same(block.shorten_padding_mask(mask)[0], torch.tensor([True, True, False, False, True, True]))
    mask[0, 11] = False  # the convolution goes around
    same(
        block.shorten_padding_mask(mask)[0], torch.tensor([False, True, False, False, True, False])
    )
    assert block.shorten_padding_mask(torch.ones(1, 5, dtype=torch.bool)).all()
    assert not block.shorten_padding_mask(torch.zeros(1, 5, dtype=torch.bool)).any()


def test_module_laws():
    block = ConvBlock(N, D).eval()
    x = torch.randn(B, N * 5, D)
    copies_are_equal(block, lambda op: op(x))
    inputs_stay_untouched(block, x, torch.rand(B, N * 5) > 0.5)
    square = torch.randn(D, N * 5, D)  # the law swaps its outer dimensions
    layout_does_not_matter(block, square)


def test_reset():
    block = spread(ConvBlock(N, D))
    weight = block.conv.weight.clone()
    block.reset_parameters()
    assert not torch.equal(block.conv.weight, weight)
    assert (block.norm.weight == 1).all()
    assert (block.norm.running_mean == 0).all()


def test_errors_show_the_shape():
    with pytest.raises(ValueError, match=r"\[B, N \* L, D = 4\] of N = 3.*\[2, 16, 4\]"):
        ConvBlock(N, D)(torch.randn(B, 16, D))
    with pytest.raises(ValueError, match=r"D = 4.*\[2, 15, 5\]"):
        ConvBlock(N, D)(torch.randn(B, 15, 5))
    with pytest.raises(ValueError, match=r"True = padding.*float32"):
        ConvBlock(N, D)(torch.randn(B, 15, D), torch.zeros(B, 15))


def test_repr():
    assert str(ConvBlock(3, 4)) == "ConvBlock(3, 4)"
