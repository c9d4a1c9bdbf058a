from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from pyg_stmamba.nn.spatial.spatial_operator import SpatialOperator


class Snapshot(SpatialOperator):
    r"""Runs any graph convolution of PyG at each instant on its own.

    A convolution reads :obj:`[N, C]`; fed :obj:`[N, T, C]` some refuse and some silently mix the
    time.
    Here each (node, instant) becomes a node of one large graph, in which every edge is repeated
    within each instant.

    .. code-block:: python

        conv = Snapshot(TransformerConv(64, 16, heads=4, edge_dim=1))
        out = conv(x, edge_index, edge_attr)  # x[N, T, 64] -> [N, T, 64]

    Args:
        conv (torch.nn.Module): The convolution, called as :obj:`conv(x, edge_index)`. Edge
            features go to its argument :obj:`edge_attr` or :obj:`edge_weight`; a convolution that
            has neither sees the edges alone.

    Shapes:
        - **input:** :math:`(|\mathcal{V}|, *, F_{in})`, edges :math:`(2, |\mathcal{E}|)`,
          edge features :math:`(|\mathcal{E}|, D)` or, for each instant,
          :math:`(|\mathcal{E}|, *, D)` *(optional)*
        - **output:** :math:`(|\mathcal{V}|, *, F_{out})`
    """

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        if getattr(conv, "cached", False):
            raise ValueError(
                f"{conv!r} caches the graph of its first call, but the repeated graph changes "
                f"with the number of instants; build it with cached=False"
            )
        self.conv = conv
        names = inspect.signature(conv.forward).parameters
        self.edge_argument = next((n for n in ("edge_attr", "edge_weight") if n in names), None)

    def reset_parameters(self) -> None:
        r"""Draws all parameters of the convolution anew."""
        reset: Any = getattr(self.conv, "reset_parameters", None)
        if reset is not None:
            reset()

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> Tensor:
        instants = x.shape[1:-1]
        count = instants.numel()
        options = {}
        if edge_attr is not None and self.edge_argument is not None:
            options[self.edge_argument] = self._repeat_attr(edge_attr, edge_index, instants)
        out = self.conv(x.reshape(-1, x.size(-1)), self._repeat_index(edge_index, count), **options)
        return out.reshape(x.size(0), *instants, out.size(-1))

    def _repeat_index(self, edge_index: Tensor, count: int) -> Tensor:
        instant = torch.arange(count, device=edge_index.device)
        return (edge_index.unsqueeze(-1) * count + instant).flatten(1)

    def _repeat_attr(self, edge_attr: Tensor, edge_index: Tensor, instants: torch.Size) -> Tensor:
        given, edges = list(edge_attr.shape), edge_index.size(1)
        if edge_attr.dim() == 1:
            edge_attr = edge_attr.unsqueeze(-1)
        one = self.edge_argument == "edge_weight"
        if edge_attr.size(0) != edges or (one and edge_attr.size(-1) != 1):
            size = "1" if one else "D"
            raise ValueError(
                f"{self!r} expects edge features of shape [E, {size}] or [E, ..., {size}] for "
                f"E = {edges} edges, got {given}"
            )
        missing = (1,) * (len(instants) + 2 - edge_attr.dim())
        edge_attr = edge_attr.reshape(edges, *missing, *edge_attr.shape[1:])
        edge_attr = edge_attr.expand(edges, *instants, -1)
        return edge_attr.flatten() if one else edge_attr.reshape(-1, edge_attr.size(-1))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.conv!r})"
