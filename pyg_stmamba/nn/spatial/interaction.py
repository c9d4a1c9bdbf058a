from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pyg_stmamba.nn.perceptron import Perceptron
from pyg_stmamba.nn.spatial.spatial_operator import SpatialOperator


class SpatialInteraction(SpatialOperator):
    r"""The message passing of the `"Learning Mesh-Based Simulation with Graph Networks"
    <https://arxiv.org/abs/2010.03409>`_ paper, at each instant on its own: messages from both ends
    and the features of an edge, summed at its target.

    .. math::
        \mathbf{m}_{i,j} = \mathrm{MLP}_m \left( \mathbf{x}_i \, \Vert \, \mathbf{x}_j \, \Vert \,
        \mathbf{e}_{i,j} \right), \qquad
        \mathbf{y}_i = \mathrm{MLP}_y \Big( \mathbf{x}_i \, \Vert \, \sum_{j \in \mathcal{N}(i)}
        \mathbf{m}_{i,j} \Big)

    The output is the change of a node, without residual. In networks whose edges change too, the
    message is what is added to an edge, see :meth:`with_messages`.

    The first matrix of the messages has the columns of target, source and edge side by side, but
    those of the nodes are applied to nodes, not to edges, and so is the last matrix where no norm
    stands behind it, since it commutes with the sum.

    Args:
        channels (int): Size of each sample, in and out, and of the messages.
        edge_dim (int, optional): Size of the edge features; :obj:`None` leaves them unused.
            (default: :obj:`None`)
        num_layers (int, optional): Number of hidden layers of both perceptrons.
            (default: :obj:`1`)
        norm (bool, optional): Whether both end with a layer norm. (default: :obj:`False`)

    Shapes:
        - **input:** :math:`(|\mathcal{V}|, *, C)`, edges :math:`(2, |\mathcal{E}|)`,
          edge features :math:`(|\mathcal{E}|, D)` or, for each instant,
          :math:`(|\mathcal{E}|, *, D)` *(only with* :obj:`edge_dim` *)*
        - **output:** :math:`(|\mathcal{V}|, *, C)`
    """

    def __init__(
        self, channels: int, edge_dim: int | None = None, num_layers: int = 1, norm: bool = False
    ) -> None:
        super().__init__()
        self.channels = channels
        self.edge_dim = edge_dim
        ends_and_edge = 2 * channels + (edge_dim or 0)
        self.message = Perceptron(ends_and_edge, channels, channels, num_layers, norm)
        self.update = Perceptron(2 * channels, channels, channels, num_layers, norm)
        self.normalized = norm

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        self.message.reset_parameters()
        self.update.reset_parameters()

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> Tensor:
        if self.normalized:
            return self.with_messages(x, edge_index, edge_attr)[0]
        hidden = self._hidden_messages(x, edge_index, edge_attr)
        last = self.message.last
        degree = _sum_at(hidden.new_ones(hidden.size(0), 1), edge_index[1], x.size(0))
        degree = degree.reshape(-1, *(1,) * (x.dim() - 1))
        total = F.linear(_sum_at(hidden, edge_index[1], x.size(0)), last.weight)
        return self._updated(x, torch.addcmul(total, degree, last.bias))

    def with_messages(
        self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Returns the change of the nodes and the messages, the change of the edges.

        Shapes:
            - **input:** as in :meth:`forward`
            - **output:** :math:`(|\mathcal{V}|, *, C)` and :math:`(|\mathcal{E}|, *, C)`
        """
        hidden = self._hidden_messages(x, edge_index, edge_attr)
        message = self.message.norm(self.message.last(hidden))
        return self._updated(x, _sum_at(message, edge_index[1], x.size(0))), message

    def _hidden_messages(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None) -> Tensor:
        self._check(x, self.channels)
        first = self.message.first
        of_target, of_source, of_edge = first.weight.split(
            [self.channels, self.channels, self.edge_dim or 0], dim=1
        )
        # What is made here is added to in place: new memory of the size of all edges is slow.
        h = F.linear(x, of_target, first.bias).index_select(0, edge_index[1])
        h.add_(F.linear(x, of_source).index_select(0, edge_index[0]))
        if self.edge_dim is not None:
            edge = F.linear(self._edge_features(edge_attr, edge_index), of_edge)
            h.add_(edge.reshape(edge.size(0), *(1,) * (h.dim() - edge.dim()), *edge.shape[1:]))
        return self.message.hidden(h)

    def _updated(self, x: Tensor, received: Tensor) -> Tensor:
        return self.update(torch.cat([x, received], dim=-1))

    def _edge_features(self, edge_attr: Tensor | None, edge_index: Tensor) -> Tensor:
        given = None if edge_attr is None else list(edge_attr.shape)
        if edge_attr is not None and edge_attr.dim() == 1:
            edge_attr = edge_attr.unsqueeze(-1)
        if (
            edge_attr is None
            or edge_attr.size(0) != edge_index.size(1)
            or edge_attr.size(-1) != self.edge_dim
        ):
            raise ValueError(
                f"{type(self).__name__} expects edge features of shape [E, {self.edge_dim}] or "
                f"[E, ..., {self.edge_dim}] for E = {edge_index.size(1)} edges, got {given}"
            )
        return edge_attr

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, edge_dim={self.edge_dim})"


def _sum_at(values: Tensor, target: Tensor, num_nodes: int) -> Tensor:
    zeros = values.new_zeros(num_nodes, *values.shape[1:])
    return zeros.index_add_(0, target, values)
