from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class PatchEmbed(nn.Module):
    r"""Cuts frames into patches and embeds each by one linear map, as in the `"An Image is Worth
    16x16 Words: Transformers for Image Recognition at Scale" <https://arxiv.org/abs/2010.11929>`_
    paper.

    .. math::
        \mathbf{x}_{t,n} = \mathbf{W} \, \mathrm{vec} \left( \mathbf{v}_t[:, \,
        i p_h \ldots (i + 1) p_h, \; j p_w \ldots (j + 1) p_w] \right) + \mathbf{b}, \qquad
        n = i \cdot W / p_w + j

    The parameters are those of a :class:`torch.nn.Conv2d` whose stride is its kernel size.

    Args:
        patch_size (int or tuple[int, int], optional): Height and width of a patch.
            (default: :obj:`4`)
        in_channels (int, optional): Channels of a frame. (default: :obj:`3`)
        dim (int, optional): Size of each token. (default: :obj:`64`)

    Shapes:
        - **input:** a video :math:`(B, T, C, H, W)`, or frames or fields on a grid
          :math:`(*, C, H, W)`
        - **output:** :math:`(B, T, N, D)` or :math:`(*, N, D)` with
          :math:`N = H / p_h \cdot W / p_w`, row by row

    Raises:
        ValueError: If the channels do not fit, or a patch does not divide a frame.
    """

    def __init__(
        self, patch_size: int | tuple[int, int] = 4, in_channels: int = 3, dim: int = 64
    ) -> None:
        super().__init__()
        self.patch_size = pair(patch_size)
        self.in_channels, self.dim = in_channels, dim
        self.projection = nn.Conv2d(in_channels, dim, self.patch_size, self.patch_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew, on the scale of learned positions."""
        nn.init.trunc_normal_(self.projection.weight, std=0.02)
        if self.projection.bias is not None:
            nn.init.zeros_(self.projection.bias)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        r"""Returns how many patches a frame has from top to bottom and from left to right."""
        rows, columns = self.patch_size
        if height % rows != 0 or width % columns != 0 or height == 0 or width == 0:
            raise ValueError(
                f"frames of {height} x {width} cannot be cut into patches of {rows} x {columns}: "
                "height and width must be multiples of those of a patch; crop or pad the frames"
            )
        return height // rows, width // columns

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 3 or x.size(-3) != self.in_channels:
            raise ValueError(
                f"PatchEmbed expects frames [..., C, H, W] of C = {self.in_channels} channels, got "
                f"a tensor of shape {list(x.shape)}"
            )
        self.grid(*x.shape[-2:])
        rows, columns = self.patch_size
        pattern = "... c (i h) (j w) -> ... (i j) (c h w)"
        patches = rearrange(x, pattern, h=rows, w=columns)
        return F.linear(patches, self.projection.weight.flatten(1), self.projection.bias)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.patch_size}, {self.in_channels}, {self.dim})"


def unpatch(tokens: Tensor, grid: tuple[int, int], patch_size: int | tuple[int, int]) -> Tensor:
    r"""Puts patches, row by row, together to frames: what cutting frames undoes.

    Args:
        tokens (torch.Tensor): The values of each patch, channel by channel, row by row.
        grid (tuple[int, int]): Number of patches from top to bottom and from left to right.
        patch_size (int or tuple[int, int]): Height and width of a patch.

    Shapes:
        - **input:** :math:`(*, N, C \, p_h \, p_w)`
        - **output:** :math:`(*, C, H, W)`
    """
    rows, columns = pair(patch_size)
    pattern = "... (i j) (c h w) -> ... c (i h) (j w)"
    return rearrange(tokens, pattern, i=grid[0], j=grid[1], h=rows, w=columns)


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    r"""Reads a height and a width, or one number for both.

    Args:
        size (int or tuple[int, int]): The size.

    Raises:
        ValueError: If it is neither, or not positive.
    """
    both = (size, size) if isinstance(size, int) else tuple(size)
    if len(both) != 2 or any(not isinstance(side, int) or side < 1 for side in both):
        raise ValueError(f"a size must be a positive number or two of them, got {size!r}")
    return both[0], both[1]
