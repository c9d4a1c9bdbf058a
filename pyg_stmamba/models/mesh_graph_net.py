from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch_geometric.data import Data

from pyg_stmamba.models.mesh_model import MeshModel
from pyg_stmamba.nn.perceptron import Perceptron
from pyg_stmamba.nn.spatial.interaction import SpatialInteraction


class MeshGraphNet(MeshModel):
    r"""The network of the `"Learning Mesh-Based Simulation with Graph Networks"
    <https://arxiv.org/abs/2010.03409>`_ paper: steps of message passing with parameters of their
    own over nodes and edges that both change. It has no memory: each frame of a window is a sample
    on its own.

    .. math::
        \mathbf{m}_{i,j} &= \mathrm{MLP}^{(l)}_e ( \mathbf{h}_i \, \Vert \, \mathbf{h}_j
        \, \Vert \, \mathbf{e}_{i,j} ), \qquad
        \mathbf{e}_{i,j} \leftarrow \mathbf{e}_{i,j} + \mathbf{m}_{i,j}

        \mathbf{h}_i &\leftarrow \mathbf{h}_i + \mathrm{MLP}^{(l)}_v \Big( \mathbf{h}_i \, \Vert \,
        \sum_j \mathbf{m}_{i,j} \Big)

    All perceptrons have ReLU and end with a layer norm, save the one that decodes.

    Args:
        state (dict[str, int]): The fields of the state and their numbers of channels.
        outputs (dict[str, int]): Those of the outputs.
        node_types (Sequence[str]): The classes of nodes.
        edge_channels (int): Number of features of an edge.
        conditions (Sequence[str], optional): Names of the parameters of a simulation that the
            model sees. (default: :obj:`()`)
        static (dict[str, int], optional): The node fields without time that the model sees and
            their numbers of channels. (default: :obj:`None`)
        gradient_dim (int, optional): Number of directions along which the model sees derivatives
            of the state. (default: :obj:`0`, none)
        channels (int, optional): Width of everything. (default: :obj:`128`)
        num_steps (int, optional): Number of steps of message passing. (default: :obj:`15`)
        num_layers (int, optional): Number of hidden layers of each perceptron.
            (default: :obj:`2`)
        recompute (bool, optional): Whether steps are computed again in the backward pass, which
            takes a third more time and far less memory. (default: :obj:`False`)

    Shapes:
        see :class:`~pyg_stmamba.models.mesh_model.MeshModel`
    """

    def __init__(
        self,
        state: Mapping[str, int],
        outputs: Mapping[str, int],
        node_types: Sequence[str],
        edge_channels: int,
        *,
        conditions: Sequence[str] = (),
        static: Mapping[str, int] | None = None,
        gradient_dim: int = 0,
        channels: int = 128,
        num_steps: int = 15,
        num_layers: int = 2,
        recompute: bool = False,
    ) -> None:
        super().__init__(
            state, outputs, node_types, edge_channels, conditions, static, gradient_dim
        )
        self._arguments = {
            name: value for name, value in locals().items() if name not in ("self", "__class__")
        }
        self.channels = channels
        self.recompute = recompute
        self.node_encoder = Perceptron(self.node_channels, channels, channels, num_layers, True)
        self.edge_encoder = Perceptron(edge_channels, channels, channels, num_layers, True)
        self.steps = nn.ModuleList(
            SpatialInteraction(channels, channels, num_layers, norm=True) for _ in range(num_steps)
        )
        out_channels = self.state_channels + self.output_channels
        self.decoder = Perceptron(channels, channels, out_channels, num_layers)

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew; the scalers stay as they are."""
        for module in (self.node_encoder, self.edge_encoder, *self.steps, self.decoder):
            module.reset_parameters()  # type: ignore[operator]

    def _forecast(
        self, nodes: Tensor, edges: Tensor, x: Tensor, data: Data, state: Any
    ) -> tuple[Tensor, Any]:
        h = self.node_encoder(nodes)
        e = self.edge_encoder(edges).unsqueeze(1)  # the same at all frames
        for step in self.steps:
            if self.recompute and torch.is_grad_enabled():
                changes: Any = checkpoint(
                    step.with_messages, h, data.edge_index, e, use_reentrant=False
                )
            else:
                changes = step.with_messages(h, data.edge_index, e)  # type: ignore[operator]
            h, e = h + changes[0], e + changes[1]
        return self.decoder(h), None

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({', '.join(self.state)} -> "
            f"{', '.join([*self.state, *self.outputs])}, channels={self.channels}, "
            f"num_steps={len(self.steps)})"
        )
