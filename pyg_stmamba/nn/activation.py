from __future__ import annotations

import warnings

import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}


class SwiGLU(nn.Module):
    r"""The gate of the `"GLU Variants Improve Transformer" <https://arxiv.org/abs/2002.05202>`_
    paper.

    .. math::
        (\mathbf{a}, \mathbf{b}) \mapsto \mathrm{SiLU}(\mathbf{a}) \odot \mathbf{b}

    Shapes:
        - **input:** both side by side, :math:`(*, 2F)`
        - **output:** :math:`(*, F)`
    """

    def forward(self, x: Tensor) -> Tensor:
        gate, up = x.chunk(2, -1)
        return F.silu(gate) * up


def feed_forward_activation(activation: str, use_swiglu: bool) -> nn.Module:
    r"""Builds what stands between the two matrices of a feed-forward network.

    Args:
        activation (str): :obj:`"gelu"`, :obj:`"relu"` or :obj:`"swish"` (the same as
            :obj:`"silu"`).
        use_swiglu (bool): Whether to gate by :class:`SwiGLU` instead; any other activation than
            the default :obj:`"gelu"` is warned of then.

    Raises:
        ValueError: If the activation is unknown; the choices are listed.
    """
    choices = {**ACTIVATIONS, "swish": nn.SiLU}
    if activation not in choices:
        raise ValueError(f"unknown activation {activation!r}; choose one of {sorted(choices)}")
    if not use_swiglu:
        return choices[activation]()
    if activation != "gelu":
        warnings.warn(
            f"activation={activation!r} has no effect with use_swiglu=True; set use_swiglu=False",
            stacklevel=3,
        )
    return SwiGLU()
