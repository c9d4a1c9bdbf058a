from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_stmamba.data import Scaler
from pyg_stmamba.data.derivatives import (
    derivative_channels,
    derivatives,
    velocity_channels,
)

if TYPE_CHECKING:
    from pyg_stmamba.data.mesh.frame_statistics import FrameStatistics


class MeshModel(nn.Module):
    r"""What models of fields on meshes have in common: what their nodes and edges show, how it is
    scaled, and how a scaled forecast is brought to original units.

    .. math::
        \mathbf{s}_{i,t+1} = \mathbf{s}_{i,t} + \boldsymbol{\sigma}_{\Delta} \odot
        \mathbf{z}^{s}_{i,t}, \qquad
        \mathbf{o}_{i,t+1} = \boldsymbol{\mu}_o + \boldsymbol{\sigma}_o \odot
        \mathbf{z}^{o}_{i,t}

    A model forecasts the scaled change of the state :math:`\mathbf{s}` (as the velocity) and the
    scaled outputs :math:`\mathbf{o}` (as the pressure, which follows from the state and never
    enters). Where the state is given from outside, at nodes that are not predicted, it stays.
    Changes are scaled by their root mean square but not shifted, so zero means no change.
    Scalers are part of the model and of its state dict.

    Subclasses write :meth:`_forecast`.

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
            of the state, see :func:`~pyg_stmamba.data.derivatives.derivatives`.
            (default: :obj:`0`, none)

    Shapes:
        - **input:** a :class:`~torch_geometric.data.Data` or
          :class:`~torch_geometric.data.Batch` with the state :obj:`x`
          :math:`(|\mathcal{V}|, H, S)`, :obj:`edge_index`, :obj:`edge_attr`
          :math:`(|\mathcal{E}|, D)`, :obj:`node_type` :math:`(|\mathcal{V}|)`,
          :obj:`predicted` :math:`(|\mathcal{V}|)`, and where the model sees them
          :obj:`conditions` :math:`(B, P)`, :obj:`static` :math:`(|\mathcal{V}|, F)`,
          :obj:`gradient_index` :math:`(2, M)` and :obj:`gradient_weight` :math:`(M, D)`
        - **output:** after each frame, the state and the outputs of the next one
          :math:`(|\mathcal{V}|, H, S + O)`, in original units
    """

    # What the command line reads unless one chooses otherwise.
    history: int = 1  # frames of a window
    gradients: bool = False
    _arguments: dict[str, Any]

    def __init__(
        self,
        state: Mapping[str, int],
        outputs: Mapping[str, int],
        node_types: Sequence[str],
        edge_channels: int,
        conditions: Sequence[str] = (),
        static: Mapping[str, int] | None = None,
        gradient_dim: int = 0,
    ) -> None:
        super().__init__()
        if not state:
            raise ValueError("state must name at least one field, got none")
        self.state, self.outputs, self.static = dict(state), dict(outputs), dict(static or {})
        self.node_types, self.conditions = tuple(node_types), tuple(conditions)
        self.state_scaler = Scaler(self.state_channels)
        self.change_scaler = Scaler(self.state_channels)
        self.output_scaler = _scaler(self.output_channels)
        self.edge_scaler = Scaler(edge_channels)
        self.condition_scaler = _scaler(len(self.conditions))
        self.static_scaler = _scaler(sum(self.static.values()))
        self.gradient_dim = gradient_dim
        self.derivative_scaler = _scaler(derivative_channels(self.state, gradient_dim))

    @property
    def state_channels(self) -> int:
        r"""The number of channels of the state."""
        return sum(self.state.values())

    @property
    def output_channels(self) -> int:
        r"""The number of channels of the outputs."""
        return sum(self.outputs.values())

    @property
    def edge_channels(self) -> int:
        r"""The number of features of an edge."""
        return self.edge_scaler.channels

    @property
    def node_channels(self) -> int:
        r"""The number of features of a node that :meth:`_forecast` gets."""
        given = len(self.node_types) + len(self.conditions) + sum(self.static.values())
        given += derivative_channels(self.state, self.gradient_dim)
        return self.state_channels + given

    @property
    def streams(self) -> bool:
        r"""Whether a step costs the same however many frames went before."""
        return True

    def config(self) -> dict[str, Any]:
        r"""Returns the arguments of the constructor."""
        return dict(self._arguments)

    @torch.no_grad()
    def fit(self, statistics: FrameStatistics) -> MeshModel:
        r"""Takes the scalers from the training frames, see
        :func:`~pyg_stmamba.data.mesh.frame_statistics.frame_statistics`.

        Args:
            statistics (FrameStatistics): How large everything is.

        Returns:
            MeshModel: itself.
        """
        for scaler, moments in (
            (self.state_scaler, statistics.state),
            (self.output_scaler, statistics.outputs),
            (self.edge_scaler, statistics.edge_attr),
            (self.condition_scaler, statistics.conditions),
            (self.static_scaler, statistics.static),
            (self.derivative_scaler, statistics.derivatives),
        ):
            if scaler is not None:
                scaler.mean.copy_(moments.mean)
                scaler.std.copy_(moments.std)
        self.change_scaler.std.copy_(statistics.change.rms)
        return self

    def forward(self, data: Data) -> Tensor:
        r"""Forecasts the next frame after each frame of a window, see above for the shapes.

        Args:
            data (Data): A window, or a batch of windows.
        """
        return self.prefill(data.x, data)[0]

    def prefill(self, x: Tensor, data: Data, state: Any = None) -> tuple[Tensor, Any]:
        r"""Forecasts the next frame after each of some frames, and returns where it stopped.

        Args:
            x (torch.Tensor): The next frames of the state.
            data (Data): The mesh; what it holds as :obj:`x` is not read.
            state (NamedTuple, optional): What an earlier call returned; :obj:`None` starts anew.
                (default: :obj:`None`)

        Shapes:
            - **input:** :math:`(|\mathcal{V}|, H, S)`
            - **output:** :math:`(|\mathcal{V}|, H, S + O)` and the state
        """
        z, state = self._scaled_forecast(x, data, state)
        return self._in_units(z, x, data.predicted), state

    def step(self, x: Tensor, data: Data, state: Any = None) -> tuple[Tensor, Any]:
        r"""Forecasts the next frame after one more frame: :meth:`prefill` on a single frame.

        Shapes:
            - **input:** :math:`(|\mathcal{V}|, S)`
            - **output:** :math:`(|\mathcal{V}|, S + O)` and the state
        """
        y, state = self.prefill(x.unsqueeze(1), data, state)
        return y.squeeze(1), state

    def loss(
        self,
        data: Data,
        skip: int = 0,
        weights: Mapping[str, float] | None = None,
        unroll: int = 0,
    ) -> Tensor:
        r"""The mean square of the errors of a window or batch in scaled units: those of the state
        over the predicted nodes, those of the outputs over all nodes, since they are given nowhere.

        With :obj:`unroll` the last frames of a window are not given, but what the model itself
        has predicted, so that it learns not to let its errors grow. With :math:`L_k` the mean
        square of predictions :math:`k` steps after the last given frame, and :math:`L_1` that
        after all given frames,

        .. math::
            L = \sum_{k=1}^{K+1} \frac{L_k}{k} \, \Big/ \, \sum_{k=1}^{K+1} \frac{1}{k}

        and gradients go through all steps.

        Args:
            data (Data): Windows, with the next frames :obj:`y`.
            skip (int, optional): Number of frames at the start of a window that do not count,
                because little came before them. (default: :obj:`0`)
            weights (dict[str, float], optional): How much a channel of a field counts.
                (default: :obj:`None`, all the same)
            unroll (int, optional): Number of frames :math:`K` at the end of a window that the
                model predicts before it reads them. (default: :obj:`0`)

        Shapes:
            - **input:** :obj:`y` :math:`(|\mathcal{V}|, H, S + O)`
            - **output:** a number
        """
        frames = data.x.size(1)
        given = frames - unroll
        if not 0 <= skip < given <= frames:
            raise ValueError(
                f"skip={skip} and unroll={unroll} must leave a frame of the {frames} of a window"
            )
        x = data.x[:, :given]
        z, carried = self._scaled_forecast(x, data, None)
        squares = [self._mean_squares(z[:, skip:], x[:, skip:], data.y[:, skip:given], data)]
        predicted = data.predicted.view(-1, 1, 1)
        for frame in range(given, frames):
            own = self._in_units(z[:, -1:], x[:, -1:], data.predicted)[..., : self.state_channels]
            x = torch.where(predicted, own, data.x[:, frame : frame + 1])
            z, carried = self._scaled_forecast(x, data, carried)
            squares.append(self._mean_squares(z, x, data.y[:, frame : frame + 1], data))
        shares = 1 / torch.arange(1, len(squares) + 1, device=z.device).unsqueeze(1)
        of_channels = (shares * torch.stack(squares)).sum(0) / shares.sum()
        weight = self._channel_weights(weights).to(z)
        return (of_channels * weight).sum() / weight.sum()

    def _forecast(
        self, nodes: Tensor, edges: Tensor, x: Tensor, data: Data, state: Any
    ) -> tuple[Tensor, Any]:
        r"""Returns the scaled forecast after each frame, and the state.

        Args:
            nodes (torch.Tensor): Scaled features of the nodes.
            edges (torch.Tensor): Scaled features of the edges.
            x (torch.Tensor): The frames in original units.
            data (Data): The mesh.
            state (NamedTuple, optional): What an earlier call returned.

        Shapes:
            - **input:** :math:`(|\mathcal{V}|, H, F)`, :math:`(|\mathcal{E}|, D)`,
              :math:`(|\mathcal{V}|, H, S)`
            - **output:** :math:`(|\mathcal{V}|, H, S + O)` and the state
        """
        raise NotImplementedError

    def _scaled_forecast(self, x: Tensor, data: Data, state: Any) -> tuple[Tensor, Any]:
        if x.dim() != 3 or x.size(-1) != self.state_channels:
            raise ValueError(
                f"{type(self).__name__} takes frames [N, H, {self.state_channels}] of "
                f"{', '.join(self.state)}, got x of shape {list(x.shape)}"
            )
        edges = _scaled(data, "edge_attr", self.edge_scaler)
        return self._forecast(self._node_features(x, data), edges, x, data, state)

    def _node_features(self, x: Tensor, data: Data) -> Tensor:
        given = [self._one_hot(data.node_type).to(x)]
        if self.condition_scaler is not None:
            of_graph = _scaled(data, "conditions", self.condition_scaler)
            batch = data.get("batch")
            given.append(of_graph.expand(x.size(0), -1) if batch is None else of_graph[batch])
        if self.static_scaler is not None:
            given.append(_scaled(data, "static", self.static_scaler))
        frames = torch.cat(given, -1).unsqueeze(1).expand(-1, x.size(1), -1)
        of_frame = [self.state_scaler(x)]
        if self.derivative_scaler is not None:
            of_frame.append(self.derivative_scaler(self._derivatives(x, data)))
        return torch.cat([*of_frame, frames], -1)

    def _derivatives(self, x: Tensor, data: Data) -> Tensor:
        index, weight = data.get("gradient_index"), data.get("gradient_weight")
        if weight is None or weight.size(1) != self.gradient_dim:
            given = None if weight is None else list(weight.shape)
            raise ValueError(
                f"the model was built for data with gradient_weight [M, {self.gradient_dim}], as "
                f"of a protocol with gradients=True, got {given}"
            )
        return derivatives(x, index, weight, velocity_channels(self.state, self.gradient_dim))

    def _one_hot(self, node_type: Tensor) -> Tensor:
        if node_type.numel() > 0 and int(node_type.max()) >= len(self.node_types):
            raise ValueError(
                f"node type {int(node_type.max())} is unknown to this model; it knows 0 to "
                f"{len(self.node_types) - 1} ({', '.join(self.node_types)})"
            )
        return F.one_hot(node_type, len(self.node_types))

    def _mean_squares(self, z: Tensor, x: Tensor, y: Tensor, data: Data) -> Tensor:
        """The mean square of the scaled errors of each channel."""
        next_state, outputs = y.split([self.state_channels, self.output_channels], -1)
        wanted = self.change_scaler(next_state - x)
        error = (z[..., : self.state_channels] - wanted)[data.predicted]
        squares = [error.square().mean((0, 1))]
        if self.output_scaler is not None:
            error = z[..., self.state_channels :] - self.output_scaler(outputs)
            squares.append(error.square().mean((0, 1)))
        return torch.cat(squares)

    def _in_units(self, z: Tensor, x: Tensor, predicted: Tensor) -> Tensor:
        change = self.change_scaler.inverse(z[..., : self.state_channels])
        parts = [x + change.where(predicted.view(-1, 1, 1), 0.0)]
        if self.output_scaler is not None:
            parts.append(self.output_scaler.inverse(z[..., self.state_channels :]))
        return torch.cat(parts, -1)

    def _channel_weights(self, weights: Mapping[str, float] | None) -> Tensor:
        weights = weights or {}
        fields = self.state | self.outputs
        for name in weights:
            if name not in fields:
                raise ValueError(f"no field {name!r} to weigh; there are {', '.join(fields)}")
        weight = torch.tensor([weights.get(name, 1.0) for name in fields])
        return weight.repeat_interleave(torch.tensor(list(fields.values())))


def _scaler(channels: int) -> Scaler | None:
    return Scaler(channels) if channels > 0 else None


def _scaled(data: Data, name: str, scaler: Scaler) -> Tensor:
    values = data.get(name)
    if values is None or values.size(-1) != scaler.channels:
        given = None if values is None else list(values.shape)
        raise ValueError(
            f"the model was built for data with {scaler.channels} {name} (last dimension), got "
            f"{given}"
        )
    return scaler(values)
