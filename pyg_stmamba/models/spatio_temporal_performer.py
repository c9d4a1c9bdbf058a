from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_stmamba.models.roll_out import roll_out, sampling_ratio
from pyg_stmamba.models.series_frame import SeriesFrame
from pyg_stmamba.models.window_tensors import from_variables, window_tensors
from pyg_stmamba.nn.embedding import SpectralTimeEmbedding
from pyg_stmamba.nn.norm import GlobalNorm
from pyg_stmamba.nn.performer_attention import redraw_when_due
from pyg_stmamba.nn.token_transformer import TokenTransformer

MODES = ("one_shot", "teacher_forcing", "autoregressive")


class SpatioTemporalPerformer(nn.Module):
    r"""Forecasts many series at once with an encoder and a decoder over one token for each
    variable and step, after `"Long-Range Transformers for Dynamic Spatiotemporal Forecasting"
    <https://arxiv.org/abs/2109.12218>`_, with the attention of `"Rethinking Attention with
    Performers" <https://arxiv.org/abs/2009.14794>`_.

    .. math::
        \hat{\mathbf{Y}} = \mathrm{Norm}^{-1} \left( \mathrm{Decoder} \left( \mathrm{Encoder}
        \left( \mathbf{X}_c, \mathbf{S}_c \right), \mathbf{X}_t \right) + \mathrm{Linear}
        (\mathbf{T}_c) \right), \qquad \mathbf{S}_c + \mathbf{T}_c = \mathrm{Norm}(\mathbf{Y}_c)

    There are three ways to forecast. In one shot the decoder sees what the values ahead are asked
    for, not what they are. With teacher forcing it sees, at each step, the true values of the
    steps before; in autoregression its own forecasts of them. Both are causal in time over all
    variables.

    Args:
        d_y_context (int): Number :math:`N` of context variables.
        d_y_target (int): Number :math:`M` of variables to forecast.
        d_x (int, optional): Number of time features. (default: :obj:`1`)
        d_model (int, optional): Size of a token. (default: :obj:`128`)
        max_seq_len (int, optional): Number of learned positions. (default: :obj:`512`)
        d_q_k (int, optional): Size of queries and keys of a head.
            (default: :obj:`None`, :obj:`d_model // n_heads`)
        d_v (int, optional): Size of values of a head. (default: :obj:`None`, likewise)
        n_heads (int, optional): Number of heads. (default: :obj:`8`)
        n_encoder_layers (int, optional): Number of layers of the encoder. (default: :obj:`2`)
        n_decoder_layers (int, optional): Number of layers of the decoder. (default: :obj:`2`)
        d_ff (int, optional): Inner size of the feed-forward networks.
            (default: :obj:`None`, four times :obj:`d_model`)
        start_len (int, optional): Number of last steps of the context with which the decoder's
            windows start. (default: :obj:`0`)
        time_emb_dim (int, optional): Size of the embedding of each time feature.
            (default: :obj:`6`)
        downsample_convs_embedding (int, optional): Number of convolutions that halve the context
            in its embedding. (default: :obj:`0`)
        downsample_convs_block (int, optional): Number of convolutions that halve it after layers
            of the encoder. (default: :obj:`0`)
        pad_value (float, optional): What fills up windows. (default: :obj:`None`)
        null_value (float, optional): What stands for a missing value beside NaN.
            (default: :obj:`None`)
        data_dropout_embedding (float, optional): Probability to hide a context value in training.
            (default: :obj:`0.1`)
        dropout_attn (float, optional): Dropout of what attentions add. (default: :obj:`0.0`)
        dropout_qkv (float, optional): Dropout of queries, keys and values.
            (default: :obj:`0.0`)
        dropout_ff (float, optional): Dropout of the feed-forward networks.
            (default: :obj:`0.2`)
        redraw_interval (int, optional): After how many training passes random features are drawn
            anew. (default: :obj:`1000`)
        time_embedding (bool, str or SpectralTimeEmbedding, optional): As in
            :class:`~pyg_stmamba.nn.Embedding`; a spectral one is shared by encoder and decoder.
            (default: :obj:`True`)
        indicator_embedding (bool, optional): Whether tokens tell given values from missing ones.
            (default: :obj:`True`)
        performer_attention_kernel (str, optional): :obj:`"softmax"` or :obj:`"relu"`.
            (default: :obj:`"softmax"`)
        windows (int, optional): Number of windows of time within which global attention sees.
            (default: :obj:`1`)
        use_shifted_time_window (bool, optional): Whether the windows of every second layer start
            half a window later. (default: :obj:`True`)
        activation (str, optional): That of the feed-forward networks. (default: :obj:`"gelu"`)
        normalization_type (str, optional): The method of
            :class:`~pyg_stmamba.nn.Normalization`. (default: :obj:`"layernorm"`)
        final_norm (bool, optional): Whether encoder and decoder end with one.
            (default: :obj:`True`)
        verbose (bool, optional): Whether autoregression shows a progress bar.
            (default: :obj:`False`)
        out_dim (int, optional): Number of forecasts of each value, quantiles for instance. Of
            several the first is fed back. (default: :obj:`1`)
        autoregressive_training (bool, optional): Whether training forces the teacher and
            evaluation is autoregressive; else both are done in one shot.
            (default: :obj:`False`)
        use_revin (bool, optional): Whether each window is normalized by its own statistics.
            (default: :obj:`False`)
        use_seasonal_decomp (bool, optional): Whether the transformer sees the series without their
            trend; needs :obj:`linear_window`. (default: :obj:`False`)
        linear_window (int, optional): Number of steps of a linear model that is added; :obj:`0`
            for none. (default: :obj:`0`)
        linear_shared_weights (bool, optional): Whether all variables share its weights.
            (default: :obj:`True`)
        attention (str, optional): :obj:`"performer"` or :obj:`"full"`, the softmax attention that
            the former approximates. (default: :obj:`"performer"`)
        target_index (Sequence[int], optional): The context variable of each target.
            (default: :obj:`None`, the one of the same number)
        global_self_attention (bool or str, optional): Whether tokens attend to all others, or the
            name of the attention by which they do. (default: :obj:`True`)
        local_self_attention (bool or str, optional): Whether tokens attend to those of their
            variable, likewise. (default: :obj:`True`)
        global_cross_attention (bool or str, optional): Whether the decoder attends to all of the
            context, likewise. (default: :obj:`True`)
        local_cross_attention (bool or str, optional): Whether it attends to the context of the
            same variable, likewise. (default: :obj:`True`)
        position_embedding (str, optional): :obj:`"learned"` or :obj:`"time2vec"`.
            (default: :obj:`"learned"`)
        dropout_embedding (float, optional): Dropout of embeddings. (default: :obj:`0.0`)
        nb_features (int, optional): Number of random features of a Performer.
            (default: :obj:`None`, the larger of 64 and :math:`d \ln d`)
        qk_norm (bool, optional): Whether its queries and keys are brought to a learned length.
            (default: :obj:`False`)
        global_norm (GlobalNorm, optional): Normalizes the context by statistics of the training
            data. (default: :obj:`None`)
        decomposition_kernel (int, optional): Number of steps of the average that is the trend.
            (default: :obj:`25`)
        scheduled_sampling (float, optional): With teacher forcing, the number :math:`k` of
            `"Scheduled Sampling" <https://arxiv.org/abs/1506.03099>`_: in training pass :math:`s`
            a true value is given with probability :math:`k / (k + e^{s / k})`, else the model's
            own. (default: :obj:`None`, always true values)

    Shapes:
        - **input:** time features and values of the context :math:`(B, L_c, d_x)`,
          :math:`(B, L_c, N)`, and of the steps to forecast :math:`(B, L_t, d_x)`,
          :math:`(B, L_t, M)`, which start with the last :obj:`start_len` steps of the context; or
          a window :class:`~torch_geometric.data.Data` or a batch of them, whose :math:`N` nodes
          (times channels) are the variables
        - **output:** :math:`(B, L_t - \textrm{start\_len}, M)`, with a dimension in front if
          :obj:`out_dim` is not one; of data, forecasts as :obj:`data.y`
    """

    def __init__(
        self,
        d_y_context: int,
        d_y_target: int,
        d_x: int = 1,
        d_model: int = 128,
        max_seq_len: int | None = 512,
        d_q_k: int | None = None,
        d_v: int | None = None,
        n_heads: int = 8,
        n_encoder_layers: int = 2,
        n_decoder_layers: int = 2,
        d_ff: int | None = None,
        start_len: int = 0,
        time_emb_dim: int = 6,
        downsample_convs_embedding: int = 0,
        downsample_convs_block: int = 0,
        pad_value: float | None = None,
        null_value: float | None = None,
        data_dropout_embedding: float | None = 0.1,
        dropout_attn: float = 0.0,
        dropout_qkv: float = 0.0,
        dropout_ff: float = 0.2,
        redraw_interval: int | None = 1000,
        time_embedding: bool | str | SpectralTimeEmbedding = True,
        indicator_embedding: bool = True,
        performer_attention_kernel: str = "softmax",
        windows: int = 1,
        use_shifted_time_window: bool = True,
        activation: str = "gelu",
        normalization_type: str = "layernorm",
        final_norm: bool = True,
        verbose: bool = False,
        out_dim: int = 1,
        autoregressive_training: bool = False,
        use_revin: bool = False,
        use_seasonal_decomp: bool = False,
        linear_window: int = 0,
        linear_shared_weights: bool = True,
        attention: str = "performer",
        target_index: Sequence[int] | None = None,
        *,
        global_self_attention: bool | str = True,
        local_self_attention: bool | str = True,
        global_cross_attention: bool | str = True,
        local_cross_attention: bool | str = True,
        position_embedding: str = "learned",
        dropout_embedding: float = 0.0,
        nb_features: int | None = None,
        qk_norm: bool = False,
        global_norm: GlobalNorm | None = None,
        decomposition_kernel: int = 25,
        scheduled_sampling: float | None = None,
    ) -> None:
        super().__init__()
        if target_index is None:
            target_index = range(d_y_target)
        if len(target_index) != d_y_target or any(
            not 0 <= index < d_y_context for index in target_index
        ):
            raise ValueError(
                f"target_index must name one of d_y_context={d_y_context} variables for each of "
                f"d_y_target={d_y_target}, got {list(target_index)}"
            )
        if autoregressive_training and normalization_type == "batchnorm":
            warnings.warn(
                "normalization_type='batchnorm' takes its statistics over all steps, so that in "
                "autoregressive training a step learns of later ones; 'layernorm' does not",
                stacklevel=2,
            )
        if scheduled_sampling is not None and scheduled_sampling <= 0:
            raise ValueError(f"scheduled_sampling={scheduled_sampling} must be above zero")
        if start_len < 0:
            raise ValueError(f"start_len={start_len} must not be negative")
        self.d_y_context, self.d_y_target, self.d_x = d_y_context, d_y_target, d_x
        self.start_len, self.out_dim, self.verbose = start_len, out_dim, verbose
        self.pad_value, self.null_value = pad_value, null_value
        self.autoregressive_training = autoregressive_training
        self.scheduled_sampling = scheduled_sampling
        self.training_passes: Tensor
        self.register_buffer("training_passes", torch.zeros((), dtype=torch.long))

        self.transformer = TokenTransformer(
            d_y_context,
            d_y_target,
            d_x,
            d_model,
            target_index=target_index,
            max_seq_len=max_seq_len,
            d_q_k=d_q_k,
            d_v=d_v,
            n_heads=n_heads,
            n_encoder_layers=n_encoder_layers,
            n_decoder_layers=n_decoder_layers,
            d_ff=d_ff,
            time_emb_dim=time_emb_dim,
            downsample_convs_embedding=downsample_convs_embedding,
            downsample_convs_block=downsample_convs_block,
            data_dropout_embedding=data_dropout_embedding,
            dropout_embedding=dropout_embedding,
            dropout_attn=dropout_attn,
            dropout_qkv=dropout_qkv,
            dropout_ff=dropout_ff,
            redraw_interval=redraw_interval,
            time_embedding=time_embedding,
            indicator_embedding=indicator_embedding,
            position_embedding=position_embedding,
            performer_attention_kernel=performer_attention_kernel,
            nb_features=nb_features,
            qk_norm=qk_norm,
            windows=windows,
            use_shifted_time_window=use_shifted_time_window,
            activation=activation,
            normalization_type=normalization_type,
            final_norm=final_norm,
            out_dim=out_dim,
            attention=attention,
            global_self_attention=global_self_attention,
            local_self_attention=local_self_attention,
            global_cross_attention=global_cross_attention,
            local_cross_attention=local_cross_attention,
        )
        self.frame = SeriesFrame(
            d_y_context,
            target_index,
            global_norm,
            use_revin,
            decomposition_kernel if use_seasonal_decomp else None,
            linear_window,
            linear_shared_weights,
        )

    @property
    def spectral_time(self) -> SpectralTimeEmbedding | None:
        r"""The spectral time embedding, to be fitted on training data; :obj:`None` without."""
        return self.transformer.spectral_time

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters; what was fitted to data stays."""
        self.training_passes.zero_()
        for module in self.children():
            reset: Any = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()

    def forward(
        self,
        enc_x: Tensor | Data,
        enc_y: Tensor | None = None,
        dec_x: Tensor | None = None,
        dec_y: Tensor | None = None,
        output_attention: bool = False,
        mode: str | None = None,
        *,
        observed_mask: Tensor | None = None,
        target_mask: Tensor | None = None,
    ) -> Any:
        r"""Forecasts.

        Args:
            enc_x (torch.Tensor or Data): Time features of the context, or everything at once.
            enc_y (torch.Tensor, optional): Values of the context. (default: :obj:`None`)
            dec_x (torch.Tensor, optional): Time features of the steps to forecast.
                (default: :obj:`None`)
            dec_y (torch.Tensor, optional): Their values: those of the first :obj:`start_len`
                steps are given; later ones are looked at with teacher forcing only.
                (default: :obj:`None`, nothing known)
            output_attention (bool, optional): Whether to return the weights of all attentions
                too, of encoder and decoder. (default: :obj:`False`)
            mode (str, optional): :obj:`"one_shot"`, :obj:`"teacher_forcing"` or
                :obj:`"autoregressive"`. (default: :obj:`None`, one shot; with
                :obj:`autoregressive_training` teacher forcing in training, else autoregressive)
            observed_mask (torch.Tensor, optional): Booleans of the shape of :obj:`enc_y`,
                :obj:`True` = observed. (default: :obj:`None`, all but NaN and
                :obj:`null_value`)
            target_mask (torch.Tensor, optional): The same of :obj:`dec_y`.
                (default: :obj:`None`)
        """
        if isinstance(enc_x, Data):
            data = enc_x
            windows = window_tensors(data, self.d_x)
            y = self.forward(
                *windows[:4],
                mode=mode,
                observed_mask=windows.observed_mask,
                target_mask=windows.target_mask,
            )
            return from_variables(y, data)
        if mode is None:
            causal = "teacher_forcing" if self.training else "autoregressive"
            mode = causal if self.autoregressive_training else "one_shot"
        enc_y, dec_x, dec_y = self._check(enc_x, enc_y, dec_x, dec_y, mode)
        redraw_when_due(self)
        observed, padding = self._observed(enc_y, observed_mask)
        known, target_padding = self._observed(dec_y, target_mask)
        if target_padding is not None:
            # Whether a later value fills up a window is as unknown as the value.
            steps = torch.arange(dec_y.size(1), device=dec_y.device).unsqueeze(-1)
            target_padding = target_padding & (steps < self.start_len)
        framed = self.frame.context(enc_y, observed)
        values = self.frame.normalize_targets(dec_y, known, framed)
        memory = self.transformer.encode(
            enc_x, framed.seasonal, observed, padding, output_attention
        )
        attentions = [memory.attentions]
        horizon = dec_x.size(1) - self.start_len
        baseline = self.frame.baseline(framed, horizon)

        def decode(values: Tensor, given: Tensor, causal: bool) -> Tensor:
            y, weights = self.transformer.decode(
                dec_x, values, given, memory, target_padding, causal, output_attention
            )
            if output_attention:
                attentions.append(weights)
            return y[..., self.start_len :, :] + baseline

        def next_step(values: Tensor, known: Tensor, t: int) -> Tensor:
            y = decode(*self.frame.shifted(values, known, framed, self.start_len), causal=True)
            return y[..., t - self.start_len, :]

        sampling = self.scheduled_sampling if self.training else None
        if mode == "one_shot":
            y = decode(*self.frame.start(values, known, framed, self.start_len), causal=False)
        elif mode == "teacher_forcing" and sampling is None:
            y = decode(*self.frame.shifted(values, known, framed, self.start_len), causal=True)
        else:
            ratio = 0.0
            if mode == "teacher_forcing" and sampling is not None:
                ratio = sampling_ratio(int(self.training_passes), sampling)
                self.training_passes.add_(1)
            y = roll_out(next_step, values, known, self.start_len, ratio, self.verbose)
        y = self.frame.restore(y, framed)
        return (y, attentions) if output_attention else y

    @torch.no_grad()
    def forecast(
        self,
        enc_x: Tensor,
        enc_y: Tensor,
        dec_x: Tensor,
        dec_y: Tensor | None = None,
        *,
        observed_mask: Tensor | None = None,
    ) -> Tensor:
        r"""Forecasts step by step, feeding forecasts back, without gradients; the arguments are
        those of :meth:`forward`."""
        return self.forward(
            enc_x, enc_y, dec_x, dec_y, mode="autoregressive", observed_mask=observed_mask
        )

    def _observed(self, y: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Which values are there, and which entries fill up a window."""
        observed = ~y.isnan()
        if mask is not None:
            if mask.shape != y.shape or mask.dtype != torch.bool:
                raise ValueError(
                    f"a mask must be boolean (True = observed) and {list(y.shape)} as its values, "
                    f"got {mask.dtype} {list(mask.shape)}"
                )
            observed = observed & mask
        if self.null_value is not None:
            observed = observed & (y != self.null_value)
        if self.pad_value is None:
            return observed, None
        padding = y.isnan() if math.isnan(self.pad_value) else y == self.pad_value
        return observed & ~padding, padding

    def _check(
        self,
        enc_x: Tensor,
        enc_y: Tensor | None,
        dec_x: Tensor | None,
        dec_y: Tensor | None,
        mode: str,
    ) -> tuple[Tensor, Tensor, Tensor]:
        if mode not in MODES:
            raise ValueError(f"mode={mode!r} is unknown; choose from {MODES}")
        if enc_y is None or dec_x is None:
            raise ValueError(
                "SpatioTemporalPerformer takes a window Data, or enc_x [B, L_c, d_x], enc_y "
                "[B, L_c, N], dec_x [B, L_t, d_x] and dec_y [B, L_t, M]"
            )
        if dec_y is None:
            if self.start_len or mode == "teacher_forcing":
                raise ValueError(f"start_len={self.start_len} and mode={mode!r} need dec_y")
            dec_y = enc_y.new_zeros(*dec_x.shape[:2], self.d_y_target)
        expected = {"enc_y": (enc_y, self.d_y_context), "dec_y": (dec_y, self.d_y_target)}
        for (name, (y, variables)), x in zip(expected.items(), (enc_x, dec_x)):
            shape = (*x.shape[:2], variables)
            if y.shape != shape:
                raise ValueError(f"{name} must be {list(shape)}, got {list(y.shape)}")
        if dec_x.size(1) <= self.start_len or self.start_len > enc_y.size(1):
            raise ValueError(
                f"start_len={self.start_len} steps of the context, and at least one to forecast, "
                f"must fit in the {dec_x.size(1)} steps of dec_x and the {enc_y.size(1)} of enc_y"
            )
        return enc_y, dec_x, dec_y

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.d_y_context}, {self.d_y_target}, d_x={self.d_x}, "
            f"layers={len(self.transformer.encoder.layers)}+{len(self.transformer.decoder.layers)})"
        )
