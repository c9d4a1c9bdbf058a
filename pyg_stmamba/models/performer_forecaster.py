from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_stmamba.data import Protocol, Scaler, TemporalGraph
from pyg_stmamba.models.spatio_temporal_performer import SpatioTemporalPerformer
from pyg_stmamba.models.window_tensors import from_variables, window_tensors
from pyg_stmamba.nn.embedding import SpectralTimeEmbedding

TIME_EMBEDDINGS = ("auto", "calendar", "spectral", "none")


class PerformerForecaster(nn.Module):
    r"""Forecasts series on the nodes of a fixed graph with a :class:`SpatioTemporalPerformer`,
    whose variables are the channels of all nodes. It learns who depends on whom, and does not use
    the edges.

    Values go in and forecasts come out in original units: the :attr:`scaler` is part of the model
    and of its state dict. Missing values are flagged, and what stands in their place has no
    influence.

    Args:
        in_channels (int, optional): Channels of the series. (default: :obj:`1`)
        window (int, optional): Number of steps in. (default: :obj:`12`)
        horizon (int, optional): Number of steps ahead. (default: :obj:`12`)
        target_channels (Sequence[int], optional): The channels to forecast.
            (default: :obj:`(0, )`)
        num_nodes (int, optional): Number of nodes. (default: :obj:`1`)
        steps_per_day (int, optional): Number of times of the day; :obj:`None` where there is no
            calendar. (default: :obj:`None`)
        d_model (int, optional): Size of a token. (default: :obj:`64`)
        n_heads (int, optional): Number of heads. (default: :obj:`4`)
        n_encoder_layers (int, optional): Number of layers of the encoder. (default: :obj:`2`)
        n_decoder_layers (int, optional): Number of layers of the decoder. (default: :obj:`1`)
        d_ff (int, optional): Inner size of the feed-forward networks.
            (default: :obj:`None`, four times :obj:`d_model`)
        time_embedding (str, optional): :obj:`"calendar"` for a Time2Vec of the times of day and
            week, :obj:`"spectral"` for the dominant frequencies of the training data,
            :obj:`"none"`, or :obj:`"auto"`, calendar where there is one and else spectral. The
            clock of the latter counts steps from the start of the record: what is forecast must
            be the record that was trained on, or its continuation. (default: :obj:`"auto"`)
        time_emb_dim (int, optional): Size of the embedding of each time feature, and twice the
            number of frequencies. (default: :obj:`6`)
        attention (str, optional): :obj:`"performer"` or :obj:`"full"`.
            (default: :obj:`"performer"`)
        local_attention (bool or str, optional): Whether tokens also attend to those of their own
            variable alone, or by which attention. (default: :obj:`"full"`, the cheaper one for the
            few steps of a window)
        global_self_attention (bool or str, optional): Whether tokens attend to all others,
            likewise. (default: :obj:`True`)
        global_cross_attention (bool or str, optional): Whether the decoder attends to all of the
            window, likewise. (default: :obj:`True`)
        nb_features (int, optional): Number of random features of a Performer.
            (default: :obj:`None`, the larger of 64 and :math:`d \ln d`)
        qk_norm (bool, optional): Whether its queries and keys are brought to a learned length.
            (default: :obj:`False`)
        redraw_interval (int, optional): After how many training passes random features are drawn
            anew. A model gets used to its draw: a forecaster that was trained on METR-LA lost 6 %
            to a new one, so one late in training does harm. (default: :obj:`None`, never)
        start_len (int, optional): Number of last steps of the window with which the decoder
            starts. (default: :obj:`0`)
        windows (int, optional): Number of windows of time within which global attention sees.
            (default: :obj:`1`)
        downsample_convs (int, optional): Number of convolutions that halve the window after
            layers of the encoder. (default: :obj:`0`)
        dropout (float, optional): Dropout of the feed-forward networks. (default: :obj:`0.1`)
        dropout_attention (float, optional): Dropout of what attentions add.
            (default: :obj:`0.0`)
        input_dropout (float, optional): Probability with which an observed value is hidden in
            training. (default: :obj:`0.1`)
        use_revin (bool, optional): Whether each window is normalized by its own statistics.
            (default: :obj:`False`)
        use_seasonal_decomp (bool, optional): Whether the transformer sees the series without
            their trend; needs :obj:`linear_window`. (default: :obj:`False`)
        decomposition_kernel (int, optional): Number of steps of the average that is the trend.
            (default: :obj:`25`)
        linear_window (int, optional): Number of steps of a linear model that is added; :obj:`0`
            for none. (default: :obj:`0`)
        linear_shared_weights (bool, optional): Whether all variables share its weights.
            (default: :obj:`True`)
        autoregressive (bool, optional): Whether it is trained with teacher forcing and forecasts
            step by step, instead of in one shot. (default: :obj:`False`)
        scheduled_sampling (float, optional): With :obj:`autoregressive`, how slowly training goes
            over from true values to forecasts, see :class:`SpatioTemporalPerformer`.
            (default: :obj:`None`, never)

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
        num_nodes: int = 1,
        steps_per_day: int | None = None,
        *,
        d_model: int = 64,
        n_heads: int = 4,
        n_encoder_layers: int = 2,
        n_decoder_layers: int = 1,
        d_ff: int | None = None,
        time_embedding: str = "auto",
        time_emb_dim: int = 6,
        attention: str = "performer",
        local_attention: bool | str = "full",
        global_self_attention: bool | str = True,
        global_cross_attention: bool | str = True,
        nb_features: int | None = None,
        qk_norm: bool = False,
        redraw_interval: int | None = None,
        start_len: int = 0,
        windows: int = 1,
        downsample_convs: int = 0,
        dropout: float = 0.1,
        dropout_attention: float = 0.0,
        input_dropout: float = 0.1,
        use_revin: bool = False,
        use_seasonal_decomp: bool = False,
        decomposition_kernel: int = 25,
        linear_window: int = 0,
        linear_shared_weights: bool = True,
        autoregressive: bool = False,
        scheduled_sampling: float | None = None,
    ) -> None:
        super().__init__()
        if time_embedding not in TIME_EMBEDDINGS:
            raise ValueError(
                f"time_embedding={time_embedding!r} is unknown; choose from {TIME_EMBEDDINGS}"
            )
        if any(not 0 <= channel < in_channels for channel in target_channels):
            raise ValueError(
                f"target_channels={tuple(target_channels)} must lie in 0..{in_channels - 1} "
                f"(in_channels={in_channels})"
            )
        if not 0 <= start_len <= window:
            raise ValueError(
                f"start_len={start_len} last steps of the window must lie in 0..{window} "
                f"(window={window})"
            )
        if scheduled_sampling is not None and not autoregressive:
            raise ValueError(
                f"scheduled_sampling={scheduled_sampling} feeds forecasts back, which needs "
                "autoregressive=True"
            )
        self._arguments = {
            name: value for name, value in locals().items() if name not in ("self", "__class__")
        }
        if time_embedding == "auto":
            time_embedding = "spectral" if steps_per_day is None else "calendar"
        if time_embedding == "calendar" and steps_per_day is None:
            raise ValueError(
                "time_embedding='calendar' needs data with timestamps, got steps_per_day=None; "
                "'spectral' and 'none' do not"
            )
        self.in_channels, self.window, self.horizon = in_channels, window, horizon
        self.target_channels, self.num_nodes = tuple(target_channels), num_nodes
        self.steps_per_day = steps_per_day if time_embedding == "calendar" else None
        self.start_len = start_len
        self.scaler = Scaler(in_channels)
        target_index = [
            node * in_channels + channel for node in range(num_nodes) for channel in target_channels
        ]
        self.performer = SpatioTemporalPerformer(
            num_nodes * in_channels,
            len(target_index),
            2 if time_embedding == "calendar" else 1,
            d_model,
            max(window, start_len + horizon),
            n_heads=n_heads,
            n_encoder_layers=n_encoder_layers,
            n_decoder_layers=n_decoder_layers,
            d_ff=d_ff,
            start_len=start_len,
            time_emb_dim=time_emb_dim,
            downsample_convs_block=downsample_convs,
            data_dropout_embedding=input_dropout,
            dropout_attn=dropout_attention,
            dropout_ff=dropout,
            redraw_interval=redraw_interval,
            time_embedding={"calendar": True, "none": False}.get(time_embedding, "spectral"),
            windows=windows,
            autoregressive_training=autoregressive,
            use_revin=use_revin,
            use_seasonal_decomp=use_seasonal_decomp,
            linear_window=linear_window,
            linear_shared_weights=linear_shared_weights,
            attention=attention,
            target_index=target_index,
            global_self_attention=global_self_attention,
            local_self_attention=local_attention,
            global_cross_attention=global_cross_attention,
            local_cross_attention=local_attention,
            nb_features=nb_features,
            qk_norm=qk_norm,
            decomposition_kernel=decomposition_kernel,
            scheduled_sampling=scheduled_sampling,
        )

    @property
    def spectral_time(self) -> SpectralTimeEmbedding | None:
        r"""The spectral time embedding, fitted on the training split; :obj:`None` without."""
        return self.performer.spectral_time

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters; the scaler stays as it is."""
        self.performer.reset_parameters()

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
        }

    def config(self) -> dict[str, Any]:
        r"""Returns the arguments of the constructor."""
        return dict(self._arguments)

    def forward(self, data: Data) -> Tensor:
        r"""Runs the forward pass.

        Args:
            data (Data): The windows; what :obj:`y` holds is looked at only in training with
                :obj:`autoregressive`.
        """
        self._check(data)
        given = window_tensors(data, self.performer.d_x, self.horizon)
        enc_y = self._scaled(given.enc_y, range(self.in_channels))
        dec_x, dec_y, target_mask = given.dec_x, given.dec_y, given.target_mask
        mode = None
        if dec_y is None:
            # There is no teacher for what has not happened yet.
            mode = "autoregressive" if self.performer.autoregressive_training else "one_shot"
            dec_y = enc_y.new_zeros(*dec_x.shape[:2], self.performer.d_y_target)
        else:
            dec_y = self._scaled(dec_y, self.target_channels)
        if self.start_len:
            first = enc_y.size(1) - self.start_len
            index = self.performer.frame.target_index
            dec_x = torch.cat([given.enc_x[:, first:], dec_x], 1)
            observed = given.observed_mask
            if observed is None:
                observed = torch.ones_like(enc_y, dtype=torch.bool)
            if target_mask is None:
                target_mask = torch.ones_like(dec_y, dtype=torch.bool)
            dec_y = torch.cat([enc_y[:, first:, index], dec_y], 1)
            target_mask = torch.cat([observed[:, first:, index], target_mask], 1)
        y = self.performer(
            given.enc_x,
            enc_y,
            dec_x,
            dec_y,
            mode=mode,
            observed_mask=given.observed_mask,
            target_mask=target_mask,
        )
        y = from_variables(y, data)
        return self.scaler.inverse(y, self.target_channels)

    def _scaled(self, values: Tensor, channels: Sequence[int]) -> Tensor:
        """Scales variables (B, T, nodes times channels)."""
        scaled = self.scaler(values.unflatten(-1, (-1, len(channels))), list(channels))
        return scaled.flatten(-2)

    def _check(self, data: Data) -> None:
        channels, steps = data.x.size(-1), data.x.size(-2)
        if channels != self.in_channels or steps != self.window:
            raise ValueError(
                f"PerformerForecaster(in_channels={self.in_channels}, window={self.window}) takes "
                f"x [N, ..., {self.window}, {self.in_channels}], got {list(data.x.shape)}"
            )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(num_nodes={self.num_nodes}, window={self.window}, "
            f"horizon={self.horizon}, {self.performer!r})"
        )
