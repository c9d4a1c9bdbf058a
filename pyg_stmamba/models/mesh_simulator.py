from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_stmamba.models.mesh_model import MeshModel
from pyg_stmamba.nn import STMambaBlock, TemporalMamba, TemporalPerformer, redraw_when_due
from pyg_stmamba.nn.embedding.spectral_time import SpectralTimeEmbedding
from pyg_stmamba.nn.perceptron import Perceptron
from pyg_stmamba.nn.spatial.resolver import WITH_EDGE_FEATURES
from pyg_stmamba.nn.spatial.spatial_operator import SpatialOperator
from pyg_stmamba.nn.temporal.temporal_operator import TemporalOperator

WITHOUT_EDGES = (None, "attention", "dot")


class SimulatorState(NamedTuple):
    r"""Where a :class:`MeshSimulator` stopped."""

    frame: Tensor  # [B], the number of the next frame in each trajectory
    last: Tensor  # [N, S], the last frame seen
    blocks: tuple[Any, ...]  # the states of the temporal operators


class MeshSimulator(MeshModel):
    r"""Forecasts fields on a mesh from their history with a stack of
    :class:`~pyg_stmamba.nn.STMambaBlock`: an operator on the mesh at each frame, such as the
    message passing of `"Learning Mesh-Based Simulation with Graph Networks"
    <https://arxiv.org/abs/2010.03409>`_, then one over the frames at each node, such as `"Mamba:
    Linear-Time Sequence Modeling with Selective State Spaces"
    <https://arxiv.org/abs/2312.00752>`_.

    .. math::
        \mathbf{h}^{(0)}_{i,t} = \mathrm{MLP}_v \left( \mathbf{v}_{i,t} \right), \qquad
        \mathbf{e}_{i,j} = \mathrm{MLP}_e \left( \mathbf{r}_{i,j} \right), \qquad
        \mathbf{h}^{(l)} = \mathrm{Block}_l \left( \mathbf{h}^{(l-1)}, \mathbf{e} \right), \qquad
        \mathbf{z}_{i,t} = \mathrm{MLP}_z \left( \mathbf{h}^{(L)}_{i,t} \right)

    All is causal, so that each frame of a window is a sample, with the frames before it as its
    history, and one pass trains them all. In a rollout the state takes the place of the history.
    At the start all forecast changes are zero: the untrained model is persistence.

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
        channels (int, optional): Width of the hidden representation. (default: :obj:`64`)
        num_layers (int, optional): Number of blocks. (default: :obj:`4`)
        spatial (str, SpatialOperator, None or a list of them, optional): The operator on the mesh,
            as in :class:`~pyg_stmamba.nn.STMambaBlock`; a list is gone through layer by layer.
            (default: :obj:`"interaction"`)
        temporal (str, TemporalOperator, None or a list of them, optional): The operator over the
            frames, likewise; it must be causal. (default: :obj:`"mamba"`)
        d_state (int, optional): Size of the state of a channel of Mamba. (default: :obj:`16`)
        d_conv (int, optional): Width of the convolution of Mamba. (default: :obj:`4`)
        expand (int, optional): Expansion factor of Mamba. (default: :obj:`2`)
        num_heads (int, optional): Number of heads of attention operators. (default: :obj:`4`)
        feed_forward (str, optional): A third phase of each block, on each node and frame alone,
            as in :class:`~pyg_stmamba.nn.STMambaBlock`. (default: :obj:`None`)
        norm (str, optional): :obj:`"pre"` or :obj:`"post"`. (default: :obj:`"pre"`)
        dropout (float, optional): Dropout after each phase. (default: :obj:`0.0`)
        last_change (bool, optional): Whether a node also sees how its state changed from the
            frame before (zero at the first frame). (default: :obj:`True`)
        spectral_time (int, optional): Number of dominant frequencies of the training data whose
            waves tell the time, see :class:`~pyg_stmamba.nn.SpectralTimeEmbedding`; time is
            counted in frames from time 0 of a trajectory. For flows that follow a clock, as
            behind an oscillating inlet. (default: :obj:`0`)

    Shapes:
        see :class:`~pyg_stmamba.models.mesh_model.MeshModel`; with :obj:`spectral_time` the data
        hold the number of the first frame as :obj:`start` :math:`(B)`, else it is 0

    Raises:
        ValueError: If a temporal operator is not causal.
    """

    history = 8
    gradients = True

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
        channels: int = 64,
        num_layers: int = 4,
        spatial: str
        | SpatialOperator
        | Sequence[str | SpatialOperator | None]
        | None = "interaction",
        temporal: str | TemporalOperator | Sequence[str | TemporalOperator | None] | None = "mamba",
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        num_heads: int = 4,
        feed_forward: str | None = None,
        norm: Literal["pre", "post"] = "pre",
        dropout: float = 0.0,
        last_change: bool = True,
        spectral_time: int = 0,
    ) -> None:
        super().__init__(
            state, outputs, node_types, edge_channels, conditions, static, gradient_dim
        )
        self._arguments = {
            name: value for name, value in locals().items() if name not in ("self", "__class__")
        }
        self.channels = channels
        self.last_change = last_change
        spectral_time = int(spectral_time)
        # A simulation is short: segments of it would hold too few periods.
        embedding = SpectralTimeEmbedding(spectral_time, method="fft") if spectral_time else None
        self.spectral_time = embedding
        in_channels = self.node_channels + 2 * spectral_time
        in_channels += self.state_channels if last_change else 0
        self.node_encoder = Perceptron(in_channels, channels, channels, norm=True)
        on_meshes = [_of_layer(spatial, layer) for layer in range(num_layers)]
        self.edge_encoder: Perceptron | None = None
        if any(on_mesh not in WITHOUT_EDGES for on_mesh in on_meshes):
            self.edge_encoder = Perceptron(edge_channels, channels, channels, norm=True)
        self.blocks = nn.ModuleList()
        for layer, on_mesh in enumerate(on_meshes):
            over_time = _of_layer(temporal, layer)
            block = STMambaBlock(
                channels,
                d_state,
                d_conv,
                expand,
                num_heads,
                dropout,
                spatial=on_mesh,
                temporal=over_time,
                edge_dim=channels if on_mesh in WITH_EDGE_FEATURES else None,
                norm=norm,
                feed_forward=feed_forward,
            )
            if not block.causal:
                raise ValueError(f"temporal={over_time!r} is not causal, so it cannot forecast")
            self.blocks.append(block)
        self.final_norm = nn.LayerNorm(channels) if norm == "pre" else nn.Identity()
        self.decoder = Perceptron(channels, channels, self.state_channels + self.output_channels)
        self._start_at_persistence()

    @property
    def streams(self) -> bool:
        r"""Whether a step costs the same however many frames went before: not with softmax
        attention, which looks at all of them."""
        constant = (TemporalMamba, TemporalPerformer, type(None))
        return all(isinstance(block.temporal, constant) for block in self.blocks)

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew; scalers and frequencies stay as they are."""
        parts = (self.node_encoder, self.edge_encoder, *self.blocks, self.final_norm, self.decoder)
        for part in parts:
            reset: Any = getattr(part, "reset_parameters", None)
            if reset is not None:
                reset()
        self._start_at_persistence()

    def get_aux_loss(self) -> Tensor:
        r"""The balancing losses of the experts in the last pass of training."""
        blocks: Any = self.blocks
        losses = [block.get_aux_loss() for block in blocks]
        return torch.stack(losses).sum() if losses else torch.zeros(())

    def loss(
        self,
        data: Data,
        skip: int = 0,
        weights: Mapping[str, float] | None = None,
        unroll: int = 0,
    ) -> Tensor:
        redraw_when_due(self)
        return super().loss(data, skip, weights, unroll)

    def _forecast(
        self, nodes: Tensor, edges: Tensor, x: Tensor, data: Data, state: Any
    ) -> tuple[Tensor, SimulatorState]:
        frame = self._first_frame(data, x) if state is None else state.frame
        features = [nodes]
        if self.last_change:
            before = x[:, :1] if state is None else state.last.unsqueeze(1)
            features.append(self.change_scaler(x.diff(dim=1, prepend=before)))
        if self.spectral_time is not None:
            features.append(self._waves(self.spectral_time, frame, data, x))
        h = self.node_encoder(torch.cat(features, -1))
        e = None if self.edge_encoder is None else self.edge_encoder(edges)
        block_states = []
        blocks: Any = self.blocks
        before_blocks = [None] * len(blocks) if state is None else state.blocks
        for block, block_state in zip(blocks, before_blocks):
            h, block_state = block.prefill(
                h, data.edge_index, e, block_state, batch=data.get("batch")
            )
            block_states.append(block_state)
        z = self.decoder(self.final_norm(h))
        return z, SimulatorState(frame + x.size(1), x[:, -1], tuple(block_states))

    def _first_frame(self, data: Data, x: Tensor) -> Tensor:
        start = data.get("start")
        return torch.zeros(1, dtype=torch.long, device=x.device) if start is None else start

    def _waves(
        self, embedding: SpectralTimeEmbedding, frame: Tensor, data: Data, x: Tensor
    ) -> Tensor:
        times = frame.unsqueeze(-1) + torch.arange(x.size(1), device=x.device)
        waves = embedding(times.double().unsqueeze(-1)).to(x)  # [B, H, 2 K]
        batch = data.get("batch")
        if batch is None or waves.size(0) == 1:
            return waves.expand(x.size(0), -1, -1)
        return waves[batch]

    def _start_at_persistence(self) -> None:
        nn.init.zeros_(self.decoder.last.weight)
        nn.init.zeros_(self.decoder.last.bias)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({', '.join(self.state)} -> "
            f"{', '.join([*self.state, *self.outputs])}, channels={self.channels}, "
            f"num_layers={len(self.blocks)})"
        )


def _of_layer(operator: Any, layer: int) -> Any:
    return operator[layer % len(operator)] if isinstance(operator, list | tuple) else operator
