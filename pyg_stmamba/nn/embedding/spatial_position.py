from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SpatialPositionalEncoding(nn.Module):
    r"""A learned vector for each place of a frame, as in the `"An Image is Worth 16x16 Words:
    Transformers for Image Recognition at Scale" <https://arxiv.org/abs/2010.11929>`_ paper, or
    for each node of a graph.

    The vectors of a grid of patches serve other grids, too, interpolated bicubically. The nodes of
    a graph have no such order: there the number is fixed.

    Args:
        dim (int): Size :math:`D` of each vector.
        places (int or tuple[int, int]): The number of nodes, or the rows and columns of the grid.
        class_token (bool, optional): Whether a class token has a vector, too, the first.
            (default: :obj:`False`)

    Shapes:
        - **input:** the number of nodes, or the rows and columns of a grid
        - **output:** :math:`(N, D)`, or :math:`(N + 1, D)` with :obj:`class_token=True`

    Raises:
        ValueError: If the nodes of a graph are more or fewer than it was built for.
    """

    def __init__(self, dim: int, places: int | tuple[int, int], class_token: bool = False) -> None:
        super().__init__()
        self.dim, self.places, self.class_token = dim, places, class_token
        number = places if isinstance(places, int) else places[0] * places[1]
        if number < 1:
            raise ValueError(f"there must be at least one place, got {places}")
        self.weight = nn.Parameter(torch.empty(number + class_token, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws the vectors anew."""
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, places: int | tuple[int, int]) -> Tensor:
        if places == self.places:
            return self.weight
        if isinstance(self.places, int) or isinstance(places, int):
            raise ValueError(
                f"{self!r} holds a vector for each of {self.places} nodes, got {places}: learned "
                "vectors of nodes cannot be interpolated; a model for any graph has none"
            )
        first, rest = self.weight.split(
            [int(self.class_token), len(self.weight) - self.class_token]
        )
        field = rest.t().unflatten(-1, self.places).unsqueeze(0)
        field = F.interpolate(field, places, mode="bicubic", align_corners=False)
        return torch.cat([first, field.squeeze(0).flatten(1).t()])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dim}, {self.places}, class_token={self.class_token})"
