from __future__ import annotations

import torch
from torch import Tensor, nn

from pyg_stmamba.nn.activation import feed_forward_activation
from pyg_stmamba.nn.dropout import Dropout
from pyg_stmamba.nn.transformer.chunks import in_chunks
from pyg_stmamba.nn.transformer.mixture_of_experts import MixtureOfExperts


class FeedForwardBlock(nn.Module):
    r"""The feed-forward network of a transformer layer, on each token alone: gated as in the
    `"GLU Variants Improve Transformer" <https://arxiv.org/abs/2002.05202>`_ paper (SwiGLU), plain
    as in `"Attention Is All You Need" <https://arxiv.org/abs/1706.03762>`_, or a
    :class:`MixtureOfExperts` of either.

    .. math::
        \mathbf{y} = \mathbf{W}_3 \, \mathrm{Drop} \left( \mathrm{SiLU}(\mathbf{W}_1 \mathbf{x})
        \odot \mathbf{W}_2 \mathbf{x} \right), \qquad
        \mathbf{y} = \mathbf{W}_2 \, \mathrm{Drop} \left( \sigma(\mathbf{W}_1 \mathbf{x}) \right)

    A gated network is two thirds as wide within (rounded up to a multiple of 8), so that it has
    as many parameters as the plain one. Its :math:`\mathbf{W}_1` and :math:`\mathbf{W}_2` are the
    two halves of the weight of :obj:`linear1`, one product for both. The outer matrix is
    :obj:`linear2` in both networks.

    Args:
        d_model (int): Size of each token, in and out.
        dim_feedforward (int, optional): Size within the plain network. (default: :obj:`2048`)
        dropout (float, optional): Dropout probability within. (default: :obj:`0.1`)
        activation (str, optional): That of the plain network, :obj:`"gelu"`, :obj:`"relu"` or
            :obj:`"swish"` (the same as :obj:`"silu"`). (default: :obj:`"gelu"`)
        use_swiglu (bool, optional): Whether the network is gated. (default: :obj:`True`)
        bias (bool, optional): Whether there are biases. (default: :obj:`True`)
        ff_chunk_size (int, optional): Number of steps (with experts: of tokens of an expert) that
            are computed at a time, and again in the backward pass, which saves memory.
            (default: :obj:`None`, all)
        use_moe (bool, optional): Whether the network is one of experts. (default: :obj:`False`)
        num_experts (int, optional): Number of experts. (default: :obj:`8`)
        top_k (int, optional): Number of experts of a token. (default: :obj:`2`)
        moe_capacity_factor (float, optional): How many times its share an expert takes in
            training; :obj:`None` for all that comes. (default: :obj:`None`)
        moe_aux_weight (float, optional): Weight of the balancing loss. (default: :obj:`1e-2`)
        moe_z_weight (float, optional): Weight of the router's z loss. (default: :obj:`1e-3`)

    Shapes:
        - **input:** :math:`(B, L, D)`, padding mask :math:`(B, L)`, :obj:`True` = padding
          *(optional; only experts heed it, and give zero there)*
        - **output:** :math:`(B, L, D)`, and the auxiliary loss :math:`()`, zero without experts or
          in evaluation

    Raises:
        ValueError: If the activation is unknown (the choices are listed) or a size is wrong.
    """

    def __init__(
        self,
        d_model: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "gelu",
        use_swiglu: bool = True,
        bias: bool = True,
        ff_chunk_size: int | None = None,
        use_moe: bool = False,
        num_experts: int = 8,
        top_k: int = 2,
        moe_capacity_factor: float | None = None,
        moe_aux_weight: float = 1e-2,
        moe_z_weight: float = 1e-3,
    ) -> None:
        super().__init__()
        for name, size in (("d_model", d_model), ("dim_feedforward", dim_feedforward)):
            if size < 1:
                raise ValueError(f"{name}={size} must be at least 1")
        if ff_chunk_size is not None and ff_chunk_size < 1:
            raise ValueError(f"ff_chunk_size={ff_chunk_size} must be at least 1, or None")
        self.d_model = d_model
        self.ff_chunk_size = ff_chunk_size
        hidden = gated_size(dim_feedforward) if use_swiglu else dim_feedforward
        self.experts = None
        if use_moe:
            self.experts = MixtureOfExperts(
                d_model,
                hidden,
                num_experts,
                top_k,
                dropout,
                moe_capacity_factor,
                use_swiglu=use_swiglu,
                activation=activation,
                aux_weight=moe_aux_weight,
                z_weight=moe_z_weight,
                bias=bias,
                chunk_size=ff_chunk_size,
            )
            return
        self.linear1 = nn.Linear(d_model, 2 * hidden if use_swiglu else hidden, bias)
        self.activation = feed_forward_activation(activation, use_swiglu)
        self.dropout = Dropout(dropout)
        self.linear2 = nn.Linear(hidden, d_model, bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        if self.experts is not None:
            self.experts.reset_parameters()
            return
        for weight in (*self.linear1.weight.split(self.linear2.in_features), self.linear2.weight):
            nn.init.xavier_uniform_(weight)
        for linear in (self.linear1, self.linear2):
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.experts is not None:
            return self.experts(x, padding_mask)
        if x.dim() != 3 or x.size(-1) != self.d_model:
            raise ValueError(
                f"FeedForwardBlock expects [B, L, {self.d_model}], got a tensor of shape "
                f"{list(x.shape)}"
            )
        y = in_chunks(self._network, x, self.ff_chunk_size, dim=1)
        return y, torch.zeros((), device=x.device)

    def _network(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


def gated_size(dim_feedforward: int) -> int:
    r"""Returns how wide a gated network is that has the parameters of a plain one: two thirds,
    rounded up to a multiple of 8."""
    return -(-2 * dim_feedforward // 24) * 8
