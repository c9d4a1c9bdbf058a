from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyg_stmamba.nn.norm.reversible_norm import at_least_float32

SMALL = 2**15  # elements, below which Python takes more time than memory does


class RMSNorm(nn.Module):
    r"""The norm of the `"Root Mean Square Layer Normalization"
    <https://arxiv.org/abs/1910.07467>`_ paper, which divides by the size of a sample and, other
    than a layer norm, keeps its mean.

    .. math::
        \mathbf{y} = \frac{\mathbf{x}}{\sqrt{\frac{1}{C} \sum_c x_c^2 + \epsilon}} \odot \mathbf{w}

    Sums are in single precision at least. The parameter is that of :class:`torch.nn.RMSNorm`.

    Args:
        channels (int): Size of each sample.
        eps (float, optional): Added to the mean of the squares. (default: :obj:`1e-5`)

    Shapes:
        - **input:** :math:`(*, C)`
        - **output:** :math:`(*, C)`, of the dtype of the input
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels = channels
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Sets all weights to one."""
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(at_least_float32(x), self.weight, self.eps).to(x.dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, eps={self.eps})"


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    r"""Divides by the root of the mean square over the last dimension, and multiplies by weights.

    Large inputs on a CPU, where torch composes it of many passes over the memory, take a third of
    the time and of the memory of :func:`torch.nn.functional.rms_norm`, backward pass included.

    Args:
        x (torch.Tensor): The samples :math:`(*, C)`.
        weight (torch.Tensor): The weights :math:`(C)`.
        eps (float): Added to the mean of the squares.
    """
    weight = weight.to(x.dtype)
    if x.device.type != "cpu" or x.numel() < SMALL or torch.compiler.is_compiling():
        return _formula(x, weight, eps)
    return _RMSNormOnCPU.apply(x, weight, eps)[0]


def _formula(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, eps)


class _RMSNormOnCPU(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = torch.rsqrt(size.square() / x.size(-1) + eps)
        return (x * scale).mul_(weight), scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        (x, weight, ctx.eps), (_, scale) = inputs, output
        ctx.mark_non_differentiable(scale)
        ctx.save_for_backward(x, weight, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> Any:
        x, weight, scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is to be differentiated again
            formula = functools.partial(_formula, eps=ctx.eps)
            pull = torch.func.vjp(formula, x, weight)[1]
            return *pull(grad), None
        # That of a layer norm whose mean is zero, but for its subtracting the mean of the gradient.
        grad_x, grad_weight, _ = torch.ops.aten.native_layer_norm_backward(
            grad, x, weight.shape, torch.zeros_like(scale), scale, weight, None, [True, True, False]
        )
        mean = torch.mv(grad.reshape(-1, x.size(-1)), weight).view_as(scale) / x.size(-1)
        return grad_x.addcmul_(mean, scale), grad_weight, None
