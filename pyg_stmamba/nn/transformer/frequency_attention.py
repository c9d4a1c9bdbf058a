from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyg_stmamba.nn.dropout import Dropout
from pyg_stmamba.nn.transformer.fourier_block import FourierBlock


class FrequencyAttention(nn.Module):
    r"""Attention among frequencies instead of steps, from the `"FEDformer: Frequency Enhanced
    Decomposed Transformer for Long-term Series Forecasting" <https://arxiv.org/abs/2201.12740>`_
    paper.

    .. math::
        \mathbf{y} = \mathbf{W}_o \, \mathcal{F}^{-1} \left( \mathbf{R}_m^{\top}
        \tilde{\mathbf{o}}_m \right), \qquad
        \tilde{\mathbf{o}}_m = \sum_{n} \sigma \left( \tilde{\mathbf{q}}_m^{\top}
        \tilde{\mathbf{k}}_n \right) \tilde{\mathbf{v}}_n, \qquad
        (\tilde{\mathbf{q}}, \tilde{\mathbf{k}}, \tilde{\mathbf{v}}) = \mathcal{F}
        (\mathbf{W}_q \mathbf{x}, \mathbf{W}_k \mathbf{z}, \mathbf{W}_v \mathbf{z})

    where :math:`\mathcal{F}` takes selected Fourier coefficients of each channel,
    :math:`\mathbf{R}_m` are learned complex matrices, and :math:`\sigma` is :math:`\tanh` of the
    real and of the imaginary part, or the softmax over :math:`n` of the absolute values. With
    :obj:`variant="feb"` there are no keys and values, :math:`\tilde{\mathbf{o}}_m =
    \tilde{\mathbf{q}}_m`, and it is a :class:`FourierBlock` between two linear maps.

    It is non-causal: each output depends on all steps of the query. Its cost grows linearly with
    the length.

    Args:
        d_model (int): Size of each step, in and out.
        n_heads (int): Number of heads; they share the channels.
        modes (int, optional): Number of frequencies, all of a series that has no more.
            (default: :obj:`32`)
        mode_select (str, optional): Which ones, :obj:`"low"` or :obj:`"random"`, see
            :class:`FourierModes`. (default: :obj:`"low"`)
        activation (str, optional): What :math:`\sigma` is, :obj:`"tanh"` or :obj:`"softmax"`.
            (default: :obj:`"tanh"`)
        variant (str, optional): :obj:`"fea"` for attention, :obj:`"feb"` for the block.
            (default: :obj:`"fea"`)
        dropout (float, optional): Dropout probability of the coefficients
            :math:`\tilde{\mathbf{o}}`. (default: :obj:`0.0`)
        bias (bool, optional): Whether the linear maps have a bias. (default: :obj:`True`)

    Raises:
        ValueError: If an option is none of the above, or the heads do not divide the channels.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        modes: int = 32,
        mode_select: Literal["low", "random"] = "low",
        activation: Literal["tanh", "softmax"] = "tanh",
        variant: Literal["fea", "feb"] = "fea",
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        for name, value, choices in (
            ("activation", activation, ("tanh", "softmax")),
            ("variant", variant, ("fea", "feb")),
        ):
            if value not in choices:
                raise ValueError(f"unknown {name} {value!r}; choose one of {list(choices)}")
        self.d_model = d_model
        self.n_heads = n_heads
        self.activation = activation
        self.variant = variant
        self.block = FourierBlock(d_model, n_heads, modes, mode_select)
        self.in_proj = nn.Linear(d_model, (3 if variant == "fea" else 1) * d_model, bias)
        self.out_proj = nn.Linear(d_model, d_model, bias)
        self.dropout = Dropout(dropout)
        self._reset_projections()

    def reset_parameters(self) -> None:
        r"""Draws all parameters and random frequencies anew."""
        self.block.reset_parameters()
        self._reset_projections()

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        r"""Attends from the frequencies of the query to those of the key.

        Args:
            query (torch.Tensor): The series that asks.
            key (torch.Tensor, optional): The series that answers; the query itself if not given.
                (default: :obj:`None`)
            value (torch.Tensor, optional): What it answers; the key if not given.
                (default: :obj:`None`)
            key_padding_mask (torch.Tensor, optional): :obj:`True` where a step of the key is
                padding. It counts as zero, which is an approximation: a series with zeros has other
                frequencies than the series without these steps. If the key is the query, outputs
                there are zero. (default: :obj:`None`)

        Shapes:
            - **input:** query :math:`(*, L, D)`, key and value :math:`(*, S, D)`, padding mask
              :math:`(*, S)`
            - **output:** :math:`(*, L, D)`

        Raises:
            ValueError: If shapes do not fit, or :obj:`variant="feb"` is given a key.
        """
        key = query if key is None else key
        value = key if value is None else value
        self._check(query, key, value, key_padding_mask)
        own = key is query
        padding = key_padding_mask if own else None

        parts = (query, padding), (key, key_padding_mask), (value, key_padding_mask)
        if self.variant == "feb":
            spectrum = self._coefficients(query, padding, 0, 1)
        elif own and value is key:
            spectrum = self._attend(*self._coefficients(query, padding, 0, 3).chunk(3, dim=-1))
        else:
            spectrum = self._attend(
                *(self._coefficients(*part, i, i + 1) for i, part in enumerate(parts))
            )
        if self.training and self.dropout.p > 0:
            spectrum = spectrum * self.dropout(torch.ones_like(spectrum.real))
        spectrum = self.block.transform(spectrum)
        y = self.block.modes.synthesize(spectrum, query.size(-2)).to(query.dtype)
        return _hide(self.out_proj(y), padding)

    def _coefficients(self, x: Tensor, padding: Tensor | None, first: int, last: int) -> Tensor:
        """Of what the given ones of the input maps make of the series."""
        rows = slice(first * self.d_model, last * self.d_model)
        bias = None if self.in_proj.bias is None else self.in_proj.bias[rows]
        x = F.linear(_hide(x, padding), self.in_proj.weight[rows], bias)
        return self.block.modes.analyze(_hide(x, padding))  # again, for the bias

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key, value = (
            x.unflatten(-1, (self.n_heads, -1)).transpose(-3, -2) for x in (query, key, value)
        )
        weight = query @ key.transpose(-2, -1)
        if self.activation == "tanh":
            # The tanh of a complex number has poles.
            weight = torch.complex(weight.real.tanh(), weight.imag.tanh())
        else:
            weight = weight.abs().softmax(dim=-1).to(weight.dtype)
        return (weight @ value).transpose(-3, -2).flatten(-2)

    def _check(self, query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None) -> None:
        if self.variant == "feb" and not (key is query and value is query):
            raise ValueError("variant='feb' has neither keys nor values; use 'fea' to attend")
        for name, x in (("query", query), ("key", key), ("value", value)):
            if x.dim() < 2 or x.size(-1) != self.d_model:
                raise ValueError(
                    f"{name} must be [..., L, D] with D = {self.d_model}, got a tensor of shape "
                    f"{list(x.shape)}"
                )
        if key.shape != value.shape or key.shape[:-2] != query.shape[:-2]:
            raise ValueError(
                f"key and value must have one shape, and the batch of the query, got "
                f"{list(key.shape)} and {list(value.shape)} for a query of {list(query.shape)}"
            )
        if padding is not None and (padding.shape != key.shape[:-1] or padding.dtype != torch.bool):
            raise ValueError(
                f"key_padding_mask is boolean with one entry a step, {list(key.shape[:-1])} for a "
                f"key of {list(key.shape)}, got {list(padding.shape)} and dtype {padding.dtype}"
            )

    def _reset_projections(self) -> None:
        for weight in (*self.in_proj.weight.split(self.d_model), self.out_proj.weight):
            nn.init.xavier_uniform_(weight)
        for linear in (self.in_proj, self.out_proj):
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.d_model}, n_heads={self.n_heads}, "
            f"modes={self.block.modes.modes}, mode_select={self.block.modes.mode_select!r}, "
            f"activation={self.activation!r}, variant={self.variant!r})"
        )


def _hide(x: Tensor, padding: Tensor | None) -> Tensor:
    return x if padding is None else x.masked_fill(padding.unsqueeze(-1), 0.0)
