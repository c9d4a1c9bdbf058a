from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torch_geometric.nn.inits import reset

from pyg_stmamba.nn.dropout import Dropout
from pyg_stmamba.nn.spacetime.attention_phase import AttentionPhase
from pyg_stmamba.nn.spacetime.feed_forward import FeedForward
from pyg_stmamba.nn.spacetime.global_attention import GlobalAttention
from pyg_stmamba.nn.spacetime.local_attention import LocalAttention
from pyg_stmamba.nn.spacetime.normalization import Normalization
from pyg_stmamba.nn.spacetime.padding import hide_padding
from pyg_stmamba.nn.spacetime.token_layout import check_tokens


class DecoderLayer(nn.Module):
    r"""A layer of the decoder of the `"Long-Range Transformers for Dynamic Spatiotemporal
    Forecasting" <https://arxiv.org/abs/2109.12218>`_ paper: local and global attention among the
    tokens, local and global attention to the memory, and a feed-forward network, normalized before
    each phase.

    .. math::
        \mathbf{x} \leftarrow \mathbf{x} + f(\mathrm{Norm}(\mathbf{x})) \quad \text{for each phase }
        f

    An attention is any module called as :obj:`attention(query, key, value, attention_mask,
    output_attention, time_index)` that returns its output and its weights; :obj:`None` leaves its
    phase out. Windows are those of the global attention among the tokens. The memory, whose length
    may be another, is attended to as a whole.

    Args:
        d_model (int): Size of each token, in and out.
        num_variables (int): Number of variables :math:`N`.
        num_context_variables (int): Number of variables :math:`M` of the memory.
        global_self (torch.nn.Module, optional): The attention among the tokens of a window.
            (default: :obj:`None`)
        local_self (torch.nn.Module, optional): The attention of each variable over its time.
            (default: :obj:`None`)
        global_cross (torch.nn.Module, optional): The attention to all of the memory.
            (default: :obj:`None`)
        local_cross (torch.nn.Module, optional): The attention of each variable to its context
            variable. (default: :obj:`None`)
        target_index (sequence of int, optional): The context variable of each variable.
            (default: :obj:`None`, the one of the same index)
        d_ff (int, optional): Inner size of the feed-forward network. (default: :obj:`None`, four
            times :obj:`d_model`)
        dropout_ff (float, optional): Dropout of the feed-forward network. (default: :obj:`0.2`)
        dropout_attn (float, optional): Dropout of what an attention adds. (default: :obj:`0.0`)
        activation (str, optional): That of :class:`FeedForward`. (default: :obj:`"gelu"`)
        normalization (str, optional): The method of :class:`Normalization`.
            (default: :obj:`"layernorm"`)
        windows (int, optional): Number of windows of time. (default: :obj:`1`)
        shifted (bool, optional): Whether they start half a window later, see :class:`Windowing`.
            (default: :obj:`False`)

    Shapes:
        - **input:** tokens :math:`(B, N \cdot L, D)` and memory :math:`(B, M \cdot S, D)`, both
          variable by variable, their padding masks *(optional)*
        - **output:** :math:`(B, N \cdot L, D)`, and the weights of each attention, local self,
          global self, local cross, global cross, or :obj:`None`

    Raises:
        ValueError: If there is a local cross attention, and a variable has no context variable.
    """

    def __init__(
        self,
        d_model: int,
        num_variables: int,
        num_context_variables: int,
        global_self: nn.Module | None = None,
        local_self: nn.Module | None = None,
        global_cross: nn.Module | None = None,
        local_cross: nn.Module | None = None,
        target_index: Sequence[int] | None = None,
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
        self.num_context_variables = num_context_variables
        self.local_self = phase(LocalAttention, local_self, num_variables)
        self.global_self = phase(GlobalAttention, global_self, num_variables, windows, shifted)
        self.local_cross = phase(
            LocalAttention, local_cross, num_variables, num_context_variables, target_index
        )
        self.global_cross = phase(GlobalAttention, global_cross, num_variables)
        self.norm = Normalization(d_model, normalization)
        self.feed_forward = FeedForward(d_model, d_ff, dropout_ff, activation)

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew, those of the attentions included."""
        for module in self.children():
            reset(module)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        padding_mask: Tensor | None = None,
        memory_padding_mask: Tensor | None = None,
        causal: bool = False,
        output_attention: bool = False,
    ) -> tuple[Tensor, list[Tensor] | None]:
        r"""Runs all phases.

        Args:
            x (torch.Tensor): The tokens.
            memory (torch.Tensor): The output of an encoder.
            padding_mask (torch.Tensor, optional): Boolean, :obj:`True` = padding. What such a
                token holds has no influence, and its output no meaning. (default: :obj:`None`)
            memory_padding_mask (torch.Tensor, optional): The same of the memory.
                (default: :obj:`None`)
            causal (bool, optional): Whether a token sees tokens, of any variable, at times up to
                its own only. The memory is seen as a whole. (default: :obj:`False`)
            output_attention (bool, optional): Whether to return the weights.
                (default: :obj:`False`)
        """
        check_tokens(x, self.num_variables, self.d_model)
        check_tokens(memory, self.num_context_variables, self.d_model)
        x = hide_padding(x, padding_mask)
        memory = hide_padding(memory, memory_padding_mask)
        attentions = []
        for phase in (self.local_self, self.global_self):
            if phase is not None:
                x, weights = phase(x, None, padding_mask, causal, output_attention)
                attentions.append(weights)
        for phase in (self.local_cross, self.global_cross):
            if phase is not None:
                x, weights = phase(
                    x, memory, memory_padding_mask, output_attention=output_attention
                )
                attentions.append(weights)
        x = x + self.feed_forward(self.norm(x))
        return x, attentions if output_attention else None


class Decoder(nn.Module):
    r"""Layers of a decoder.

    Args:
        decoder_layers (iterable of DecoderLayer): The layers.
        norm_layer (torch.nn.Module, optional): What normalizes the output.
            (default: :obj:`None`)
        dropout (float, optional): Dropout of each embedding. (default: :obj:`0.0`)

    Shapes:
        - **input:** embeddings of value and time, and of space, :math:`(B, N \cdot L, D)`, memory
          :math:`(B, M \cdot S, D)`, all variable by variable, their padding masks *(optional)*
        - **output:** :math:`(B, N \cdot L, D)` and the weights of each layer or :obj:`None`
    """

    def __init__(
        self,
        decoder_layers: Iterable[DecoderLayer],
        norm_layer: nn.Module | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(decoder_layers)
        self.norm = norm_layer
        self.dropout = Dropout(dropout)

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew, those of the attentions included."""
        for module in self.children():
            reset(module)

    def forward(
        self,
        val_time_emb: Tensor,
        space_emb: Tensor,
        memory: Tensor,
        padding_mask: Tensor | None = None,
        memory_padding_mask: Tensor | None = None,
        causal: bool = False,
        output_attention: bool = False,
    ) -> tuple[Tensor, list[list[Tensor]] | None]:
        r"""Runs all layers.

        Args:
            val_time_emb (torch.Tensor): What is embedded of value and time.
            space_emb (torch.Tensor): What is embedded of the variable.
            memory (torch.Tensor): The output of an encoder.
            padding_mask (torch.Tensor, optional): Boolean, :obj:`True` = padding.
                (default: :obj:`None`)
            memory_padding_mask (torch.Tensor, optional): The same of the memory.
                (default: :obj:`None`)
            causal (bool, optional): Whether a token sees tokens, of any variable, at times up to
                its own only. (default: :obj:`False`)
            output_attention (bool, optional): Whether to return the weights.
                (default: :obj:`False`)
        """
        x = self.dropout(val_time_emb) + self.dropout(space_emb)
        attentions = []
        for layer in self.layers:
            x, weights = layer(
                x, memory, padding_mask, memory_padding_mask, causal, output_attention
            )
            attentions.append(weights)
        if self.norm is not None:
            x = self.norm(x)
        return x, attentions if output_attention else None
