import numpy as np
import pytest
import torch
from torch import nn

from pyg_stmamba.nn.embedding.patch import PatchEmbed, pair, unpatch
from tests.laws import close, copies_are_equal, inputs_stay_untouched, same


def convolution(op: PatchEmbed) -> nn.Conv2d:
    other = nn.Conv2d(op.in_channels, op.dim, op.patch_size, op.patch_size)
    other.load_state_dict(op.projection.state_dict())
    return other


@pytest.mark.parametrize("patch_size", [1, 2, (2, 3), (4, 1)])
def test_against_torch(patch_size):
    op = PatchEmbed(patch_size, in_channels=2, dim=5)
    conv = convolution(op)
    video = torch.randn(2, 3, 2, 8, 6, requires_grad=True)  # B T C H W
    other = video.detach().clone().requires_grad_()
    y = op(video)
    frames = [conv(frame).flatten(2).transpose(1, 2) for frame in other.unbind(1)]
    expected = torch.stack(frames, 1)
    close(y, expected, 1e-6)

    weight = torch.randn_like(y)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    close(video.grad, other.grad, 1e-6)
    close(op.projection.weight.grad, conv.weight.grad, 1e-5)
    close(op.projection.bias.grad, conv.bias.grad, 1e-5)


def test_against_a_loop():
    op = PatchEmbed((2, 3), in_channels=2, dim=5)
    weight, bias = (p.detach().numpy() for p in op.projection.parameters())
    field = torch.randn(2, 4, 9)  # C H W
    expected, v = np.zeros((6, 5), dtype=np.float32), field.numpy()
    for i in range(2):
        for j in range(3):
            patch = v[:, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3]
            for d in range(5):
                expected[3 * i + j, d] = (weight[d] * patch).sum() + bias[d]
    close(op(field), torch.from_numpy(expected), 1e-5)


def test_any_leading_dimensions_and_layouts():
    op = PatchEmbed(2, in_channels=3, dim=4)
    video = torch.randn(2, 5, 3, 4, 6)
    y = op(video)
    assert y.shape == (2, 5, 6, 4)
    same(op(video[0]), y[0])
    close(op(video[0, 0]), y[0, 0], 1e-6)
    close(op(video.transpose(0, -1).contiguous().transpose(0, -1)), y, 1e-6)
    wide = video[:, :1].expand(-1, 5, -1, -1, -1)
    close(op(wide), y[:, :1].expand(-1, 5, -1, -1), 1e-6)


def test_the_grid():
    op = PatchEmbed((2, 3))
    assert op.grid(8, 9) == (4, 3)
    with pytest.raises(ValueError, match=r"7 x 9 cannot be cut into patches of 2 x 3.*multiples"):
        op.grid(7, 9)


def test_frames_that_do_not_fit():
    op = PatchEmbed((2, 4), in_channels=3)
    with pytest.raises(ValueError, match=r"4 x 6 cannot be cut into patches of 2 x 4"):
        op(torch.randn(1, 1, 3, 4, 6))
    with pytest.raises(ValueError, match=r"of C = 3 channels, got .* \[1, 1, 4, 4\]"):
        op(torch.randn(1, 1, 4, 4))
    with pytest.raises(ValueError, match=r"shape \[4, 4\]"):
        op(torch.randn(4, 4))


@pytest.mark.parametrize("patch_size", [1, 2, (2, 3)])
def test_unpatch_undoes_the_cut(patch_size):
    rows, columns = pair(patch_size)
    op = PatchEmbed(patch_size, in_channels=2, dim=2 * rows * columns)
    with torch.no_grad():  # tokens that hold their patch as it is
        op.projection.weight.copy_(torch.eye(op.dim).reshape(op.projection.weight.shape))
        op.projection.bias.zero_()
    video = torch.randn(2, 3, 2, 4, 6)
    same(unpatch(op(video), op.grid(4, 6), patch_size), video)


def test_unpatch_against_torch():
    tokens = torch.randn(3, 6, 2 * 2 * 3)  # 2 x 3 patches of 2 channels and 2 x 3 points
    expected = nn.functional.fold(tokens.transpose(1, 2), (4, 9), (2, 3), stride=(2, 3))
    same(unpatch(tokens, (2, 3), (2, 3)), expected)


def test_bad_sizes():
    for size in (0, (2, 0), (1, 2, 3), (2.0, 2)):
        with pytest.raises(ValueError, match="a positive number or two of them, got"):
            PatchEmbed(size)


def test_gradients_in_double_precision():
    op = PatchEmbed((1, 2), in_channels=2, dim=3).double()
    x = torch.randn(2, 2, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(op, x)


def test_copies_and_inputs():
    video = torch.randn(2, 3, 3, 8, 8)
    copies_are_equal(PatchEmbed(), lambda op: op(video))
    inputs_stay_untouched(PatchEmbed(), video)
    assert PatchEmbed()(video).shape == (2, 3, 4, 64)


def test_repr():
    assert str(PatchEmbed(2, 1, 8)) == "PatchEmbed((2, 2), 1, 8)"
