from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn
from torch_geometric.nn.inits import reset

from pyg_stmamba.nn.transformer.feed_forward import FeedForwardBlock
from pyg_stmamba.nn.transformer.multi_attention import MultiAttention
from pyg_stmamba.nn.transformer.residual_phase import ResidualPhase

LayerState = dict[str, dict[str, Any]]


class BaseTransformerLayer(nn.Module):
    r"""The parts that the layers of :class:`TransformerEncoder` and :class:`TransformerDecoder`
    share: self-attention, cross-attention where there is a memory, and a feed-forward network, each
    a :class:`~pyg_stmamba.nn.transformer.residual_phase.ResidualPhase`.

    Args:
        d_model (int): Size of each token, in and out.
        nhead (int): Number of heads; they share the channels.
        dim_feedforward (int, optional): Size within the feed-forward network.
            (default: :obj:`2048`)
        dropout (float, optional): Dropout probability of attention weights, within the feed-forward
            network, and of what a phase adds. (default: :obj:`0.1`)
        activation (str, optional): :obj:`"gelu"`, :obj:`"relu"` or :obj:`"swish"`, without
            SwiGLU. (default: :obj:`"gelu"`)
        att_type (str, optional): :obj:`"standard"`, :obj:`"xformer"`, :obj:`"flash"` or
            :obj:`"frequency"`, see :class:`MultiAttention`. (default: :obj:`"standard"`)
        layer_norm_eps (float, optional): What the norms add to the variance.
            (default: :obj:`1e-5`)
        norm_strategy (str, optional): :obj:`"pre_norm"` or :obj:`"post_norm"`.
            (default: :obj:`"pre_norm"`)
        use_adaptive_ln (str, optional): The norm, :obj:`"layer"`, :obj:`"rms"`,
            :obj:`"adaptive"` or :obj:`"adaptive_rms"`. (default: :obj:`"layer"`)
        cond_dim (int, optional): Size of the condition of adaptive norms. (default: :obj:`None`)
        bias (bool, optional): Whether attention and feed-forward network have biases.
            (default: :obj:`True`)
        use_swiglu (bool, optional): Whether the feed-forward network is gated.
            (default: :obj:`True`)
        ff_chunk_size (int, optional): Number of tokens that go through the feed-forward network
            at once, to save memory. (default: :obj:`None`, all)
        freq_modes (int, optional): Number of frequencies of :obj:`"frequency"`.
            (default: :obj:`32`)
        use_moe (bool, optional): Whether the feed-forward network is a
            :class:`MixtureOfExperts`. (default: :obj:`False`)
        num_experts (int, optional): Number of experts. (default: :obj:`8`)
        top_k (int, optional): Number of experts of a token. (default: :obj:`2`)
        moe_capacity_factor (float, optional): How many times its share an expert takes in
            training; :obj:`None` for all that comes. (default: :obj:`None`)
        moe_aux_weight (float, optional): Weight of the balancing loss. (default: :obj:`1e-2`)
        moe_z_weight (float, optional): Weight of the router's z loss. (default: :obj:`1e-3`)

    Raises:
        ValueError: If a name is unknown; the choices are listed.
    """

    attends_to_memory: bool = False

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "gelu",
        att_type: Literal["standard", "xformer", "flash", "frequency"] = "standard",
        layer_norm_eps: float = 1e-5,
        norm_strategy: Literal["pre_norm", "post_norm"] = "pre_norm",
        use_adaptive_ln: str = "layer",
        cond_dim: int | None = None,
        bias: bool = True,
        use_swiglu: bool = True,
        ff_chunk_size: int | None = None,
        freq_modes: int = 32,
        use_moe: bool = False,
        num_experts: int = 8,
        top_k: int = 2,
        moe_capacity_factor: float | None = None,
        moe_aux_weight: float = 1e-2,
        moe_z_weight: float = 1e-3,
    ) -> None:
        super().__init__()

        def phase() -> ResidualPhase:
            return ResidualPhase(
                d_model, norm_strategy, use_adaptive_ln, dropout, layer_norm_eps, cond_dim
            )

        def attention(cross: bool) -> MultiAttention:
            return MultiAttention(d_model, nhead, dropout, att_type, freq_modes, cross, bias)

        self.self_attn = attention(cross=False)
        self.self_attn_phase = phase()
        if self.attends_to_memory:
            self.cross_attn = attention(cross=True)
            self.cross_attn_phase = phase()
        self.feed_forward = FeedForwardBlock(
            d_model,
            dim_feedforward,
            dropout,
            activation,
            use_swiglu,
            bias,
            ff_chunk_size,
            use_moe,
            num_experts,
            top_k,
            moe_capacity_factor,
            moe_aux_weight,
            moe_z_weight,
        )
        self.feed_forward_phase = phase()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        for part in self.children():
            reset(part)

    def _feed_forward(
        self, x: Tensor, padding: Tensor | None, cond: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if padding is not None and padding.is_floating_point():
            padding = padding == float("-inf")
        phase = self.feed_forward_phase
        change, aux_loss = self.feed_forward(phase.enter(x, cond), padding)
        return phase.leave(x, change, cond), aux_loss
