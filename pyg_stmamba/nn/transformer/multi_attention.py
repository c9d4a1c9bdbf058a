from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyg_stmamba.nn.transformer.frequency_attention import FrequencyAttention
from pyg_stmamba.nn.transformer.layer_state import (
    LayerState,
    extend_layer_state,
    reorder_layer_state,
)
from pyg_stmamba.ops.attention_mask import attention_mask
from pyg_stmamba.ops.explicit_attention import explicit_attention
from pyg_stmamba.ops.flash_attention import flash_attention
from pyg_stmamba.ops.xformers_attention import xformers_attention

__all__ = ["MultiAttention", "reorder_layer_state"]

ATTENTION_TYPES = ("standard", "xformer", "flash", "frequency")


class MultiAttention(nn.Module):
    r"""Multi-head attention, computed in one of several ways, with the parameters of
    :class:`torch.nn.MultiheadAttention` (`"Attention Is All You Need"
    <https://arxiv.org/abs/1706.03762>`_).

    .. math::
        \mathbf{y}_i = \mathbf{W}_o \big\Vert_{h=1}^{H} \sum_j \mathrm{softmax}_j \left(
        \frac{(\mathbf{W}_q^h \mathbf{x}_i)^{\top} \mathbf{W}_k^h \mathbf{z}_j}{\sqrt{D / H}}
        + m_{ij} \right) \mathbf{W}_v^h \mathbf{z}_j + \mathbf{b}_o

    :obj:`"standard"` writes all weights out. :obj:`"flash"` is the fastest way for the tensors at
    hand, flash-attn where it is installed and takes them. :obj:`"xformer"` needs a memory that
    grows linearly with the length even with dropout and masks (the time still grows with its
    square), by xformers or block by block. The three are the same function, and state dicts go
    from one to the other and to :class:`torch.nn.MultiheadAttention`. :obj:`"frequency"` is
    :class:`FrequencyAttention`, another function with parameters of its own.

    A query that may look at no key gets 0 from all heads, so that its output is the bias
    :math:`\mathbf{b}_o` alone, as of :class:`torch.nn.MultiheadAttention` without weights.

    Args:
        d_model (int): Size of each token, in and out.
        n_heads (int): Number of heads; they share the channels.
        dropout (float, optional): Dropout probability of the weights. (default: :obj:`0.1`)
        attention_type (str, optional): :obj:`"standard"`, :obj:`"xformer"`, :obj:`"flash"` or
            :obj:`"frequency"`. (default: :obj:`"standard"`)
        freq_modes (int, optional): Number of frequencies of :obj:`"frequency"`.
            (default: :obj:`32`)
        cross_attention (bool, optional): Whether keys are those of a memory, which a state keeps
            as they are, instead of those of tokens that follow each other.
            (default: :obj:`False`)
        bias (bool, optional): Whether the linear maps have a bias. (default: :obj:`True`)
        block_size (int, optional): Number of queries whose weights exist at once where memory is
            linear. (default: :obj:`128`)

    Raises:
        ValueError: If :obj:`attention_type` is none of the above, the heads do not divide the
            channels, or a number is out of its range.
    """

    in_proj_bias: Tensor | None

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        dropout: float = 0.1,
        attention_type: Literal["standard", "xformer", "flash", "frequency"] = "standard",
        freq_modes: int = 32,
        cross_attention: bool = False,
        bias: bool = True,
        block_size: int = 128,
    ) -> None:
        super().__init__()
        if attention_type not in ATTENTION_TYPES:
            raise ValueError(
                f"unknown attention_type {attention_type!r}; choose one of {list(ATTENTION_TYPES)}"
            )
        if n_heads < 1 or d_model % n_heads != 0:
            raise ValueError(f"d_model ({d_model}) must be divisible by n_heads ({n_heads})")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be a probability between 0 and 1, got {dropout}")
        if block_size < 1:
            raise ValueError(f"block_size must be 1 at least, got {block_size}")
        self.d_model = d_model
        self.n_heads = n_heads
        self.dropout = dropout
        self.attention_type = attention_type
        self.cross_attention = cross_attention
        self.block_size = block_size
        if attention_type == "frequency":
            self.frequency = FrequencyAttention(
                d_model, n_heads, modes=freq_modes, dropout=dropout, bias=bias
            )
            return
        self.in_proj_weight = nn.Parameter(torch.empty(3 * d_model, d_model))
        if bias:
            self.in_proj_bias = nn.Parameter(torch.empty(3 * d_model))
        else:
            self.register_parameter("in_proj_bias", None)
        self.out_proj = nn.Linear(d_model, d_model, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew, those of queries, keys and values each by itself."""
        if self.attention_type == "frequency":
            self.frequency.reset_parameters()
            return
        for weight in (*self.in_proj_weight.detach().chunk(3), self.out_proj.weight):
            nn.init.xavier_uniform_(weight)
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                nn.init.zeros_(bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
        need_weights: bool = False,
        layer_state: LayerState | None = None,
    ) -> tuple[Tensor, Tensor | None, LayerState | None]:
        r"""Attends.

        Args:
            query (torch.Tensor): The tokens that look.
            key (torch.Tensor, optional): The tokens that are looked at; the query if not given.
                (default: :obj:`None`)
            value (torch.Tensor, optional): What is seen of them; the key if not given.
                (default: :obj:`None`)
            attn_mask (torch.Tensor, optional): Which pairs are not allowed, boolean :obj:`True`,
                or what is added to their logits. (default: :obj:`None`)
            key_padding_mask (torch.Tensor, optional): Which keys are padding, boolean
                :obj:`True`, or what is added to their logits; with a state, those in it included.
                (default: :obj:`None`)
            is_causal (bool, optional): Whether a query sees keys up to its own place only, where
                the last query stands at the last key. (default: :obj:`False`)
            need_weights (bool, optional): Whether to return the weights before dropout, the mean
                over heads; they are then all written out. (default: :obj:`False`)
            layer_state (dict, optional): Keys and values of the tokens before, as
                :obj:`{"key": [B, t, D], "value": [B, t, D]}`; :obj:`{}` starts. With
                :obj:`cross_attention`, those of the memory, which then is not looked at again.
                (default: :obj:`None`, none is kept)

        Shapes:
            - **input:** query :math:`(B, L, D)`, key and value :math:`(B, S, D)`, attention mask
              :math:`(L, S)`, :math:`(B, L, S)`, :math:`(B \cdot H, L, S)` or
              :math:`(B, H, L, S)`, padding mask :math:`(B, S)`
            - **output:** :math:`(B, L, D)`, the weights :math:`(B, L, S)` or :obj:`None`, and a
              new state or :obj:`None`

        Raises:
            ValueError: If shapes or dtypes do not fit, or :obj:`"frequency"` is asked for
                causality, a mask of pairs, weights or a state.
        """
        if self.attention_type == "frequency":
            self._check_frequency(attn_mask, is_causal, need_weights, layer_state)
            return self.frequency(query, key, value, key_padding_mask), None, None
        self._check(query, key, value, layer_state)
        projected, layer_state = self._project(query, key, value, layer_state)
        q, k, v = (x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for x in projected)
        logits = (q.size(0), q.size(1), q.size(2), k.size(2))
        mask = attention_mask(logits, attn_mask, key_padding_mask, is_causal)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if self.attention_type == "standard" or need_weights:
            out, weights = explicit_attention(q, k, v, mask, dropout, need_weights)
        elif self.attention_type == "flash":
            out = flash_attention(q, k, v, mask, dropout, self.block_size)
        else:
            out = xformers_attention(q, k, v, mask, dropout, self.block_size)
        out = self.out_proj(out.transpose(1, 2).flatten(-2))
        return out, None if weights is None else weights.mean(1), layer_state

    def _project(
        self,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        layer_state: LayerState | None,
    ) -> tuple[tuple[Tensor, Tensor, Tensor], LayerState | None]:
        if self.cross_attention and layer_state is not None and "key" in layer_state:
            projected = self._map(query, 0, 1)
            return (projected, layer_state["key"], layer_state["value"]), dict(layer_state)
        if key is None or (key is query and (value is None or value is key)):
            q, k, v = self._map(query, 0, 3).chunk(3, dim=-1)
        elif value is None or value is key:
            q, (k, v) = self._map(query, 0, 1), self._map(key, 1, 3).chunk(2, dim=-1)
        else:
            q, k, v = self._map(query, 0, 1), self._map(key, 1, 2), self._map(value, 2, 3)
        if layer_state is not None:
            if self.cross_attention:
                layer_state = {**layer_state, "key": k, "value": v}
            else:
                layer_state = extend_layer_state(layer_state, k, v)
            k, v = layer_state["key"], layer_state["value"]
        return (q, k, v), layer_state

    def _map(self, x: Tensor, first: int, last: int) -> Tensor:
        """What the given ones of the three linear maps make of the tokens, side by side."""
        if (first, last) == (0, 3):
            return F.linear(x, self.in_proj_weight, self.in_proj_bias)
        rows = slice(first * self.d_model, last * self.d_model)
        bias = None if self.in_proj_bias is None else self.in_proj_bias[rows]
        return F.linear(x, self.in_proj_weight[rows], bias)

    def _check(
        self,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        layer_state: LayerState | None,
    ) -> None:
        for name, x in (("query", query), ("key", key), ("value", value)):
            if x is not None and (x.dim() != 3 or x.size(-1) != self.d_model):
                raise ValueError(
                    f"{name} must be [B, L, D] with D = {self.d_model}, got {list(x.shape)}"
                )
        if key is None and value is not None:
            raise ValueError("a value without a key: give the key too, or neither")
        if key is not None and key.size(0) != query.size(0):
            raise ValueError(
                f"key must have the {query.size(0)} samples of the query, got {list(key.shape)}"
            )
        if value is not None and key is not None and value.shape != key.shape:
            raise ValueError(
                f"value must have the shape of the key, {list(key.shape)}, got {list(value.shape)}"
            )
        known = layer_state is not None and "key" in layer_state
        if self.cross_attention and key is None and not known:
            raise ValueError("cross-attention needs a key, or a state that has seen it")
        if layer_state is not None and known:
            self._check_state(query, key, layer_state)

    def _check_state(self, query: Tensor, key: Tensor | None, layer_state: LayerState) -> None:
        seen = [list(layer_state[name].shape) for name in ("key", "value")]
        fits = seen[0] == seen[1] == [query.size(0), seen[0][1], self.d_model]
        if not fits:
            raise ValueError(
                f"key and value of layer_state must be [B, t, D] with B = {query.size(0)} and "
                f"D = {self.d_model}, got {seen[0]} and {seen[1]}"
            )
        if self.cross_attention and key is not None and key.size(1) != seen[0][1]:
            raise ValueError(
                f"layer_state holds a memory of {seen[0][1]} tokens, the key has {key.size(1)}; "
                "start with {} where the memory is another"
            )

    def _check_frequency(
        self,
        attn_mask: Tensor | None,
        is_causal: bool,
        need_weights: bool,
        layer_state: LayerState | None,
    ) -> None:
        asked = {
            "is_causal=True": is_causal,
            "an attn_mask": attn_mask is not None,
            "a layer_state": layer_state is not None,
            "need_weights=True": need_weights,
        }
        wrong = [name for name, given in asked.items() if given]
        if wrong:
            raise ValueError(
                f"attention_type='frequency' cannot serve {' and '.join(wrong)}: a Fourier "
                "transform mixes all steps, later ones too, and weighs frequencies instead of "
                "pairs of steps; choose 'standard', 'xformer' or 'flash'"
            )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.d_model}, n_heads={self.n_heads}, "
            f"dropout={self.dropout}, attention_type={self.attention_type!r}, "
            f"cross_attention={self.cross_attention})"
        )
