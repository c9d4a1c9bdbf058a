from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch_geometric.nn.inits import reset

from pyg_stmamba.nn.dropout import Dropout
from pyg_stmamba.nn.spacetime.attention_phase import AttentionPhase
from pyg_stmamba.nn.spacetime.conv_block import ConvBlock
from pyg_stmamba.nn.spacetime.feed_forward import FeedForward
from pyg_stmamba.nn.spacetime.global_attention import GlobalAttention
from pyg_stmamba.nn.spacetime.local_attention import LocalAttention
from pyg_stmamba.nn.spacetime.normalization import Normalization
from pyg_stmamba.nn.spacetime.padding import hide_padding
from pyg_stmamba.nn.spacetime.token_layout import check_tokens


class EncoderLayer(nn.Module):
    r"""A layer of the encoder of the `"Long-Range Transformers for Dynamic Spatiotemporal
    Forecasting" <https://arxiv.org/abs/2109.12218>`_ paper, normalized before each phase.

    .. math::
        \mathbf{h} &= \mathbf{x} + \mathrm{LocalAttention}(\mathrm{Norm}(\mathbf{x}))

        \mathbf{h}' &= \mathbf{h} + \mathrm{GlobalAttention}(\mathrm{Norm}(\mathbf{h}))

        \mathbf{y} &= \mathbf{h}' + \mathrm{FeedForward}(\mathrm{Norm}(\mathbf{h}'))

    An attention is any module called as :obj:`attention(query, key, value, attention_mask,
    output_attention, time_index)` that returns its output and its weights.

    Args:
        d_model (int): Size of each token, in and out.
        num_variables (int): Number of variables :math:`N`.
        global_attention (torch.nn.Module, optional): The attention among the tokens of a window;
            :obj:`None` leaves the phase out. (default: :obj:`None`)
        local_attention (torch.nn.Module, optional): The attention of each variable over its time;
            :obj:`None` leaves the phase out. (default: :obj:`None`)
        d_ff (int, optional): Inner size of the feed-forward network. (default: :obj:`None`, four
            times :obj:`d_model`)
        dropout_ff (float, optional): Dropout of the feed-forward network. (default: :obj:`0.2`)
        dropout_attn (float, optional): Dropout of what an attention adds. (default: :obj:`0.0`)
        activation (str, optional): That of :class:`FeedForward`. (default: :obj:`"gelu"`)
        normalization (str, optional): The method of :class:`Normalization`.
            (default: :obj:`"layernorm"`)
        windows (int, optional): Number of windows of time of the global attention.
            (default: :obj:`1`)
        shifted (bool, optional): Whether they start half a window later, see :class:`Windowing`.
            (default: :obj:`False`)

    Shapes:
        - **input:** tokens :math:`(B, N \cdot L, D)`, variable by variable, padding mask
          :math:`(B, N \cdot L)` *(optional)*
        - **output:** :math:`(B, N \cdot L, D)`, and the weights of each attention, local first, or
          :obj:`None`
    """

    def __init__(
        self,
        d_model: int,
        num_variables: int,
        global_attention: nn.Module | None = None,
        local_attention: nn.Module | None = None,
        d_ff: int | None = None,
        dropout_ff: float = 0.2,
        dropout_attn: float = 0.0,
        activation: str = "gelu",
        normalization: str = "layernorm",
        windows: int = 1,
        shifted: bool = False,
    ) -> None:
        super().__init__()

        def phase(
            kind: Callable[..., nn.Module], attention: nn.Module | None, *options: Any
        ) -> AttentionPhase | None:
            if attention is None:
                return None
            return AttentionPhase(kind(attention, *options), d_model, dropout_attn, normalization)

        self.d_model = d_model
        self.num_variables = num_variables
        self.local_attention = phase(LocalAttention, local_attention, num_variables)
        self.global_attention = phase(
            GlobalAttention, global_attention, num_variables, windows, shifted
        )
        self.norm = Normalization(d_model, normalization)
        self.feed_forward = FeedForward(d_model, d_ff, dropout_ff, activation)

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew, those of the attentions included."""
        for module in self.children():
            reset(module)

    def forward(
        self, x: Tensor, padding_mask: Tensor | None = None, output_attention: bool = False
    ) -> tuple[Tensor, list[Tensor] | None]:
        r"""Runs all phases.

        Args:
            x (torch.Tensor): The tokens.
            padding_mask (torch.Tensor, optional): Boolean, :obj:`True` = padding. What such a
                token holds has no influence, and its output no meaning. (default: :obj:`None`)
            output_attention (bool, optional): Whether to return the weights.
                (default: :obj:`False`)
        """
        check_tokens(x, self.num_variables, self.d_model)
        x = hide_padding(x, padding_mask)
        attentions = []
        for phase in (self.local_attention, self.global_attention):
            if phase is not None:
                x, weights = phase(x, padding_mask=padding_mask, output_attention=output_attention)
                attentions.append(weights)
        x = x + self.feed_forward(self.norm(x))
        return x, attentions if output_attention else None


class Encoder(nn.Module):
    r"""Layers of an encoder, with the time halved between them where there is a convolution.

    Args:
        encoder_layers (iterable of EncoderLayer): The layers.
        conv_layers (iterable of ConvBlock, optional): The convolutions; one after each layer, as
            far as they go. (default: :obj:`()`)
        norm_layer (torch.nn.Module, optional): What normalizes the output.
            (default: :obj:`None`)
        dropout (float, optional): Dropout of each embedding. (default: :obj:`0.0`)

    Shapes:
        - **input:** embeddings of value and time, and of space, :math:`(B, N \cdot L, D)`,
          variable by variable, padding mask :math:`(B, N \cdot L)` *(optional)*
        - **output:** :math:`(B, N \cdot L', D)`, its padding mask :math:`(B, N \cdot L')` or
          :obj:`None`, and the weights of each layer or :obj:`None`

    Raises:
        ValueError: If there are more convolutions than layers.
    """

    def __init__(
        self,
        encoder_layers: Iterable[EncoderLayer],
        conv_layers: Iterable[ConvBlock] = (),
        norm_layer: nn.Module | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(encoder_layers)
        self.conv_layers = nn.ModuleList(conv_layers)
        self.norm = norm_layer
        self.dropout = Dropout(dropout)
        if len(self.conv_layers) > len(self.layers):
            raise ValueError(
                f"a convolution follows a layer, but there are {len(self.conv_layers)} "
                f"convolutions and {len(self.layers)} layers"
            )

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew, those of the attentions included."""
        for module in self.children():
            reset(module)

    def forward(
        self,
        val_time_emb: Tensor,
        space_emb: Tensor,
        padding_mask: Tensor | None = None,
        output_attention: bool = False,
    ) -> tuple[Tensor, Tensor | None, list[list[Tensor]] | None]:
        r"""Runs all layers.

        Args:
            val_time_emb (torch.Tensor): What is embedded of value and time.
            space_emb (torch.Tensor): What is embedded of the variable.
            padding_mask (torch.Tensor, optional): Boolean, :obj:`True` = padding.
                (default: :obj:`None`)
            output_attention (bool, optional): Whether to return the weights.
                (default: :obj:`False`)
        """
        x = self.dropout(val_time_emb) + self.dropout(space_emb)
        attentions = []
        for i, layer in enumerate(self.layers):
            x, weights = layer(x, padding_mask, output_attention)
            attentions.append(weights)
            if i < len(self.conv_layers):
                conv: Any = self.conv_layers[i]
                x = conv(x, padding_mask)
                if padding_mask is not None:
                    padding_mask = conv.shorten_padding_mask(padding_mask)
        if self.norm is not None:
            x = self.norm(x)
        return x, padding_mask, attentions if output_attention else None
