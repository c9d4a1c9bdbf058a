from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn.inits import reset

from pyg_stmamba.models.window_encoder import Encoding, WindowEncoder
from pyg_stmamba.models.window_forecaster import WindowForecaster
from pyg_stmamba.nn import STMambaBlock, TransformerDecoder, TransformerEncoder
from pyg_stmamba.nn.spatial import WITH_EDGE_FEATURES

DECODINGS = ("autoregressive", "one-shot")


class TransformerForecaster(WindowForecaster):
    r"""Forecasts series on the nodes of a graph with the encoder and decoder of `"Attention Is All
    You Need" <https://arxiv.org/abs/1706.03762>`_: an operator over the nodes at each instant of
    the window, an encoder over the steps of each node, and a decoder over the steps ahead, whose
    times are known.

    .. math::
        \mathbf{m}_i &= \textrm{Encoder} \left( \mathbf{h}_{i, t-W+1}, \ldots, \mathbf{h}_{i, t}
        \right), \qquad
        \mathbf{h}_{:, \tau} = \textrm{Spatial} \left( \mathbf{e}_{:, \tau}, \mathcal{G} \right)

        \hat{y}_{i, t+h} &= \hat{y}_{i, t+h-1} + \textrm{Decoder} \left( \hat{y}_{i, t}, \ldots,
        \hat{y}_{i, t+h-1}; \, \mathbf{e}^{\textrm{time}}_{t+1}, \ldots,
        \mathbf{e}^{\textrm{time}}_{t+h}; \, \mathbf{m}_i \right)

    where :math:`\hat{y}_{i, t} = x_{i, t}` is the last value of the window, which an untrained
    model repeats. A forecast keeps the
    keys and values of the steps before it and needs one pass over each step. Values go in and
    forecasts come out in original units: the :attr:`scaler` is part of the model and of its state
    dict. Missing values enter as the mean, beside their flag.

    Args:
        in_channels (int, optional): Channels of the series. (default: :obj:`1`)
        window (int, optional): Number of steps in. (default: :obj:`12`)
        horizon (int, optional): Number of steps ahead. (default: :obj:`12`)
        target_channels (Sequence[int], optional): The channels to forecast.
            (default: :obj:`(0, )`)
        num_nodes (int, optional): Number of nodes of a fixed graph, needed for node embeddings.
            (default: :obj:`None`)
        steps_per_day (int, optional): Number of times of the day; :obj:`None` where time plays no
            part. (default: :obj:`None`)
        edge_dim (int, optional): Number of features of an edge. (default: :obj:`None`)
        d_model (int, optional): Size of a token. (default: :obj:`64`)
        nhead (int, optional): Number of heads. (default: :obj:`4`)
        num_spatial_layers (int, optional): Number of phases over the nodes. (default: :obj:`1`)
        num_encoder_layers (int, optional): Number of layers over the window.
            (default: :obj:`2`)
        num_decoder_layers (int, optional): Number of layers over the steps ahead.
            (default: :obj:`2`)
        dim_feedforward (int, optional): Size within the feed-forward networks.
            (default: :obj:`None`, four times :obj:`d_model`)
        spatial (str, optional): The operator over the nodes, as in :class:`STMambaBlock`;
            :obj:`None` for none. (default: :obj:`"gat"`)
        decoding (str, optional): :obj:`"autoregressive"`, one step after the other, each from
            those before it, or :obj:`"one-shot"`, all steps ahead at once from their times alone.
            (default: :obj:`"autoregressive"`)
        teacher_forcing (float, optional): Probability with which a training batch is decoded from
            true values, all steps at once, instead of from its own forecasts.
            (default: :obj:`0.0`)
        node_embedding (bool, optional): Whether each node of a fixed graph gets an embedding of
            its own. (default: :obj:`True`)
        weekly_profile (bool, optional): Whether the model also sees what each node of a fixed
            graph shows on average at the times of the week, see
            :class:`~pyg_stmamba.models.weekly_profile.WeeklyProfile`. (default: :obj:`False`)
        att_type (str, optional): :obj:`"standard"`, :obj:`"xformer"`, :obj:`"flash"`, or
            :obj:`"frequency"`, which stands for :obj:`"standard"` where steps are decoded one by
            one. (default: :obj:`"standard"`)
        norm_strategy (str, optional): :obj:`"pre_norm"` or :obj:`"post_norm"`.
            (default: :obj:`"pre_norm"`)
        norm (str, optional): :obj:`"layer"`, :obj:`"rms"`, :obj:`"adaptive"` or
            :obj:`"adaptive_rms"`. (default: :obj:`"layer"`)
        use_swiglu (bool, optional): Whether the feed-forward networks are gated.
            (default: :obj:`True`)
        use_moe (bool, optional): Whether they are a :class:`MixtureOfExperts`.
            (default: :obj:`False`)
        num_experts (int, optional): Number of experts. (default: :obj:`8`)
        top_k (int, optional): Number of experts of a token. (default: :obj:`2`)
        share_layers (bool, optional): Whether all layers of the encoder are one, and all of the
            decoder. (default: :obj:`False`)
        use_gradient_checkpointing (bool, optional): Whether training keeps only the inputs of
            layers. (default: :obj:`False`)
        dropout (float, optional): Dropout probability. (default: :obj:`0.1`)
        input_dropout (float, optional): Probability with which an observed value is hidden in
            training. (default: :obj:`0.0`)
        instance_norm (bool, optional): Whether the series of each node in each window is
            normalized by its own mean and standard deviation. (default: :obj:`False`)

    Shapes:
        - **input:** a :class:`~torch_geometric.data.Data` of one window, a
          :class:`~torch_geometric.data.Batch` of windows or what
          :func:`~pyg_stmamba.data.collate_shared` gives
        - **output:** forecasts :math:`(N, H, C_y)` or :math:`(N, B, H, C_y)`, in original units
    """

    def __init__(
        self,
        in_channels: int = 1,
        window: int = 12,
        horizon: int = 12,
        target_channels: Sequence[int] = (0,),
        num_nodes: int | None = None,
        steps_per_day: int | None = None,
        edge_dim: int | None = None,
        *,
        d_model: int = 64,
        nhead: int = 4,
        num_spatial_layers: int = 1,
        num_encoder_layers: int = 2,
        num_decoder_layers: int = 2,
        dim_feedforward: int | None = None,
        spatial: str | None = "gat",
        decoding: Literal["autoregressive", "one-shot"] = "autoregressive",
        teacher_forcing: float = 0.0,
        node_embedding: bool = True,
        weekly_profile: bool = False,
        att_type: Literal["standard", "xformer", "flash", "frequency"] = "standard",
        norm_strategy: Literal["pre_norm", "post_norm"] = "pre_norm",
        norm: str = "layer",
        use_swiglu: bool = True,
        use_moe: bool = False,
        num_experts: int = 8,
        top_k: int = 2,
        share_layers: bool = False,
        use_gradient_checkpointing: bool = False,
        dropout: float = 0.1,
        input_dropout: float = 0.0,
        instance_norm: bool = False,
    ) -> None:
        super().__init__()
        if decoding not in DECODINGS:
            raise ValueError(f"decoding={decoding!r} is unknown; choose from {DECODINGS}")
        if not 0 <= teacher_forcing <= 1:
            raise ValueError(f"teacher_forcing={teacher_forcing} must be a probability")
        if any(not 0 <= channel < in_channels for channel in target_channels):
            raise ValueError(
                f"target_channels={tuple(target_channels)} must lie in 0..{in_channels - 1} "
                f"(in_channels={in_channels})"
            )
        self._arguments = {
            name: value for name, value in locals().items() if name not in ("self", "__class__")
        }
        self.in_channels, self.window, self.horizon = in_channels, window, horizon
        self.target_channels = tuple(target_channels)
        self.decoding, self.teacher_forcing = decoding, teacher_forcing
        self.encoder = WindowEncoder(
            in_channels,
            d_model,
            horizon,
            self.target_channels,
            num_nodes,
            steps_per_day,
            node_embedding,
            weekly_profile=weekly_profile,
            input_dropout=input_dropout,
            instance_norm=instance_norm,
        )
        self.blocks = nn.ModuleList(
            STMambaBlock(
                d_model,
                num_heads=nhead,
                dropout=dropout,
                spatial=spatial,
                temporal=None,
                edge_dim=edge_dim if spatial in WITH_EDGE_FEATURES else None,
                norm="pre",
            )
            for _ in range(num_spatial_layers if spatial is not None else 0)
        )
        shared: Any = {
            "d_model": d_model,
            "nhead": nhead,
            "dim_feedforward": 4 * d_model if dim_feedforward is None else dim_feedforward,
            "dropout": dropout,
            "norm_strategy": norm_strategy,
            "use_adaptive_ln": norm,
            "use_swiglu": use_swiglu,
            "use_moe": use_moe,
            "num_experts": num_experts,
            "top_k": top_k,
            "share_layers": share_layers,
            "use_gradient_checkpointing": use_gradient_checkpointing,
        }
        one_shot = decoding == "one-shot"
        self.history_encoder = TransformerEncoder(
            d_model, num_layers=num_encoder_layers, att_type=att_type, **shared
        )
        num_targets = len(self.target_channels)
        embedded = self.encoder.node_embedding is not None or steps_per_day is not None
        self.decoder = TransformerDecoder(
            2 * num_targets,  # values and whether they are known
            num_targets,
            num_layers=num_decoder_layers,
            att_type="standard" if att_type == "frequency" and not one_shot else att_type,
            informer_like=one_shot,
            num_time_features=d_model * embedded + num_targets * weekly_profile,
            **shared,
        )
        self._start_at_the_last_value()

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters; scaler and profile stay as they are."""
        for module in (self.encoder, *self.blocks, self.history_encoder, self.decoder):
            reset(module)
        self._start_at_the_last_value()

    def get_aux_loss(self) -> Tensor:
        r"""The balancing losses of the experts in the last pass of training."""
        return self.history_encoder.get_aux_loss() + self.decoder.get_aux_loss()

    def forward(self, data: Data) -> Tensor:
        r"""Runs the forward pass.

        Args:
            data (Data): The windows; what :obj:`y` holds is looked at only in training with
                :obj:`teacher_forcing`.
        """
        self._check(data)
        encoding = self.encoder(
            data.x,
            data.get("x_mask"),
            data.get("time_of_day"),
            data.get("day_of_week"),
            data.get("batch"),
            data.get("profile"),
        )
        h = encoding.h
        for block in self.blocks:
            h = block(h, data.edge_index, data.edge_attr, batch=data.get("batch"), nodes_first=True)
        memory = self.history_encoder(h.flatten(0, -3))
        ahead = self._features_of_steps_ahead(data, encoding)
        first, known = self._last_values(encoding)
        if self.decoding == "one-shot":
            y = self._all_at_once(first, memory, ahead)
        elif self._has_teacher(data):
            y = self._taught(first, known, memory, ahead, data, encoding)
        else:
            y = self._one_by_one(first, known, memory, ahead)
        y = y.unflatten(0, h.shape[:-2])
        return self.encoder.to_units(y, encoding.statistics)

    def _start_at_the_last_value(self) -> None:
        # Changes that are drawn at random would add up over the horizon.
        assert self.decoder.output_projection is not None
        nn.init.zeros_(self.decoder.output_projection.weight)

    def _has_teacher(self, data: Data) -> bool:
        if not self.training or "y" not in data or self.teacher_forcing == 0:
            return False
        return self.teacher_forcing == 1 or float(torch.rand(())) < self.teacher_forcing

    def _one_by_one(
        self, first: Tensor, known: Tensor, memory: Tensor, ahead: Tensor | None
    ) -> Tensor:
        state: dict[str, Any] = {}
        value, forecasts = first, []
        for step in range(self.horizon):
            token = torch.cat([value, known], -1)
            features = None if ahead is None else ahead[:, step : step + 1]
            change, state = self.decoder.forward_one_step(
                token, memory, state, time_features=features
            )
            value, known = value + change, torch.ones_like(known)
            forecasts.append(value)
        return torch.cat(forecasts, 1)

    def _taught(
        self,
        first: Tensor,
        known: Tensor,
        memory: Tensor,
        ahead: Tensor | None,
        data: Data,
        encoding: Encoding,
    ) -> Tensor:
        """All steps at once, each from the true values before it."""
        observed = data.get("y_mask")
        observed = torch.ones_like(data.y, dtype=torch.bool) if observed is None else observed
        true = self.encoder.normalize(data.y, encoding.statistics)
        true = true.masked_fill(~observed, 0.0).flatten(0, -3)
        value = torch.cat([first, true[:, :-1]], 1)
        known = torch.cat([known, observed.flatten(0, -3)[:, :-1].to(known)], 1)
        return value + self.decoder(torch.cat([value, known], -1), memory, time_features=ahead)

    def _all_at_once(self, first: Tensor, memory: Tensor, ahead: Tensor | None) -> Tensor:
        nothing = first.new_zeros(first.size(0), self.horizon, 2 * first.size(-1))
        return first + self.decoder(nothing, memory, time_features=ahead)

    def _last_values(self, encoding: Encoding) -> tuple[Tensor, Tensor]:
        """The target values of the last step of the window, and whether they are known."""
        values, observed = encoding.tokens[..., -1:, : 2 * self.in_channels].chunk(2, -1)
        channels = list(self.target_channels)
        return values[..., channels].flatten(0, -3), observed[..., channels].flatten(0, -3)

    def _features_of_steps_ahead(self, data: Data, encoding: Encoding) -> Tensor | None:
        """What is known of the steps ahead: their times, whose series they belong to, and what is
        usual then."""
        shape = (*data.x.shape[:-2], self.horizon)
        like = data.x[..., :1, :].expand(*shape, self.in_channels)
        time_of_day, day_of_week = data.get("y_time_of_day"), data.get("y_day_of_week")
        if self.steps_per_day is not None and (time_of_day is None or day_of_week is None):
            raise ValueError(
                f"{type(self).__name__}(steps_per_day={self.steps_per_day}) needs y_time_of_day "
                "and y_day_of_week, the times of the steps ahead"
            )
        known = [
            embedding.expand(*shape, -1)
            for embedding in self.encoder.embeddings(
                like, time_of_day, day_of_week, data.get("batch")
            )
        ]
        features = [torch.stack(known).sum(0)] if known else []
        if encoding.profile is not None:
            features.append(encoding.profile)
        return torch.cat(features, -1).flatten(0, -3) if features else None

    def _check(self, data: Data) -> None:
        channels, steps = data.x.size(-1), data.x.size(-2)
        if channels != self.in_channels or steps != self.window:
            raise ValueError(
                f"{type(self).__name__}(in_channels={self.in_channels}, window={self.window}) "
                f"takes x [N, ..., {self.window}, {self.in_channels}], got {list(data.x.shape)}"
            )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, window={self.window}, "
            f"horizon={self.horizon}, d_model={self.history_encoder.d_model}, "
            f"decoding={self.decoding!r})"
        )
