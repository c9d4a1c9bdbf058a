import pytest
import torch

from pyg_stmamba.ops import dropout_mask

CPU = torch.device("cpu")


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
def test_share_and_scale(dropout):
    keep, scale = dropout_mask(torch.Size((1000, 301)), dropout, CPU)
    # Five standard deviations of the share.
    spread = (dropout * (1 - dropout) / keep.numel()) ** 0.5
    assert abs(keep.double().mean() - (1 - dropout)) < 5 * spread
    assert scale == pytest.approx(1 / (1 - dropout), rel=1e-4)


def test_elements_are_independent():
    keep, _ = dropout_mask(torch.Size((4000, 16)), 0.5, CPU)
    y = 2.0 * keep - 1
    between = (y.T @ y / len(y)).fill_diagonal_(0)
    assert between.abs().max() < 5 / len(y) ** 0.5
    assert (y[1:] * y[:-1]).mean(0).abs().max() < 5 / len(y) ** 0.5


def test_ends_and_empty_shapes():
    keep, scale = dropout_mask(torch.Size((50, 3)), 0.0, CPU)
    assert keep.all()
    assert scale == 1.0
    keep, scale = dropout_mask(torch.Size((50, 3)), 1.0, CPU)
    assert not keep.any()
    assert scale == 0.0
    assert dropout_mask(torch.Size((0, 3)), 0.5, CPU)[0].shape == (0, 3)


def test_the_seed_decides():
    masks = []
    for _ in range(2):
        torch.manual_seed(5)
        masks.append(dropout_mask(torch.Size((7, 9)), 0.3, CPU)[0])
    assert torch.equal(*masks)


def test_a_generator_of_its_own():
    before, masks = torch.get_rng_state(), []
    for seed in (1, 1, 2):
        generator = torch.Generator().manual_seed(seed)
        masks.append(dropout_mask(torch.Size((7, 9)), 0.3, CPU, generator)[0])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
