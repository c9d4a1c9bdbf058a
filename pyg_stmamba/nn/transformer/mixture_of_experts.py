from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyg_stmamba.nn.activation import SwiGLU, feed_forward_activation
from pyg_stmamba.nn.dropout import Dropout
from pyg_stmamba.nn.transformer.chunks import in_chunks
from pyg_stmamba.nn.transformer.router import (
    Routing,
    TopKRouter,
    load_balancing_loss,
    router_z_loss,
)

Affine = tuple[Tensor, Tensor | None]  # a weight and a bias


class MixtureOfExperts(nn.Module):
    r"""The feed-forward network of the `"Mixtral of Experts" <https://arxiv.org/abs/2401.04088>`_
    paper: of :math:`E` networks, each token goes through the :math:`k` that its router likes best.

    .. math::
        \mathbf{y} = \sum_{e \in \mathrm{top}_k} g_e \, \mathbf{W}^{(e)}_3 \left(
        \mathrm{SiLU}(\mathbf{W}^{(e)}_1 \mathbf{x}) \odot \mathbf{W}^{(e)}_2 \mathbf{x} \right)

    No token is dropped unless there is a capacity factor :math:`c`. With one, an expert takes
    :math:`\max(1, \lceil c k T / E \rceil)` of the :math:`T` tokens, first those that like it best
    of all, then those that like it second, each in their order; what it does not take adds zero.

    The weights are stacked as those of Hugging Face's :class:`MixtralExperts` are
    (:obj:`gate_up_proj` :math:`(E, 2F, D)` and :obj:`down_proj` :math:`(E, D, F)`).

    Args:
        d_model (int): Size of each token, in and out.
        d_ff (int): Size within an expert.
        num_experts (int, optional): Number of experts. (default: :obj:`8`)
        top_k (int, optional): Number of experts of a token. (default: :obj:`2`)
        dropout (float, optional): Dropout probability within an expert. (default: :obj:`0.0`)
        capacity_factor (float, optional): How many times its share an expert takes in training;
            :obj:`None` for all that comes. (default: :obj:`None`)
        eval_capacity_factor (float, optional): The same in evaluation, where a token's output then
            depends on the others. (default: :obj:`None`)
        use_swiglu (bool, optional): If set to :obj:`False`, experts are plain networks.
            (default: :obj:`True`)
        activation (str, optional): That of plain experts, :obj:`"gelu"`, :obj:`"relu"` or
            :obj:`"swish"` (the same as :obj:`"silu"`). (default: :obj:`"gelu"`)
        aux_weight (float, optional): Weight of the balancing loss. (default: :obj:`1e-2`)
        z_weight (float, optional): Weight of the router's z loss. (default: :obj:`1e-3`)
        jitter (float, optional): Noise on what the router sees in training, see
            :class:`TopKRouter`. (default: :obj:`0.0`)
        normalize_gates (bool, optional): Whether the gates of a token sum to one, where there is
            more than one. (default: :obj:`True`)
        bias (bool, optional): Whether experts have biases. (default: :obj:`False`)
        chunk_size (int, optional): Number of tokens of an expert that are computed at a time, and
            again in the backward pass, which saves memory. (default: :obj:`None`, all)

    Shapes:
        - **input:** :math:`(B, L, D)`, padding mask :math:`(B, L)`, :obj:`True` = padding
          *(optional)*
        - **output:** :math:`(B, L, D)`, zero where there is padding, and the sum of the weighted
          losses :math:`()`, zero in evaluation

    Raises:
        ValueError: If the activation is unknown (the choices are listed) or a number is out of
            range.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        num_experts: int = 8,
        top_k: int = 2,
        dropout: float = 0.0,
        capacity_factor: float | None = None,
        eval_capacity_factor: float | None = None,
        use_swiglu: bool = True,
        activation: str = "gelu",
        aux_weight: float = 1e-2,
        z_weight: float = 1e-3,
        jitter: float = 0.0,
        normalize_gates: bool = True,
        bias: bool = False,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        for name, size in (("d_model", d_model), ("d_ff", d_ff), ("num_experts", num_experts)):
            if size < 1:
                raise ValueError(f"{name}={size} must be at least 1")
        for name, factor in (
            ("capacity_factor", capacity_factor),
            ("eval_capacity_factor", eval_capacity_factor),
            ("chunk_size", chunk_size),
        ):
            if factor is not None and factor <= 0:
                raise ValueError(f"{name}={factor} must be positive, or None")
        self.d_model = d_model
        self.d_ff = d_ff
        self.num_experts = num_experts
        self.top_k = top_k
        self.capacity_factor = capacity_factor
        self.eval_capacity_factor = eval_capacity_factor
        self.aux_weight = aux_weight
        self.z_weight = z_weight
        self.chunk_size = chunk_size
        self.router = TopKRouter(d_model, num_experts, top_k, jitter, normalize_gates)
        self.activation = feed_forward_activation(activation, use_swiglu)
        self.dropout = Dropout(dropout)
        if use_swiglu:
            self.gate_up_proj, self.gate_up_bias = self._stacked(d_model, 2 * d_ff, bias)
        else:
            self.up_proj, self.up_bias = self._stacked(d_model, d_ff, bias)
        self.down_proj, self.down_bias = self._stacked(d_ff, d_model, bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        self.router.reset_parameters()
        inner, inner_bias = self._inner()
        bound = math.sqrt(6 / (self.d_model + self.d_ff))  # Xavier's, of each single matrix
        for weight in (inner, self.down_proj):
            nn.init.uniform_(weight, -bound, bound)
        for bias in (inner_bias, self.down_bias):
            if bias is not None:
                nn.init.zeros_(bias)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self._check(x, padding_mask)
        tokens = x.reshape(-1, self.d_model)
        if padding_mask is None:
            routing = self.router(tokens)
            y = self._mix(tokens, routing)
        else:
            places = (~padding_mask).flatten().nonzero().squeeze(-1)
            real = tokens.index_select(0, places)
            routing = self.router(real)
            mixed = self._mix(real, routing)
            y = mixed.new_zeros(tokens.shape).index_copy(0, places, mixed)
        return y.to(x.dtype).reshape(x.shape), self._loss(routing)

    def _mix(self, x: Tensor, routing: Routing) -> Tensor:
        tokens, gates, counts = self._dispatch(routing)
        parts = x.index_select(0, tokens).split(counts)
        outer = (self.down_proj, self.down_bias)
        outputs = [
            in_chunks(functools.partial(self._expert, inner=w1, outer=w2), part, self.chunk_size, 0)
            for part, w1, w2 in zip(parts, _of_each(*self._inner()), _of_each(*outer))
            if part.size(0) > 0
        ]
        y = torch.cat(outputs) if outputs else x
        y = y * gates.unsqueeze(-1)
        return y.new_zeros(x.shape).index_add(0, tokens, y)

    def _dispatch(self, routing: Routing) -> tuple[Tensor, Tensor, list[int]]:
        """The tokens that experts take, sorted by expert, what each counts, and how many an expert
        takes."""
        num_tokens = routing.experts.size(0)
        experts = routing.experts.t().flatten()  # all first choices, then all second ones
        order = experts.argsort(stable=True)
        counts = torch.bincount(experts, minlength=self.num_experts)
        factor = self.capacity_factor if self.training else self.eval_capacity_factor
        if factor is not None:
            share = self.top_k * num_tokens / self.num_experts
            capacity = max(1, math.ceil(round(factor * share, 6)))  # 1.12 * 6.25 is 7
            before = counts.cumsum(0) - counts
            rank = torch.arange(order.size(0), device=order.device) - before[experts[order]]
            order = order[rank < capacity]
            counts = counts.clamp(max=capacity)
        gates = routing.gates.t().flatten().index_select(0, order)
        return order % num_tokens, gates, counts.tolist()

    def _expert(self, x: Tensor, inner: Affine, outer: Affine) -> Tensor:
        return F.linear(self.dropout(self.activation(F.linear(x, *inner))), *outer)

    def _loss(self, routing: Routing) -> Tensor:
        if not self.training:
            return routing.logits.new_zeros(())
        balance = load_balancing_loss(routing.logits, routing.experts)
        return self.aux_weight * balance + self.z_weight * router_z_loss(routing.logits)

    def _inner(self) -> Affine:
        if isinstance(self.activation, SwiGLU):
            return self.gate_up_proj, self.gate_up_bias
        return self.up_proj, self.up_bias

    def _stacked(
        self, channels: int, out_channels: int, bias: bool
    ) -> tuple[nn.Parameter, nn.Parameter | None]:
        weight = nn.Parameter(torch.empty(self.num_experts, out_channels, channels))
        return weight, nn.Parameter(torch.empty(self.num_experts, out_channels)) if bias else None

    def _check(self, x: Tensor, padding_mask: Tensor | None) -> None:
        if x.dim() != 3 or x.size(-1) != self.d_model:
            raise ValueError(
                f"MixtureOfExperts expects [B, L, {self.d_model}], got a tensor of shape "
                f"{list(x.shape)}"
            )
        if padding_mask is None:
            return
        if padding_mask.dtype != torch.bool or padding_mask.shape != x.shape[:2]:
            raise ValueError(
                f"padding_mask must be boolean (True = padding) of shape {list(x.shape[:2])}, got "
                f"{padding_mask.dtype} of shape {list(padding_mask.shape)}"
            )

    def extra_repr(self) -> str:
        return f"{self.d_model}, d_ff={self.d_ff}, num_experts={self.num_experts}"


def _of_each(weight: Tensor, bias: Tensor | None) -> Iterable[Affine]:
    """The weight and the bias of each expert."""
    return zip(weight.unbind(), repeat(None) if bias is None else bias.unbind())


MoEFeedForward = MixtureOfExperts
