from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_stmamba.models.readout import Readout
from pyg_stmamba.models.window_encoder import Encoding, WindowEncoder
from pyg_stmamba.models.window_forecaster import WindowForecaster
from pyg_stmamba.nn import SpatialOperator, STMambaBlock, TemporalOperator, redraw_when_due
from pyg_stmamba.nn.spatial import WITH_EDGE_FEATURES


class STMamba(WindowForecaster):
    r"""Forecasts series on the nodes of a graph with a stack of :class:`STMambaBlock`, attention
    over the neighbors of a node at each instant and a Mamba over time at each node, after
    `"Graph Attention Networks" <https://arxiv.org/abs/1710.10903>`_ and `"Mamba: Linear-Time
    Sequence Modeling with Selective State Spaces" <https://arxiv.org/abs/2312.00752>`_.

    .. math::
        \mathbf{h}^{(0)}, \mathbf{v}, \mathbf{c} &= \textrm{Encoder}(\mathbf{x}, \mathbf{m}, t),
        \qquad \mathbf{h}^{(l)} = \textrm{Block}_l \left( \mathbf{h}^{(l-1)} \right)

        \hat{y}_{i,t+1 \ldots t+H} &= \mu + \sigma \, \textrm{Readout} \left(
        \big\Vert_{\tau = t-W+1}^{t} \left[ \mathbf{h}^{(L)}_{i,\tau} \, \Vert \,
        \mathbf{v}_{i,\tau} \right] \, \Vert \, \mathbf{c}_i \right)

    where the :class:`~pyg_stmamba.models.window_encoder.WindowEncoder` gives values, flags of
    what is missing, times and nodes a common representation, and
    the :class:`~pyg_stmamba.models.readout.Readout` is a residual perceptron.
    Values go in and forecasts come out in original units: the :attr:`scaler` is part of the model
    and of its state dict. Missing values (:math:`m = 0`) enter as the mean, beside their flag.
    Without node embeddings the model works on graphs that it was not trained on.

    Args:
        in_channels (int, optional): Channels of the series. (default: :obj:`1`)
        channels (int, optional): Width of the hidden representation. (default: :obj:`64`)
        num_layers (int, optional): Number of blocks. (default: :obj:`2`)
        window (int, optional): Number of steps in. (default: :obj:`12`)
        horizon (int, optional): Number of steps ahead. (default: :obj:`12`)
        target_channels (Sequence[int], optional): The channels to forecast.
            (default: :obj:`(0, )`)
        num_nodes (int, optional): Number of nodes of a fixed graph, needed for node embeddings.
            (default: :obj:`None`)
        node_embedding (bool, optional): Whether each node of a fixed graph gets an embedding of
            its own; without :obj:`num_nodes` there is none. (default: :obj:`True`)
        steps_per_day (int, optional): Number of times of the day. If :obj:`None`, neither
            time of day nor day of week are used. (default: :obj:`None`)
        time_embedding (bool, optional): Whether each time of the day and each day of the week
            gets an embedding, if there is :obj:`steps_per_day`. (default: :obj:`True`)
        weekly_profile (bool, optional): Whether the model also sees what each node of a fixed
            graph shows on average at the times of the week of the window and of the horizon, see
            :class:`~pyg_stmamba.models.weekly_profile.WeeklyProfile`. Needs :obj:`num_nodes` and
            :obj:`steps_per_day`. (default: :obj:`False`)
        spatial (str, SpatialOperator, None or a list of them, optional): The operator over the
            nodes, as in :class:`STMambaBlock`; a list is gone through layer by layer.
            (default: :obj:`"gat"`)
        temporal (str, TemporalOperator, None or a list of them, optional): The operator over
            time, likewise. (default: :obj:`"mamba"`)
        d_state (int, optional): Size of the state of a channel of Mamba. (default: :obj:`16`)
        d_conv (int, optional): Width of the convolution of Mamba. (default: :obj:`4`)
        expand (int, optional): Expansion factor of Mamba. (default: :obj:`2`)
        num_heads (int, optional): Number of heads of attention operators. (default: :obj:`4`)
        edge_dim (int, optional): Number of features of an edge. (default: :obj:`None`)
        feed_forward (str, optional): A third phase of each block, on each node and step alone:
            :obj:`"swiglu"`, :obj:`"gelu"`, :obj:`"relu"`, :obj:`"silu"` or :obj:`"moe"`, see
            :class:`STMambaBlock`. (default: :obj:`None`)
        num_experts (int, optional): Number of experts of :obj:`"moe"`. (default: :obj:`8`)
        top_k (int, optional): Number of experts of a node and step. (default: :obj:`2`)
        norm (str, optional): :obj:`"pre"` or :obj:`"post"`. (default: :obj:`"pre"`)
        dropout (float, optional): Dropout after each phase. (default: :obj:`0.1`)
        input_dropout (float, optional): Probability with which an observed value is hidden in
            training, as if it were missing. (default: :obj:`0.0`)
        instance_norm (bool, optional): Whether the series of each node in each window is
            normalized by the mean and standard deviation of what is observed of it, and its
            forecast brought back with them, see :class:`~pyg_stmamba.nn.norm.RevIN`. A series at
            another level or scale then has its forecast at that level and scale. Needs
            :obj:`readout="window"`: a step of a stream cannot know the statistics of steps to
            come. (default: :obj:`False`)
        readout (str, optional): :obj:`"window"` forecasts from the representations of all the
            steps of a window of fixed length, :obj:`"last"` from that of the last step, which
            takes series of any length and allows streaming. (default: :obj:`"window"`)
        readout_channels (int, optional): Width of the readout.
            (default: :obj:`None`, four times :obj:`channels`)
        readout_layers (int, optional): Number of residual layers of the readout.
            (default: :obj:`2`)

    Shapes:
        - **input:** a :class:`~torch_geometric.data.Data` of one window, a
          :class:`~torch_geometric.data.Batch` of windows or what
          :func:`~pyg_stmamba.data.collate_shared` gives; or values
          :math:`(N, T, C)`, :math:`(B, T, N, C)`, or :math:`(N, B, T, C)` with
          :obj:`nodes_first=True`
        - **output:** forecasts :math:`(N, H, C_y)`, :math:`(B, H, N, C_y)` or
          :math:`(N, B, H, C_y)`, in original units
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: int = 64,
        num_layers: int = 2,
        window: int = 12,
        horizon: int = 12,
        *,
        target_channels: Sequence[int] = (0,),
        num_nodes: int | None = None,
        node_embedding: bool = True,
        steps_per_day: int | None = None,
        time_embedding: bool = True,
        weekly_profile: bool = False,
        spatial: str | SpatialOperator | Sequence[str | SpatialOperator | None] | None = "gat",
        temporal: str | TemporalOperator | Sequence[str | TemporalOperator | None] | None = "mamba",
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        num_heads: int = 4,
        edge_dim: int | None = None,
        feed_forward: str | None = None,
        num_experts: int = 8,
        top_k: int = 2,
        norm: Literal["pre", "post"] = "pre",
        dropout: float = 0.1,
        input_dropout: float = 0.0,
        instance_norm: bool = False,
        readout: str = "window",
        readout_channels: int | None = None,
        readout_layers: int = 2,
    ) -> None:
        super().__init__()
        if readout not in ("window", "last"):
            raise ValueError(f"readout={readout!r} is unknown; choose from 'window', 'last'")
        if instance_norm and readout == "last":
            raise ValueError(
                "instance_norm=True needs readout='window', got readout='last'; the statistics of "
                "a whole window are not known while it streams in"
            )
        if any(not 0 <= channel < in_channels for channel in target_channels):
            raise ValueError(
                f"target_channels={tuple(target_channels)} must lie in 0..{in_channels - 1} "
                f"(in_channels={in_channels})"
            )
        self._arguments = {
            name: value for name, value in locals().items() if name not in ("self", "__class__")
        }
        self.in_channels, self.channels = in_channels, channels
        self.window, self.horizon, self.readout = window, horizon, readout
        self.target_channels = tuple(target_channels)
        self.encoder = WindowEncoder(
            in_channels,
            channels,
            horizon,
            self.target_channels,
            num_nodes,
            steps_per_day,
            node_embedding,
            time_embedding,
            weekly_profile,
            input_dropout,
            instance_norm,
        )
        self.blocks = nn.ModuleList(
            STMambaBlock(
                channels,
                d_state=d_state,
                d_conv=d_conv,
                expand=expand,
                num_heads=num_heads,
                dropout=dropout,
                spatial=_of_layer(spatial, layer),
                temporal=_of_layer(temporal, layer),
                # The attention among nodes has no place for edge features.
                edge_dim=edge_dim if _of_layer(spatial, layer) in WITH_EDGE_FEATURES else None,
                norm=norm,
                feed_forward=feed_forward,
                num_experts=num_experts,
                top_k=top_k,
            )
            for layer in range(num_layers)
        )
        self.final_norm = nn.LayerNorm(channels) if norm == "pre" else nn.Identity()
        steps = window if readout == "window" else 1
        self.head = Readout(
            steps * (channels + self.encoder.token_channels) + self.encoder.context_channels,
            4 * channels if readout_channels is None else readout_channels,
            horizon * len(self.target_channels),
            readout_layers,
            dropout,
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters; the scaler stays as it is."""
        for module in (self.encoder, *self.blocks, self.final_norm, self.head):
            reset: Any = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()

    def get_aux_loss(self) -> Tensor:
        r"""The balancing losses of the experts in the last pass of training."""
        blocks: Any = self.blocks
        losses = [block.get_aux_loss() for block in blocks]
        return torch.stack(losses).sum() if losses else torch.zeros(())

    def forward(
        self,
        x: Tensor | Data,
        edge_index: Tensor | None = None,
        edge_attr: Tensor | None = None,
        *,
        x_mask: Tensor | None = None,
        time_of_day: Tensor | None = None,
        day_of_week: Tensor | None = None,
        batch: Tensor | None = None,
        profile: Tensor | None = None,
        nodes_first: bool = False,
    ) -> Tensor:
        r"""Runs the forward pass.

        Args:
            x (torch.Tensor or Data): The values in original units, or everything at once.
            edge_index (torch.Tensor, optional): The edges, or a dense adjacency matrix
                :obj:`adj[target, source]`. (default: :obj:`None`)
            edge_attr (torch.Tensor, optional): Edge features. (default: :obj:`None`)
            x_mask (torch.Tensor, optional): Booleans of the shape of :obj:`x`, :obj:`True` =
                observed. (default: :obj:`None`, all observed)
            time_of_day (torch.Tensor, optional): Fraction of the day in :math:`[0, 1)`,
                :math:`(T)` or one row a window :math:`(B, T)`. (default: :obj:`None`)
            day_of_week (torch.Tensor, optional): Monday = 0, likewise. (default: :obj:`None`)
            batch (torch.Tensor, optional): The graph of each node. (default: :obj:`None`)
            profile (torch.Tensor, optional): The weekly profile at the steps of the window and of
                the horizon, in original units, for training with
                :meth:`~pyg_stmamba.models.weekly_profile.WeeklyProfile.leave_one_week_out`.
                (default: :obj:`None`, what the model was fitted to)
            nodes_first (bool, optional): Whether a 4-D :obj:`x` is :math:`(N, B, T, C)` instead
                of :math:`(B, T, N, C)`. (default: :obj:`False`)
        """
        if isinstance(x, Data):
            return self.forward(
                x.x,
                x.edge_index,
                x.edge_attr,
                x_mask=x.get("x_mask"),
                time_of_day=x.get("time_of_day"),
                day_of_week=x.get("day_of_week"),
                batch=x.get("batch"),
                profile=x.get("profile"),
                nodes_first=True,
            )
        if x.dim() == 4 and not nodes_first:
            y = self.forward(
                rearrange(x, "b t n c -> n b t c"),
                edge_index,
                edge_attr,
                x_mask=None if x_mask is None else rearrange(x_mask, "b t n c -> n b t c"),
                time_of_day=time_of_day,
                day_of_week=day_of_week,
                profile=None if profile is None else rearrange(profile, "b t n c -> n b t c"),
                nodes_first=True,
            )
            return rearrange(y, "n b h c -> b h n c")
        self._check_window(x)
        redraw_when_due(self)
        encoding = self.encoder(x, x_mask, time_of_day, day_of_week, batch, profile)
        h = encoding.h
        for block in self.blocks:
            h = block(h, edge_index, edge_attr, batch=batch, nodes_first=True)
        return self._read_out(h, encoding)

    def prefill(
        self,
        x: Tensor,
        edge_index: Tensor | None = None,
        edge_attr: Tensor | None = None,
        state: tuple | None = None,
        *,
        x_mask: Tensor | None = None,
        time_of_day: Tensor | None = None,
        day_of_week: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> tuple[Tensor, tuple]:
        r"""Forecasts after a chunk of any length, continuing from the state of the chunks before
        it; needs :obj:`readout="last"`. The arguments are those of :meth:`forward`.

        Args:
            state (tuple, optional): What an earlier call returned; :obj:`None` starts a new
                series. (default: :obj:`None`)

        Shapes:
            - **input:** :math:`(N, *, T, C)`
            - **output:** forecasts :math:`(N, *, H, C_y)` and the state, one entry a block
        """
        if self.readout != "last":
            raise ValueError(
                "streaming needs STMamba(readout='last'); readout='window' forecasts from "
                f"exactly {self.window} steps at once"
            )
        self._check_window(x)
        encoding = self.encoder(x, x_mask, time_of_day, day_of_week, batch)
        h = encoding.h
        new_state = []
        blocks: Any = self.blocks
        for block, block_state in zip(blocks, state or [None] * len(blocks)):
            h, block_state = block.prefill(h, edge_index, edge_attr, state=block_state, batch=batch)
            new_state.append(block_state)
        return self._read_out(h, encoding), tuple(new_state)

    def step(
        self,
        x: Tensor,
        edge_index: Tensor | None = None,
        edge_attr: Tensor | None = None,
        state: tuple | None = None,
        *,
        x_mask: Tensor | None = None,
        time_of_day: Tensor | None = None,
        day_of_week: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> tuple[Tensor, tuple]:
        r"""Forecasts after one more step: :meth:`prefill` on series of length one.

        Shapes:
            - **input:** :math:`(N, *, C)`, times of the step of any shape without :math:`T`
            - **output:** forecasts :math:`(N, *, H, C_y)` and the state, one entry a block
        """
        return self.prefill(
            x.unsqueeze(-2),
            edge_index,
            edge_attr,
            state,
            x_mask=None if x_mask is None else x_mask.unsqueeze(-2),
            time_of_day=None if time_of_day is None else time_of_day.unsqueeze(-1),
            day_of_week=None if day_of_week is None else day_of_week.unsqueeze(-1),
            batch=batch,
        )

    def _check_window(self, x: Tensor) -> None:
        if x.dim() not in (3, 4) or x.size(-1) != self.in_channels:
            raise ValueError(
                f"STMamba with in_channels={self.in_channels} takes [N, T, {self.in_channels}] or "
                f"four dimensions, got x of shape {tuple(x.shape)}"
            )
        if self.readout == "window" and x.size(-2) != self.window:
            raise ValueError(
                f"STMamba(window={self.window}, readout='window') needs {self.window} steps, got "
                f"{x.size(-2)} in x of shape {tuple(x.shape)}; readout='last' takes any length"
            )

    def _read_out(self, h: Tensor, encoding: Encoding) -> Tensor:
        features = torch.cat([self.final_norm(h), encoding.tokens], dim=-1)
        features = features.flatten(-2) if self.readout == "window" else features[..., -1, :]
        y = self.head(torch.cat([features, encoding.context], dim=-1))
        y = y.unflatten(-1, (self.horizon, len(self.target_channels)))
        return self.encoder.to_units(y, encoding.statistics)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.channels}, "
            f"num_layers={len(self.blocks)}, window={self.window}, horizon={self.horizon})"
        )


def _of_layer(operator: Any, layer: int) -> Any:
    return operator[layer % len(operator)] if isinstance(operator, list | tuple) else operator
