from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pyg_stmamba.nn.auxiliary_loss import AuxiliaryLoss
from pyg_stmamba.nn.dropout import Dropout
from pyg_stmamba.nn.norm.resolver import norm_resolver
from pyg_stmamba.nn.transformer.layer import BaseTransformerLayer
from pyg_stmamba.nn.transformer.positional_encoding import PositionalEncoding
from pyg_stmamba.nn.transformer.residual_phase import normalize

# Where a phase of a layer hands its result to the residual sum.
RESIDUAL_OUTPUTS = ("out_proj.weight", "linear2.weight", "down_proj")


class BaseTransformer(AuxiliaryLoss):
    r"""What :class:`TransformerEncoder` and :class:`TransformerDecoder` share: tokens from values,
    positions, the stack of layers, and how they start.

    Linear layers start by Xavier's rule, but the outputs of phases smaller by
    :math:`1 / \sqrt{P N}` for :math:`N` layers of :math:`P` phases, so that the sum over all of
    them keeps its scale (`"Language Models are Unsupervised Multitask Learners"
    <https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf>`_).

    Args:
        input_size (int): Number of values of a step.
        d_model (int, optional): Size of a token. (default: :obj:`512`)
        nhead (int, optional): Number of heads. (default: :obj:`8`)
        num_layers (int, optional): Number of layers. (default: :obj:`6`)
        dim_feedforward (int, optional): Size within the feed-forward networks.
            (default: :obj:`2048`)
        dropout (float, optional): Dropout probability. (default: :obj:`0.1`)
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
        max_seq_len (int, optional): The longest sequence. (default: :obj:`5000`)
        pos_encoding_scale (float, optional): Factor of the positional encoding.
            (default: :obj:`1.0`)
        pos_encoder (torch.nn.Module, optional): Adds positions instead, called as
            :obj:`pos_encoder(x, offset)`.
            (default: :obj:`None`, a :class:`PositionalEncoding`)
        use_gradient_checkpointing (bool, optional): Whether training keeps only the inputs of the
            layers and runs each again in the backward pass, see `"Training Deep Nets with
            Sublinear Memory Cost" <https://arxiv.org/abs/1604.06174>`_. (default: :obj:`False`)
        share_layers (bool, optional): Whether all layers are the same one.
            (default: :obj:`False`)
        use_final_norm (bool, optional): Whether a norm stands after the last layer. Without it the
            residual sum of :obj:`"pre_norm"` layers comes out as it is; after
            :obj:`"post_norm"` layers it is redundant. (default: :obj:`True`)
        use_swiglu (bool, optional): Whether the feed-forward networks are gated.
            (default: :obj:`True`)
        freq_modes (int, optional): Number of frequencies of :obj:`"frequency"`.
            (default: :obj:`32`)
        use_moe (bool, optional): Whether the feed-forward networks are a
            :class:`MixtureOfExperts`. (default: :obj:`False`)
        num_experts (int, optional): Number of experts. (default: :obj:`8`)
        top_k (int, optional): Number of experts of a token. (default: :obj:`2`)
        moe_capacity_factor (float, optional): How many times its share an expert takes in
            training; :obj:`None` for all that comes. (default: :obj:`None`)
        moe_aux_weight (float, optional): Weight of the balancing loss. (default: :obj:`1e-2`)
        moe_z_weight (float, optional): Weight of the router's z loss. (default: :obj:`1e-3`)
        cond_dim (int, optional): Size of the condition of adaptive norms. (default: :obj:`None`)
        bias (bool, optional): Whether attention and feed-forward networks have biases.
            (default: :obj:`True`)
        ff_chunk_size (int, optional): Number of tokens that go through a feed-forward network at
            once, to save memory. (default: :obj:`None`, all)
        num_time_features (int, optional): Number of known features of the time of a step, which
            are embedded beside its values. (default: :obj:`0`)
        output_size (int, optional): Number of values of a step that a last linear layer gives;
            :obj:`None` for the tokens themselves. (default: :obj:`None`)

    Raises:
        ValueError: If a name is unknown; the choices are listed.
    """

    layer_class: type[BaseTransformerLayer]
    phases: int  # of a layer

    def __init__(
        self,
        input_size: int,
        d_model: int = 512,
        nhead: int = 8,
        num_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "gelu",
        att_type: Literal["standard", "xformer", "flash", "frequency"] = "standard",
        layer_norm_eps: float = 1e-5,
        norm_strategy: Literal["pre_norm", "post_norm"] = "pre_norm",
        use_adaptive_ln: str = "layer",
        max_seq_len: int = 5000,
        pos_encoding_scale: float = 1.0,
        pos_encoder: nn.Module | None = None,
        use_gradient_checkpointing: bool = False,
        share_layers: bool = False,
        use_final_norm: bool = True,
        use_swiglu: bool = True,
        freq_modes: int = 32,
        use_moe: bool = False,
        num_experts: int = 8,
        top_k: int = 2,
        moe_capacity_factor: float | None = None,
        moe_aux_weight: float = 1e-2,
        moe_z_weight: float = 1e-3,
        cond_dim: int | None = None,
        bias: bool = True,
        ff_chunk_size: int | None = None,
        num_time_features: int = 0,
        output_size: int | None = None,
    ) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("num_layers", num_layers)):
            if size < 1:
                raise ValueError(f"{name}={size} must be at least 1")
        if cond_dim is not None and not use_adaptive_ln.startswith("adaptive"):
            raise ValueError(
                f"cond_dim={cond_dim} needs a norm that takes a condition, use_adaptive_ln="
                f"'adaptive' or 'adaptive_rms', got {use_adaptive_ln!r}"
            )
        self.input_size, self.output_size, self.d_model = input_size, output_size, d_model
        self.num_layers = num_layers
        self.num_time_features = num_time_features
        self.att_type = att_type
        self.use_gradient_checkpointing = use_gradient_checkpointing
        self.share_layers = share_layers
        self.input_projection = nn.Linear(input_size, d_model)
        self.time_projection = None
        if num_time_features:
            self.time_projection = nn.Linear(num_time_features, d_model, bias=False)
        self.pos_encoder = pos_encoder
        if pos_encoder is None:
            self.pos_encoder = PositionalEncoding(d_model, max_seq_len, pos_encoding_scale)
        self.dropout = Dropout(dropout)
        self.layers = nn.ModuleList(
            self.layer_class(
                d_model,
                nhead,
                dim_feedforward,
                dropout,
                activation,
                att_type,
                layer_norm_eps,
                norm_strategy,
                use_adaptive_ln,
                cond_dim,
                bias,
                use_swiglu,
                ff_chunk_size,
                freq_modes,
                use_moe,
                num_experts,
                top_k,
                moe_capacity_factor,
                moe_aux_weight,
                moe_z_weight,
            )
            for _ in range(1 if share_layers else num_layers)
        )
        self.final_norm = None
        if use_final_norm:
            self.final_norm = norm_resolver(use_adaptive_ln, d_model, layer_norm_eps, cond_dim)
        self.output_projection = None
        if output_size is not None:
            self.output_projection = nn.Linear(d_model, output_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        for linear in (self.input_projection, self.time_projection, self.output_projection):
            if linear is not None:
                nn.init.xavier_uniform_(linear.weight)
                if linear.bias is not None:
                    nn.init.zeros_(linear.bias)
        for module in (self.pos_encoder, self.final_norm, *self.layers):
            reset: Any = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()
        scale = 1 / math.sqrt(self.phases * self.num_layers)
        with torch.no_grad():
            for name, parameter in self.layers.named_parameters():
                if name.endswith(RESIDUAL_OUTPUTS):
                    parameter.mul_(scale)

    def _depths(self) -> list[nn.Module]:
        """The layer of each depth."""
        return [self.layers[depth % len(self.layers)] for depth in range(self.num_layers)]

    def _embed(self, x: Tensor, time_features: Tensor | None, offset: int = 0) -> Tensor:
        if x.dim() != 3 or x.size(-1) != self.input_size:
            raise ValueError(
                f"{type(self).__name__} expects [B, L, {self.input_size}] (input_size="
                f"{self.input_size}), got a tensor of shape {list(x.shape)}"
            )
        wanted = (*x.shape[:2], self.num_time_features)
        if self.num_time_features and (time_features is None or time_features.shape != wanted):
            given = None if time_features is None else list(time_features.shape)
            raise ValueError(f"time_features must be {list(wanted)}, got {given}")
        if time_features is not None and self.time_projection is None:
            raise ValueError(
                f"time_features of shape {list(time_features.shape)} were given, but "
                f"num_time_features=0; build {type(self).__name__} with their number"
            )
        h = self.input_projection(x)
        if self.time_projection is not None:
            h = h + self.time_projection(time_features)
        assert self.pos_encoder is not None
        return self.dropout(self.pos_encoder(h, offset))

    def _run_layer(self, layer: nn.Module, *args: Any, keeps_state: bool = False) -> Any:
        wanted = self.use_gradient_checkpointing and self.training and torch.is_grad_enabled()
        if wanted and not keeps_state:
            return checkpoint(layer, *args, use_reentrant=False)
        return layer(*args)

    def _finish(self, x: Tensor, cond: Tensor | None) -> Tensor:
        if self.final_norm is not None:
            x = normalize(self.final_norm, x, cond)
        return x if self.output_projection is None else self.output_projection(x)
