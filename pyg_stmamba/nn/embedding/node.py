from __future__ import annotations

import torch
from torch import Tensor, nn


class NodeEmbed(nn.Module):
    r"""Embeds what each node measures at each step by a linear map.

    .. math::
        \mathbf{h}_{i,t} = \mathbf{W} (\mathbf{m}_{i,t} \odot \mathbf{x}_{i,t}) + \mathbf{b}
        + \mathbf{M} (1 - \mathbf{m}_{i,t})

    A value that is missing, :math:`m = 0`, has no influence; that it is missing has.

    Args:
        in_channels (int, optional): Channels of a step. (default: :obj:`1`)
        dim (int, optional): Size of each token. (default: :obj:`64`)

    Shapes:
        - **input:** :math:`(*, C)`, mask :math:`(*, C)` or :math:`(*)` *(optional)*
        - **output:** :math:`(*, D)`

    Raises:
        ValueError: If the mask is not boolean or does not fit.
    """

    def __init__(self, in_channels: int = 1, dim: int = 64) -> None:
        super().__init__()
        self.in_channels, self.dim = in_channels, dim
        self.projection = nn.Linear(in_channels, dim)
        self.missing = nn.Linear(in_channels, dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew, on the scale of learned positions."""
        for linear in (self.projection, self.missing):
            nn.init.trunc_normal_(linear.weight, std=0.02)
        nn.init.zeros_(self.projection.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        r"""Embeds.

        Args:
            x (torch.Tensor): The values.
            mask (torch.Tensor, optional): :obj:`True` where a value, or all values of a step,
                were observed. (default: :obj:`None`, all observed)
        """
        if mask is None:
            return self.projection(x)
        if mask.dtype != torch.bool or mask.shape not in (x.shape, x.shape[:-1]):
            raise ValueError(
                f"the mask must be boolean with one entry for each value, {list(x.shape)}, or for "
                f"each step, {list(x.shape[:-1])}, got {list(mask.shape)} and dtype {mask.dtype}"
            )
        if mask.dim() < x.dim():
            mask = mask.unsqueeze(-1).expand_as(x)
        return self.projection(x.masked_fill(~mask, 0.0)) + self.missing((~mask).to(x.dtype))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.dim})"
