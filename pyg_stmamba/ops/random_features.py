r"""Random features whose products approximate the softmax kernel, and the projections they need."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Added to each feature of the ReLU kernel, so that no weight is zero.
RELU_FLOOR = 1e-3


class Features(NamedTuple):
    r"""Features :math:`\phi = e^s \mathbf{f}` of each row, with the scale apart: no row under- or
    overflows as a whole, and the scale of a query cancels in attention."""

    values: Tensor  # f [..., L, M], not negative
    log_scale: Tensor | None  # s [..., L], None for zero


def random_projection(
    num_features: int,
    dim: int,
    orthogonal: bool = True,
    ortho_scaling: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Draws the directions :math:`\boldsymbol{\omega}` of random features, each standard normal
    by itself, as in the `"Rethinking Attention with Performers"
    <https://arxiv.org/abs/2009.14794>`_ paper.

    Orthogonal ones are rows of orthogonal matrices that are uniform (Haar) among all such, times
    norms that are distributed as those of normal vectors.

    Args:
        num_features (int): Number of directions :math:`M`.
        dim (int): Their size :math:`d`.
        orthogonal (bool, optional): Whether each :math:`d` of them are orthogonal; else all are
            independent. (default: :obj:`True`)
        ortho_scaling (int, optional): With :obj:`0` orthogonal directions have random norms, with
            :obj:`1` all have :math:`\sqrt{d}`; the estimate of the softmax kernel is then biased.
            (default: :obj:`0`)
        generator (torch.Generator, optional): The source of randomness. (default: :obj:`None`)

    Shapes:
        - **output:** :math:`(M, d)`, float32
    """
    device = None if generator is None else generator.device
    if not orthogonal:
        return torch.randn(num_features, dim, generator=generator, device=device)
    shape = (math.ceil(num_features / dim), dim, dim)
    basis, triangle = torch.linalg.qr(torch.randn(shape, generator=generator, device=device))
    # Of all signs that a decomposition may choose, a positive diagonal gives uniform matrices.
    basis = basis * triangle.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    if ortho_scaling == 0:
        norms = torch.randn(shape, generator=generator, device=device).norm(dim=-1, keepdim=True)
    else:
        norms = basis.new_full((1, 1, 1), dim**0.5)
    return (norms * basis).flatten(0, 1)[:num_features]


def positive_features(x: Tensor, projection: Tensor) -> Features:
    r"""Positive features of the softmax kernel, from the `"Rethinking Attention with Performers"
    <https://arxiv.org/abs/2009.14794>`_ paper.

    .. math::
        \phi_r(\mathbf{x}) = \tfrac{1}{\sqrt{M}} \exp \left( \boldsymbol{\omega}_r^{\top}
        \mathbf{x} - \tfrac{1}{2} \Vert \mathbf{x} \Vert^2 \right), \qquad
        \mathbb{E} \left[ \phi(\mathbf{x})^{\top} \phi(\mathbf{y}) \right] =
        \exp(\mathbf{x}^{\top} \mathbf{y})

    Args:
        x (torch.Tensor): The rows.
        projection (torch.Tensor): The directions :math:`\boldsymbol{\omega}`.

    Shapes:
        - **input:** :math:`(*, L, d)`, projection :math:`(M, d)`
        - **output:** values :math:`(*, L, M)`, at most 1, and their log scale :math:`(*, L)`
    """
    return _exponential(x @ projection.t(), x, projection.size(0))


def optimal_features(x: Tensor, projection: Tensor) -> Features:
    r"""Positive features with less weight on long directions, the optimal positive random
    features of the `"Chefs' Random Tables: Non-Trigonometric Random Features"
    <https://arxiv.org/abs/2205.15317>`_ paper.

    .. math::
        \phi_r(\mathbf{x}) = \tfrac{1}{\sqrt{M}} (1 - 4A)^{d/4} \exp \left(
        A \Vert \boldsymbol{\omega}_r \Vert^2 + \sqrt{1 - 4A} \, \boldsymbol{\omega}_r^{\top}
        \mathbf{x} - \tfrac{1}{2} \Vert \mathbf{x} \Vert^2 \right)

    The estimate of the kernel has no bias for any :math:`A`, and the least variance, for
    independent directions, where :math:`8A = 1 - 1 / \rho` with :math:`\rho = \left(
    \sqrt{(2s + d)^2 + 8ds} - 2s - d \right) / 4s` and :math:`s = \Vert \mathbf{x} + \mathbf{y}
    \Vert^2`. One :math:`A` serves all rows: that of :math:`s = \sqrt{d} / 2`, which attention has
    where queries and keys have entries of about :math:`1/2`.

    Shapes:
        - **input:** :math:`(*, L, d)`, projection :math:`(M, d)`
        - **output:** values :math:`(*, L, M)`, at most 1, and their log scale :math:`(*, L)`
    """
    num_features, dim = projection.shape
    a = optimal_coefficient(dim**0.5 / 2, dim)
    projected = F.linear(x, (1 - 4 * a) ** 0.5 * projection, a * projection.square().sum(-1))
    return _exponential(projected, x, num_features, 0.25 * dim * math.log(1 - 4 * a))


def optimal_coefficient(square: float, dim: int) -> float:
    r"""The coefficient :math:`A` of :func:`optimal_features`.

    Args:
        square (float): The :math:`s = \Vert \mathbf{x} + \mathbf{y} \Vert^2` for which the
            variance is least.
        dim (int): The size :math:`d`.
    """
    width = 2 * square + dim
    rho = (math.sqrt(width**2 + 8 * dim * square) - width) / (4 * square)
    return (1 - 1 / rho) / 8


def hyperbolic_features(x: Tensor, projection: Tensor) -> Features:
    r"""As :func:`positive_features`, with each direction taken both ways: twice as many features
    of less variance.

    .. math::
        \phi(\mathbf{x}) = \tfrac{1}{\sqrt{2M}} \exp \left( - \tfrac{1}{2}
        \Vert \mathbf{x} \Vert^2 \right) \left[ \exp(\boldsymbol{\omega}^{\top} \mathbf{x})
        \, \Vert \, \exp(-\boldsymbol{\omega}^{\top} \mathbf{x}) \right]

    Shapes:
        - **input:** :math:`(*, L, d)`, projection :math:`(M, d)`
        - **output:** values :math:`(*, L, 2M)`, at most 1, and their log scale :math:`(*, L)`
    """
    projected = x @ projection.t()
    return _exponential(torch.cat([projected, -projected], -1), x, 2 * projection.size(0))


def relu_features(x: Tensor, projection: Tensor) -> Features:
    r"""Features of a kernel of their own, which does not approximate softmax.

    .. math::
        \phi_r(\mathbf{x}) = \mathrm{ReLU}(\boldsymbol{\omega}_r^{\top} \mathbf{x}) + 10^{-3}

    Shapes:
        - **input:** :math:`(*, L, d)`, projection :math:`(M, d)`
        - **output:** values :math:`(*, L, M)`; there is no scale
    """
    return Features((x @ projection.t()).relu() + RELU_FLOOR, None)


def _exponential(
    projected: Tensor, x: Tensor, num_features: int, log_factor: float = 0.0
) -> Features:
    # The largest exponent is taken out and put into the scale. It is a constant to gradients,
    # since it cancels there.
    largest = projected.detach().amax(-1, keepdim=True)
    # In place: features are the largest tensors of an attention.
    values = projected.sub_(largest).exp_()
    log_scale = largest.squeeze(-1) - 0.5 * x.square().sum(-1)
    log_scale = log_scale + (log_factor - 0.5 * math.log(num_features))
    return Features(values, log_scale)
