from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn.inits import reset

from pyg_stmamba.nn.blocks.class_token import add_class_token
from pyg_stmamba.nn.blocks.divided import DividedSpaceTimeBlock
from pyg_stmamba.nn.blocks.joint import JointSpaceTimeTransformer
from pyg_stmamba.nn.blocks.spatial_transformer import SpatialTransformer

ATTENTION_TYPES = ("divided", "joint", "space_only")


class SpaceTimeStack(nn.Module):
    r"""The layers of a :class:`SpaceTimeTransformer`, with one of the ways to attend over space
    and time that the `"Is Space-Time Attention All You Need for Video Understanding?"
    <https://arxiv.org/abs/2102.05095>`_ paper compares.

    Layers normalize before each phase, and nothing is normalized at the end.

    Args:
        attention_type (str): :obj:`"divided"`, see :class:`DividedSpaceTimeBlock`;
            :obj:`"joint"`, one attention over all tokens of all frames, see
            :class:`JointSpaceTimeTransformer`; or :obj:`"space_only"`, each frame on its own with
            a class token of its own, see :class:`SpatialTransformer`.
        dim (int): Size :math:`D` of each token.
        num_heads (int): Number of heads.
        num_layers (int): Number of layers.
        mlp_ratio (float, optional): Inner size of the feed-forward networks for each of
            :obj:`dim`. (default: :obj:`4.0`)
        dropout (float, optional): Dropout probability. (default: :obj:`0.0`)
        drop_path (float, optional): Probability that a sample goes past a branch of the last
            layer in training; it grows evenly from zero at the first. Divided attention only.
            (default: :obj:`0.0`)
        causal (bool, optional): Whether a step sees itself and earlier ones only; not together
            with a class token. (default: :obj:`False`)
        neighbors_only (bool, optional): Whether a node looks at its neighbors in the graph rather
            than at all nodes; not with joint attention. (default: :obj:`False`)

    Shapes:
        - **input:** :math:`(|\mathcal{V}|, *, T, D)`, class tokens :math:`(G, *, 1, D)`
          *(optional)*, edges :math:`(2, |\mathcal{E}|)` *(optional)*, the graph of each node
          :math:`(|\mathcal{V}|)` *(optional)*
        - **output:** :math:`(|\mathcal{V}|, *, T, D)`, and :math:`(G, *, 1, D)` or :obj:`None`

    Raises:
        ValueError: If the type is unknown, or an option does not go with it.
    """

    layers: Any

    def __init__(
        self,
        attention_type: str,
        dim: int,
        num_heads: int,
        num_layers: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        causal: bool = False,
        neighbors_only: bool = False,
    ) -> None:
        super().__init__()
        if attention_type not in ATTENTION_TYPES:
            raise ValueError(
                f"unknown attention_type {attention_type!r}; choose one of {ATTENTION_TYPES}"
            )
        if attention_type == "joint" and neighbors_only:
            raise ValueError(
                "neighbors_only=True needs attention within an instant: attention_type 'divided' "
                "or 'space_only', got 'joint'"
            )
        if attention_type != "divided" and drop_path > 0:
            raise ValueError(
                f"drop_path={drop_path} needs attention_type='divided', got {attention_type!r}"
            )
        self.attention_type, self.causal = attention_type, causal
        if attention_type == "divided":
            self.layers = nn.ModuleList(
                DividedSpaceTimeBlock(
                    dim,
                    num_heads,
                    mlp_ratio,
                    rate,
                    dropout,
                    causal=causal,
                    neighbors_only=neighbors_only,
                )
                for rate in torch.linspace(0, drop_path, num_layers).tolist()
            )
        elif attention_type == "joint":
            self.layers = JointSpaceTimeTransformer(
                dim, num_heads, num_layers, mlp_ratio, dropout, norm_first=True, causal=causal
            )
        else:
            self.layers = SpatialTransformer(
                dim, num_heads, num_layers, mlp_ratio, dropout, True, neighbors_only
            )

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        reset(self.layers)

    def forward(
        self,
        x: Tensor,
        cls: Tensor | None = None,
        edge_index: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        if cls is not None and self.causal:
            raise ValueError("causal layers take no class token: it gathers all steps")
        run = {
            "divided": self._divided,
            "joint": self._joint,
            "space_only": self._space_only,
        }[self.attention_type]
        return run(x, cls, edge_index, batch)

    def _divided(
        self, x: Tensor, cls: Tensor | None, edge_index: Tensor | None, batch: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        for block in self.layers:
            out = block(x, edge_index, batch=batch, cls=cls, nodes_first=True)
            x, cls = out if cls is not None else (out, None)
        return x, cls

    def _joint(
        self, x: Tensor, cls: Tensor | None, edge_index: Tensor | None, batch: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        if cls is None:
            return self.layers(x, batch=batch, nodes_first=True), None
        joined = add_class_token(x, cls, batch=batch)
        # One class token for all frames: those of the later ones are hidden.
        seen = torch.ones(joined.x.shape[:-1], dtype=torch.bool, device=x.device)
        seen[joined.class_places, ..., 1:] = False
        y = self.layers(joined.x, mask=seen, batch=joined.batch, nodes_first=True)
        cls, x = joined.split(y)
        return x, cls[..., :1, :]

    def _space_only(
        self, x: Tensor, cls: Tensor | None, edge_index: Tensor | None, batch: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        edges = edge_index if self.layers.neighbors_only else None
        if cls is None:
            return self.layers(x, edges, batch=batch, nodes_first=True), None
        joined = add_class_token(x, cls, edges, batch)
        y = self.layers(joined.x, joined.edge_index, batch=joined.batch, nodes_first=True)
        cls, x = joined.split(y)
        return x, cls.mean(-2, keepdim=True)

    def extra_repr(self) -> str:
        return f"attention_type={self.attention_type!r}"
