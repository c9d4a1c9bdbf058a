from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_stmamba.data import Protocol, Scaler, TemporalGraph
from pyg_stmamba.models.readout import Readout
from pyg_stmamba.nn import SpatialOperator, STMambaBlock, TemporalOperator


class STMamba(nn.Module):
    r"""Forecasts series on the nodes of a graph with a stack of :class:`STMambaBlock`, attention
    over the neighbors of a node at each instant and a Mamba over time at each node, after
    `"Graph Attention Networks" <https://arxiv.org/abs/1710.10903>`_ and `"Mamba: Linear-Time
    Sequence Modeling with Selective State Spaces" <https://arxiv.org/abs/2312.00752>`_.

    .. math::
        \mathbf{v}_{i,t} &= \left[ \tfrac{x_{i,t} - \mu}{\sigma} \, \Vert \, m_{i,t} \right],
        \qquad \mathbf{h}^{(0)}_{i,t} = \mathbf{W} \mathbf{v}_{i,t} + \mathbf{e}^{\textrm{day}}_t
        + \mathbf{e}^{\textrm{week}}_t + \mathbf{e}^{\textrm{node}}_i, \qquad
        \mathbf{h}^{(l)} = \textrm{Block}_l \left( \mathbf{h}^{(l-1)} \right)

        \hat{y}_{i,t+1 \ldots t+H} &= \mu + \sigma \, \textrm{Readout} \left(
        \big\Vert_{\tau = t-W+1}^{t} \left[ \mathbf{h}^{(L)}_{i,\tau} \, \Vert \,
        \mathbf{v}_{i,\tau} \right] \, \Vert \, \mathbf{e}^{\textrm{day}}_t \, \Vert \,
        \mathbf{e}^{\textrm{week}}_t \, \Vert \, \mathbf{e}^{\textrm{node}}_i \right)

    where the :class:`~pyg_stmamba.models.readout.Readout` is a residual perceptron.
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
        steps_per_day (int, optional): Number of time-of-day embeddings. If :obj:`None`, neither
            time of day nor day of week are used. (default: :obj:`None`)
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
        norm (str, optional): :obj:`"pre"` or :obj:`"post"`. (default: :obj:`"pre"`)
        dropout (float, optional): Dropout after each phase. (default: :obj:`0.1`)
        input_dropout (float, optional): Probability with which an observed value is hidden in
            training, as if it were missing. (default: :obj:`0.0`)
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
        spatial: str | SpatialOperator | Sequence[str | SpatialOperator | None] | None = "gat",
        temporal: str | TemporalOperator | Sequence[str | TemporalOperator | None] | None = "mamba",
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        num_heads: int = 4,
        edge_dim: int | None = None,
        norm: Literal["pre", "post"] = "pre",
        dropout: float = 0.1,
        input_dropout: float = 0.0,
        readout: str = "window",
        readout_channels: int | None = None,
        readout_layers: int = 2,
    ) -> None:
        super().__init__()
        if readout not in ("window", "last"):
            raise ValueError(f"readout={readout!r} is unknown; choose from 'window', 'last'")
        if any(not 0 <= channel < in_channels for channel in target_channels):
            raise ValueError(
                f"target_channels={tuple(target_channels)} must lie in 0..{in_channels - 1} "
                f"(in_channels={in_channels})"
            )
        if not 0 <= input_dropout < 1:
            raise ValueError(f"input_dropout={input_dropout} must be a probability below 1")
        self._arguments = {
            name: value for name, value in locals().items() if name not in ("self", "__class__")
        }
        self.in_channels, self.channels = in_channels, channels
        self.window, self.horizon, self.readout = window, horizon, readout
        self.target_channels = tuple(target_channels)
        self.num_nodes = num_nodes if node_embedding else None
        self.steps_per_day = steps_per_day
        self.input_dropout = input_dropout

        self.scaler = Scaler(in_channels)
        self.value_embedding = nn.Linear(2 * in_channels, channels)
        if steps_per_day is not None:
            self.time_of_day_embedding = nn.Embedding(steps_per_day, channels)
            self.day_of_week_embedding = nn.Embedding(7, channels)
        if self.num_nodes is not None:
            self.node_embedding = nn.Embedding(self.num_nodes, channels)
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
                edge_dim=edge_dim if _of_layer(spatial, layer) in ("gat", "gatv2") else None,
                norm=norm,
            )
            for layer in range(num_layers)
        )
        self.final_norm = nn.LayerNorm(channels) if norm == "pre" else nn.Identity()
        num_embeddings = 2 * (steps_per_day is not None) + (self.num_nodes is not None)
        self.head = Readout(
            (channels + 2 * in_channels) * (window if readout == "window" else 1)
            + channels * num_embeddings,
            4 * channels if readout_channels is None else readout_channels,
            horizon * len(self.target_channels),
            readout_layers,
            dropout,
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters; the scaler stays as it is."""
        for module in self.children():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.1)
        self.value_embedding.reset_parameters()
        for module in (*self.blocks, self.final_norm, self.head):
            reset: Any = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()

    @staticmethod
    def data_arguments(graph: TemporalGraph, protocol: Protocol) -> dict[str, Any]:
        r"""Returns the arguments of the constructor that the data decide."""
        return {
            "in_channels": graph.x.size(-1),
            "window": protocol.window,
            "horizon": protocol.horizon,
            "target_channels": protocol.target_channels,
            "num_nodes": graph.num_nodes,
            "steps_per_day": graph.steps_per_day,
            "edge_dim": None if graph.edge_attr is None else graph.edge_attr.size(-1),
        }

    def config(self) -> dict[str, Any]:
        r"""Returns the arguments of the constructor."""
        return dict(self._arguments)

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
                nodes_first=True,
            )
            return rearrange(y, "n b h c -> b h n c")
        self._check_window(x)
        tokens = self._tokens(x, x_mask)
        embeddings = self._embeddings(x, time_of_day, day_of_week, batch)
        h = self.value_embedding(tokens) + sum(embeddings)
        for block in self.blocks:
            h = block(h, edge_index, edge_attr, batch=batch, nodes_first=True)
        return self._read_out(h, tokens, embeddings)

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
        tokens = self._tokens(x, x_mask)
        embeddings = self._embeddings(x, time_of_day, day_of_week, batch)
        h = self.value_embedding(tokens) + sum(embeddings)
        new_state = []
        blocks: Any = self.blocks
        for block, block_state in zip(blocks, state or [None] * len(blocks)):
            h, block_state = block.prefill(h, edge_index, edge_attr, state=block_state, batch=batch)
            new_state.append(block_state)
        return self._read_out(h, tokens, embeddings), tuple(new_state)

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

    def _tokens(self, x: Tensor, x_mask: Tensor | None) -> Tensor:
        """The scaled values beside the flags of which are there."""
        observed = torch.ones_like(x, dtype=torch.bool) if x_mask is None else x_mask
        if observed.shape != x.shape or observed.dtype != torch.bool:
            raise ValueError(
                f"x_mask must be boolean and of the shape of x, {tuple(x.shape)}, got "
                f"{tuple(observed.shape)} and dtype {observed.dtype}"
            )
        if self.training and self.input_dropout > 0:
            observed = observed & (torch.rand_like(x) >= self.input_dropout)
        values = self.scaler(x).masked_fill(~observed, 0.0)
        return torch.cat([values, observed.to(values.dtype)], dim=-1)

    def _embeddings(
        self,
        x: Tensor,
        time_of_day: Tensor | None,
        day_of_week: Tensor | None,
        batch: Tensor | None,
    ) -> list[Tensor]:
        """Those of time of day, day of week and node, each of a shape that broadcasts."""
        embeddings = []
        if self.steps_per_day is not None:
            if time_of_day is None or day_of_week is None:
                raise ValueError(
                    f"STMamba(steps_per_day={self.steps_per_day}) needs time_of_day and "
                    "day_of_week; give the data timestamps, or build it with steps_per_day=None"
                )
            slot = (time_of_day * self.steps_per_day).round().long() % self.steps_per_day
            of_time = (self.time_of_day_embedding(slot), self.day_of_week_embedding(day_of_week))
            embeddings += [time if batch is None else time[batch] for time in of_time]
        if self.num_nodes is not None:
            if x.size(0) % self.num_nodes or (batch is None and x.size(0) != self.num_nodes):
                raise ValueError(
                    f"STMamba was built for a fixed graph of num_nodes={self.num_nodes}, got "
                    f"{x.size(0)} nodes; build it with node_embedding=False for other graphs"
                )
            nodes = self.node_embedding.weight.repeat(x.size(0) // self.num_nodes, 1)
            embeddings.append(nodes.reshape(x.size(0), *[1] * (x.dim() - 2), self.channels))
        return embeddings

    def _read_out(self, h: Tensor, tokens: Tensor, embeddings: list[Tensor]) -> Tensor:
        features = torch.cat([self.final_norm(h), tokens], dim=-1)
        features = features.flatten(-2) if self.readout == "window" else features[..., -1, :]
        now = [embedding.expand_as(h)[..., -1, :] for embedding in embeddings]
        y = self.head(torch.cat([features, *now], dim=-1))
        y = y.unflatten(-1, (self.horizon, len(self.target_channels)))
        return self.scaler.inverse(y, self.target_channels)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.channels}, "
            f"num_layers={len(self.blocks)}, window={self.window}, horizon={self.horizon})"
        )


def _of_layer(operator: Any, layer: int) -> Any:
    return operator[layer % len(operator)] if isinstance(operator, list | tuple) else operator
