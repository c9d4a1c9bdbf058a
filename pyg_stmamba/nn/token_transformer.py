from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch_geometric.nn.inits import reset

from pyg_stmamba.nn.embedding import Embedding, SpectralTimeEmbedding
from pyg_stmamba.nn.multi_head_attention import (
    create_full_attention,
    create_performer_attention,
)
from pyg_stmamba.nn.spacetime.conv_block import ConvBlock
from pyg_stmamba.nn.spacetime.decoder import Decoder, DecoderLayer
from pyg_stmamba.nn.spacetime.encoder import Encoder, EncoderLayer
from pyg_stmamba.nn.spacetime.normalization import Normalization
from pyg_stmamba.nn.spacetime.token_layout import PredRearrange


class Memory(NamedTuple):
    r"""What the encoder of a :class:`TokenTransformer` leaves to its decoder."""

    tokens: Tensor  # [B, N * S, D]
    padding_mask: Tensor | None  # [B, N * S], True = padding
    attentions: Any  # the weights of each layer, or None


class TokenTransformer(nn.Module):
    r"""Embedding, encoder and decoder over one token for each variable and step, after the
    `"Long-Range Transformers for Dynamic Spatiotemporal Forecasting"
    <https://arxiv.org/abs/2109.12218>`_ paper: from values, their times, and which of them are
    given, to values.

    It is what :class:`~pyg_stmamba.models.SpatioTemporalPerformer` puts its series through; the
    arguments are described there.

    Shapes:
        - **input:** time features :math:`(B, L, d_x)`, values and flags :math:`(B, L, N)` of the
          context, the same of the :math:`M` targets
        - **output:** :math:`(B, L, M)`, or :math:`(\textrm{out\_dim}, B, L, M)`
    """

    def __init__(
        self,
        d_y_context: int,
        d_y_target: int,
        d_x: int,
        d_model: int,
        *,
        target_index: Sequence[int] | None = None,
        max_seq_len: int | None = 512,
        d_q_k: int | None = None,
        d_v: int | None = None,
        n_heads: int = 8,
        n_encoder_layers: int = 2,
        n_decoder_layers: int = 2,
        d_ff: int | None = None,
        time_emb_dim: int = 6,
        downsample_convs_embedding: int = 0,
        downsample_convs_block: int = 0,
        data_dropout_embedding: float | None = None,
        dropout_embedding: float = 0.0,
        dropout_attn: float = 0.0,
        dropout_qkv: float = 0.0,
        dropout_ff: float = 0.2,
        redraw_interval: int | None = 1000,
        time_embedding: bool | str | SpectralTimeEmbedding = True,
        indicator_embedding: bool = True,
        position_embedding: str = "learned",
        performer_attention_kernel: str = "softmax",
        nb_features: int | None = None,
        qk_norm: bool = False,
        windows: int = 1,
        use_shifted_time_window: bool = True,
        activation: str = "gelu",
        normalization_type: str = "layernorm",
        final_norm: bool = True,
        out_dim: int = 1,
        attention: str = "performer",
        global_self_attention: bool | str = True,
        local_self_attention: bool | str = True,
        global_cross_attention: bool | str = True,
        local_cross_attention: bool | str = True,
    ) -> None:
        super().__init__()
        if n_heads < 1 or ((d_q_k is None or d_v is None) and d_model % n_heads):
            raise ValueError(
                f"d_model={d_model} must be divisible by n_heads={n_heads}, or give d_q_k and d_v"
            )
        if time_embedding == "spectral":
            if time_emb_dim < 2:
                raise ValueError(
                    f"time_emb_dim={time_emb_dim} must be at least 2 where time_embedding is "
                    "'spectral', a sine and a cosine of each frequency"
                )
            time_embedding = SpectralTimeEmbedding(time_emb_dim // 2)
        shared: Any = {
            "time_emb_dim": time_emb_dim,
            "max_seq_len": max_seq_len,
            "indicator_embedding": indicator_embedding,
            "time_embedding": time_embedding,
            "position_embedding": position_embedding,
        }
        self.encoder_embedding = Embedding(
            d_y_context,
            d_x,
            d_model,
            downsample_convs=downsample_convs_embedding,
            data_dropout=data_dropout_embedding,
            **shared,
        )
        self.decoder_embedding = Embedding(d_y_target, d_x, d_model, is_encoder=False, **shared)

        heads: Any = {
            "d_model": d_model,
            "d_q_k": d_q_k or d_model // n_heads,
            "d_v": d_v or d_model // n_heads,
            "n_heads": n_heads,
            "dropout_qkv": dropout_qkv,
        }

        def make(wanted: bool | str) -> nn.Module | None:
            name = attention if wanted is True else wanted
            if name is False:
                return None
            if name == "full":
                return create_full_attention(**heads)
            if name != "performer":
                raise ValueError(f"attention {name!r} is unknown; choose 'performer' or 'full'")
            return create_performer_attention(
                **heads,
                performer_attention_kernel=performer_attention_kernel,
                redraw_interval=redraw_interval,
                nb_features=nb_features,
                qk_norm=qk_norm,
            )

        of_layers: Any = {
            "d_ff": d_ff,
            "dropout_ff": dropout_ff,
            "dropout_attn": dropout_attn,
            "activation": activation,
            "normalization": normalization_type,
            "windows": windows,
        }
        self.encoder = Encoder(
            [
                EncoderLayer(
                    d_model,
                    d_y_context,
                    make(global_self_attention),
                    make(local_self_attention),
                    shifted=use_shifted_time_window and windows > 1 and layer % 2 == 1,
                    **of_layers,
                )
                for layer in range(n_encoder_layers)
            ],
            [ConvBlock(d_y_context, d_model) for _ in range(downsample_convs_block)],
            Normalization(d_model, normalization_type) if final_norm else None,
            dropout_embedding,
        )
        self.decoder = Decoder(
            [
                DecoderLayer(
                    d_model,
                    d_y_target,
                    d_y_context,
                    make(global_self_attention),
                    make(local_self_attention),
                    make(global_cross_attention),
                    make(local_cross_attention),
                    target_index,
                    shifted=use_shifted_time_window and windows > 1 and layer % 2 == 1,
                    **of_layers,
                )
                for layer in range(n_decoder_layers)
            ],
            Normalization(d_model, normalization_type) if final_norm else None,
            dropout_embedding,
        )
        self.head = nn.Linear(d_model, out_dim)
        self.rearrange = PredRearrange(d_y_target)

    @property
    def spectral_time(self) -> SpectralTimeEmbedding | None:
        r"""The spectral time embedding, which encoder and decoder share; :obj:`None` without."""
        time = self.encoder_embedding.time
        return time if isinstance(time, SpectralTimeEmbedding) else None

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        for module in self.children():
            reset(module)

    def encode(
        self,
        x: Tensor,
        values: Tensor,
        given: Tensor,
        padding_mask: Tensor | None = None,
        output_attention: bool = False,
    ) -> Memory:
        r"""Runs the encoder over a context.

        Args:
            x (torch.Tensor): The time features.
            values (torch.Tensor): The values.
            given (torch.Tensor): Boolean, which of them are there.
            padding_mask (torch.Tensor, optional): Boolean, which of them fill a window up.
                (default: :obj:`None`)
            output_attention (bool, optional): Whether to return the weights.
                (default: :obj:`False`)
        """
        tokens, space, _, padding = self.encoder_embedding(values, x, given, None, padding_mask)
        padding = None if padding is None else padding.squeeze(-1)
        return Memory(*self.encoder(tokens, space, padding, output_attention))

    def decode(
        self,
        x: Tensor,
        values: Tensor,
        given: Tensor,
        memory: Memory,
        padding_mask: Tensor | None = None,
        causal: bool = False,
        output_attention: bool = False,
    ) -> tuple[Tensor, Any]:
        r"""Runs the decoder; the arguments are those of :meth:`encode`.

        Args:
            memory (Memory): What :meth:`encode` returned.
            causal (bool, optional): Whether a step sees itself and earlier ones only, of any
                variable. (default: :obj:`False`)
        """
        # Which values are given is said by the flags alone.
        every = values.size(1)
        tokens, space, _, padding = self.decoder_embedding(values, x, given, every, padding_mask)
        padding = None if padding is None else padding.squeeze(-1)
        h, attentions = self.decoder(
            tokens, space, memory.tokens, padding, memory.padding_mask, causal, output_attention
        )
        return self.rearrange(self.head(h)), attentions
