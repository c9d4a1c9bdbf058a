from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_stmamba.models.mesh_model import MeshModel


class MeshPersistence(MeshModel):
    r"""Forecasts that nothing changes, what any other model has to beat.

    .. math::
        \mathbf{s}_{i,t+1} = \mathbf{s}_{i,t}, \qquad \mathbf{o}_{i,t+1} = \mathbf{o}_{i}

    Outputs are no part of the state, so what they last were has to be told: :obj:`data.outputs`
    :math:`(|\mathcal{V}|, O)` are held where the data have them, else their mean over the training
    data is forecast.

    Args:
        state (dict[str, int]): The fields of the state and their numbers of channels.
        outputs (dict[str, int]): Those of the outputs.
        node_types (Sequence[str]): The classes of nodes.
        edge_channels (int): Number of features of an edge.
        conditions (Sequence[str], optional): Not looked at. (default: :obj:`()`)
        static (dict[str, int], optional): Not looked at. (default: :obj:`None`)
        gradient_dim (int, optional): Not looked at. (default: :obj:`0`)

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
    ) -> None:
        super().__init__(
            state, outputs, node_types, edge_channels, conditions, static, gradient_dim
        )
        self._arguments = {
            name: value for name, value in locals().items() if name not in ("self", "__class__")
        }

    def _forecast(
        self, nodes: Tensor, edges: Tensor, x: Tensor, data: Data, state: Any
    ) -> tuple[Tensor, Any]:
        change = torch.zeros_like(x)
        if self.output_scaler is None:
            return change, None
        last = data.get("outputs")
        if last is None:
            last = self.output_scaler.mean.expand(x.size(0), -1)
        held = self.output_scaler(last).unsqueeze(1).expand(-1, x.size(1), -1)
        return torch.cat([change, held], -1), None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join([*self.state, *self.outputs])})"
