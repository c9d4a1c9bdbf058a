from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyg_stmamba.nn.embedding.given_values import given_and_padding
from pyg_stmamba.nn.embedding.position import PositionEmbedding
from pyg_stmamba.nn.embedding.spectral_time import SpectralTimeEmbedding
from pyg_stmamba.nn.embedding.time2vec import Time2Vec
from pyg_stmamba.nn.spacetime.conv_block import ConvBlock
from pyg_stmamba.ops import dropout_mask


class Embedding(nn.Module):
    r"""One token for each variable and step of a window, as in the `"Long-Range Transformers for
    Dynamic Spatiotemporal Forecasting" <https://arxiv.org/abs/2109.12218>`_ paper.

    .. math::
        \mathbf{e}_{i,t} = \mathbf{W} \left[ \tau(\mathbf{x}_t); \hat{y}_{t,i} \right] + \mathbf{b}
        + \mathbf{P}_t + \mathbf{G}_{g_{t,i}}, \qquad
        \mathbf{s}_{i,t} = \mathbf{V}_i

    with the vector :math:`\tau` of the time features, and tables for the position, for the
    variable, and for whether a value is given (:math:`g = 1`) or missing (:math:`g = 0`); a
    missing value enters as :math:`\hat{y} = 0`, whatever it is. A value is given if it is observed,
    neither :obj:`nan` nor :obj:`null_value` nor :obj:`pad_value`, not hidden by
    :obj:`data_dropout` and, in a decoder, earlier than :obj:`start_len`.

    The token of variable :math:`i` at step :math:`t` has the index :math:`i L + t`. Both parts are
    returned apart, so that a dropout may act on each.

    Args:
        d_y (int): Number of variables :math:`N`.
        d_x (int): Number of time features :math:`C`.
        d_model (int): Size of each token :math:`D`.
        time_emb_dim (int, optional): Size of the vector of each time feature; with :obj:`0` the
            features enter as they are. (default: :obj:`6`)
        downsample_convs (int, optional): How many times a :class:`ConvBlock` halves the time of an
            encoder's tokens. (default: :obj:`0`)
        start_len (int, optional): Number of leading steps whose values a decoder is given.
            (default: :obj:`0`)
        pad_value (float, optional): What fills up windows; such tokens are padding. In a decoder
            only the first :obj:`start_len` steps can be. (default: :obj:`None`)
        null_value (float, optional): What stands for a missing value beside :obj:`nan`.
            (default: :obj:`None`)
        is_encoder (bool, optional): If set to :obj:`False`, values from :obj:`start_len` on are
            missing. (default: :obj:`True`)
        data_dropout (float, optional): Probability to hide a given value in training.
            (default: :obj:`None`)
        max_seq_len (int, optional): Number of learned positions, hence the longest window.
            (default: :obj:`None`)
        indicator_embedding (bool, optional): If set to :obj:`False`, the table of given and missing
            is left out. (default: :obj:`True`)
        time_embedding (bool, str or SpectralTimeEmbedding, optional): :obj:`True` for a
            :class:`Time2Vec` of the features, :obj:`False` for no time,
            :obj:`"spectral"` or a :class:`SpectralTimeEmbedding` for sines and cosines of the first
            feature, which is then the physical time. By the name, one of
            :obj:`time_emb_dim // 2` frequencies is made, to be fitted before use.
            (default: :obj:`True`)
        position_embedding (str, optional): :obj:`"learned"`, which needs :obj:`max_seq_len`, or
            :obj:`"time2vec"`. (default: :obj:`"learned"`)
        use_value (bool, optional): If set to :obj:`False`, the values are left out.
            (default: :obj:`True`)
        use_space (bool, optional): If set to :obj:`False`, the table of variables is left out and
            the second part is zero. (default: :obj:`True`)

    Shapes:
        - **input:** values :math:`(B, L, N)`, time features :math:`(B, L, C)` *(optional without
          time embedding)*, masks :math:`(B, L, N)` *(optional)*
        - **output:** both parts :math:`(B, N L, D)`, variable indices :math:`(B, N L)`, padding
          mask :math:`(B, N L, 1)` or :obj:`None` if nothing says what is padding; each convolution
          halves :math:`L`, rounded up

    Raises:
        ValueError: If an option is none of the above, or a shape does not fit.
    """

    def __init__(
        self,
        d_y: int,
        d_x: int,
        d_model: int,
        time_emb_dim: int = 6,
        downsample_convs: int = 0,
        start_len: int = 0,
        pad_value: float | None = None,
        null_value: float | None = None,
        is_encoder: bool = True,
        data_dropout: float | None = None,
        max_seq_len: int | None = None,
        indicator_embedding: bool = True,
        time_embedding: bool | Literal["spectral"] | SpectralTimeEmbedding = True,
        position_embedding: Literal["learned", "time2vec"] = "learned",
        use_value: bool = True,
        use_space: bool = True,
    ) -> None:
        super().__init__()
        if data_dropout is not None and not 0 <= data_dropout <= 1:
            raise ValueError(f"data_dropout must be a probability or None, got {data_dropout}")
        for name, count in (("start_len", start_len), ("downsample_convs", downsample_convs)):
            if count < 0:
                raise ValueError(f"{name} must not be negative, got {count}")
        self.d_y = d_y
        self.d_x = d_x
        self.d_model = d_model
        self.start_len = start_len
        self.pad_value = pad_value
        self.null_value = null_value
        self.is_encoder = is_encoder
        self.data_dropout = data_dropout
        self.use_value = use_value

        time_channels = 0
        self.time: Time2Vec | SpectralTimeEmbedding | None = None
        if isinstance(time_embedding, SpectralTimeEmbedding):
            self.time = time_embedding
        elif time_embedding == "spectral":
            self.time = SpectralTimeEmbedding(time_emb_dim // 2)
        elif time_embedding is True:
            self.time = Time2Vec(d_x, time_emb_dim * d_x)
            time_channels = time_emb_dim * d_x or d_x
        elif time_embedding is not False:
            raise ValueError(
                f"unknown time_embedding {time_embedding!r}; choose True, False, 'spectral' or a "
                "SpectralTimeEmbedding"
            )
        if isinstance(self.time, SpectralTimeEmbedding):
            time_channels = 2 * self.time.num_modes
        self.value_time: nn.Linear | None = None
        if time_channels + use_value > 0:
            self.value_time = nn.Linear(time_channels + use_value, d_model)
        self.position = PositionEmbedding(d_model, position_embedding, max_seq_len)
        self.given = nn.Embedding(2, d_model) if indicator_embedding else None
        self.space = nn.Embedding(d_y, d_model) if use_space else None
        self.convs = nn.ModuleList(
            ConvBlock(d_y, d_model) for _ in range(downsample_convs if is_encoder else 0)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew; the frequencies of a spectral embedding stay."""
        if isinstance(self.time, Time2Vec):
            self.time.reset_parameters()
        if self.value_time is not None:
            self.value_time.reset_parameters()
        self.position.reset_parameters()
        for table in (self.given, self.space):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)
        for conv in self.convs:
            conv.reset_parameters()  # type: ignore[operator]

    def forward(
        self,
        y: Tensor,
        x: Tensor | None = None,
        observed_mask: Tensor | None = None,
        start_len: int | None = None,
        padding_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        r"""Makes the tokens of windows.

        Args:
            y (torch.Tensor): The values.
            x (torch.Tensor, optional): The time features. (default: :obj:`None`)
            observed_mask (torch.Tensor, optional): Boolean, :obj:`True` = observed.
                (default: :obj:`None`)
            start_len (int, optional): In a decoder, takes the place of the :obj:`start_len` of the
                constructor. (default: :obj:`None`)
            padding_mask (torch.Tensor, optional): Boolean, :obj:`True` = padding; takes the place
                of :obj:`pad_value`, for values that are not in their original units any more.
                (default: :obj:`None`)
        """
        self._check(y, x)
        start_len = self.start_len if start_len is None else start_len
        given, padding = given_and_padding(
            y,
            observed_mask,
            padding_mask,
            null_value=self.null_value,
            pad_value=self.pad_value,
            start_len=None if self.is_encoder else start_len,
        )
        if self.training and self.data_dropout:
            given = given & dropout_mask(y.shape, self.data_dropout, y.device)[0]
        tokens = self._tokens(y, x, given).flatten(1, 2)
        if padding is not None:
            padding = padding.transpose(1, 2).flatten(1)

        for conv in self.convs:
            tokens = conv(tokens, padding)
            if padding is not None:
                padding = conv.shorten_padding_mask(padding)  # type: ignore[operator]
        length = tokens.size(1) // self.d_y
        variable = torch.arange(self.d_y, device=y.device).repeat_interleave(length)
        if self.space is None:
            space = torch.zeros_like(tokens)
        else:
            space = self.space(variable).expand_as(tokens)
        variable = variable.expand(y.size(0), -1)
        return tokens, space, variable, None if padding is None else padding.unsqueeze(-1)

    def _tokens(self, y: Tensor, x: Tensor | None, given: Tensor) -> Tensor:
        # What all variables share is computed once for a step: [1 or B, 1, L, D].
        shared = self.position(y.size(1)).expand(1, 1, -1, -1)
        if self.value_time is not None:
            shared = shared + self.value_time.bias
            weight = self.value_time.weight
            if self.time is not None and x is not None:
                spectral = isinstance(self.time, SpectralTimeEmbedding)
                features = self.time(x[..., :1] if spectral else x).to(weight.dtype)
                shared = shared + F.linear(features, weight[:, : features.size(-1)]).unsqueeze(1)
        tokens = shared.expand(y.size(0), self.d_y, -1, -1)
        if self.value_time is not None and self.use_value:
            value = y.masked_fill(~given, 0.0).transpose(1, 2).unsqueeze(-1)
            tokens = tokens + value * self.value_time.weight[:, -1]
        if self.given is not None:
            tokens = tokens + self.given(given.transpose(1, 2).long())
        return tokens

    def _check(self, y: Tensor, x: Tensor | None) -> None:
        if y.dim() != 3 or y.size(-1) != self.d_y:
            raise ValueError(
                f"y must be [B, L, N] of N = {self.d_y} variables, got shape {list(y.shape)}"
            )
        shape = (*y.shape[:2], self.d_x)
        if self.time is not None and (x is None or x.shape != shape):
            raise ValueError(
                f"x must be {list(shape)}, the time features of y, got "
                f"{None if x is None else list(x.shape)}; time_embedding=False needs none"
            )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.d_y}, {self.d_x}, {self.d_model}, "
            f"is_encoder={self.is_encoder})"
        )
