from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn.inits import reset

from pyg_stmamba.nn.embedding.spatial_position import SpatialPositionalEncoding
from pyg_stmamba.nn.embedding.temporal_position import TemporalPositionalEncoding


class SpaceTimePosition(nn.Module):
    r"""Says where and when each token was, and puts a class token beside them, as the `"Is
    Space-Time Attention All You Need for Video Understanding?"
    <https://arxiv.org/abs/2102.05095>`_ paper does.

    .. math::
        \mathbf{y}_{i,t} = \mathbf{x}_{i,t} + \mathbf{e}_i + \mathbf{p}_t, \qquad
        \mathbf{c} = \mathbf{c}_0 + \mathbf{e}_0

    Args:
        dim (int): Size :math:`D` of each token.
        places (int or tuple[int, int], optional): The number of nodes of a fixed graph, or the
            rows and columns of patches; :obj:`None` leaves :math:`\mathbf{e}` out.
            (default: :obj:`None`)
        num_frames (int, optional): Number of positions in time, interpolated for another number
            of steps; :obj:`None` leaves :math:`\mathbf{p}` out. (default: :obj:`None`)
        class_token (bool, optional): Whether there is a class token. (default: :obj:`False`)

    Shapes:
        - **input:** :math:`(|\mathcal{V}|, *, T, D)`
        - **output:** :math:`(|\mathcal{V}|, *, T, D)`, and :math:`(G, *, 1, D)` or :obj:`None`

    Raises:
        ValueError: If the graphs are not the one that the nodes were embedded for.
    """

    cls: Tensor | None

    def __init__(
        self,
        dim: int,
        places: int | tuple[int, int] | None = None,
        num_frames: int | None = None,
        class_token: bool = False,
    ) -> None:
        super().__init__()
        self.space = self.time = None
        if places is not None:
            self.space = SpatialPositionalEncoding(dim, places, class_token)
        if num_frames is not None:
            self.time = TemporalPositionalEncoding(dim, num_frames, interpolate=True)
        token = nn.Parameter(torch.empty(dim)) if class_token else None
        self.register_parameter("cls", token)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        for module in self.children():
            reset(module)
        if self.cls is not None:
            nn.init.trunc_normal_(self.cls, std=0.02)

    def forward(
        self, x: Tensor, grid: tuple[int, int] | None = None, num_graphs: int = 1
    ) -> tuple[Tensor, Tensor | None]:
        r"""Places the tokens.

        Args:
            x (torch.Tensor): The tokens.
            grid (tuple[int, int], optional): The rows and columns of patches; without it the
                tokens are nodes of graphs. (default: :obj:`None`)
            num_graphs (int, optional): The number of graphs :math:`G`. (default: :obj:`1`)
        """
        cls = self.cls
        if self.space is not None:
            place = self.space(grid if grid is not None else x.size(0) // max(num_graphs, 1))
            if cls is not None:
                cls, place = cls + place[0], place[1:]
            if len(place) * num_graphs != x.size(0):
                raise ValueError(
                    f"{num_graphs} graphs of {len(place)} nodes each have "
                    f"{len(place) * num_graphs} nodes, got {x.size(0)}"
                )
            place = place.repeat(num_graphs, 1)
            x = x + place.reshape(x.size(0), *[1] * (x.dim() - 2), -1).to(x.dtype)
        if self.time is not None:
            x = self.time(x)
        if cls is not None:
            cls = cls.to(x.dtype).expand(num_graphs, *x.shape[1:-2], 1, -1)
        return x, cls
