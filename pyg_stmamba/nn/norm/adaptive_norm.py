from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyg_stmamba.nn.norm.reversible_norm import at_least_float32
from pyg_stmamba.nn.norm.rms_norm import rms_norm


class AdaptiveNorm(nn.Module, ABC):
    r"""What :class:`AdaptiveLayerNorm` and :class:`AdaptiveRMSNorm` share.

    Args:
        channels (int): Size of each sample.
        cond_dim (int, optional): Size of the condition; without one, scale and shift are learned.
            (default: :obj:`None`)
        eps (float, optional): Added to the variance, or to the mean of the squares.
            (default: :obj:`1e-5`)
    """

    def __init__(self, channels: int, cond_dim: int | None = None, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels = channels
        self.cond_dim = cond_dim
        self.eps = eps
        if cond_dim is None:
            self.gamma = nn.Parameter(torch.empty(channels))
            self.beta = nn.Parameter(torch.empty(channels))
        else:
            self.modulation = nn.Linear(cond_dim, 2 * channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Sets all parameters to zero, with which nothing follows the norm."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        r"""Normalizes each sample.

        Args:
            x (torch.Tensor): The samples :math:`(B, *, C)`.
            cond (torch.Tensor, optional): The condition, :math:`(B, C')` for all samples of an
                example or :math:`(B, *, C')` for each. (default: :obj:`None`)
        """
        self._check(x, cond)
        values = at_least_float32(x)
        if cond is None:
            return self._normalize(values, 1 + self.gamma, self.beta).to(x.dtype)
        gamma, beta = at_least_float32(self.modulation(cond)).chunk(2, -1)
        if cond.dim() < x.dim():
            gamma, beta = (c.unflatten(0, (-1, *[1] * (x.dim() - 2))) for c in (gamma, beta))
        y = self._normalize(values, values.new_ones(self.channels), None)
        return torch.addcmul(beta, y, 1 + gamma).to(x.dtype)

    @abstractmethod
    def _normalize(self, x: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor: ...

    def _check(self, x: Tensor, cond: Tensor | None) -> None:
        name = type(self).__name__
        if x.size(-1) != self.channels:
            raise ValueError(f"{name} expects [*, {self.channels}], got {list(x.shape)}")
        if self.cond_dim is None:
            if cond is not None:
                raise ValueError(
                    f"{name} was given a condition of shape {list(cond.shape)} but learns scale "
                    f"and shift itself; build it with cond_dim={cond.size(-1)}"
                )
            return
        allowed = [[*shape, self.cond_dim] for shape in (x.shape[:1], x.shape[:-1])]
        if cond is None or list(cond.shape) not in allowed:
            given = "none" if cond is None else list(cond.shape)
            raise ValueError(
                f"{name} with cond_dim={self.cond_dim} needs a condition of shape {allowed[0]} or "
                f"{allowed[1]} for an input of shape {list(x.shape)}, got {given}"
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.channels}, cond_dim={self.cond_dim}, eps={self.eps})"


class AdaptiveLayerNorm(AdaptiveNorm):
    r"""A layer norm whose scale and shift come from a condition, as in the `"Scalable Diffusion
    Models with Transformers" <https://arxiv.org/abs/2212.09748>`_ paper, or are learned.

    .. math::
        \mathbf{y} = \frac{\mathbf{x} - \mu}{\sqrt{\sigma^2 + \epsilon}} \odot (1 + \gamma) + \beta,
        \qquad (\gamma, \beta) = \mathbf{W} \mathbf{c} + \mathbf{b}

    All parameters start at zero, so that it starts as a plain layer norm.

    Args:
        channels (int): Size of each sample.
        cond_dim (int, optional): Size of the condition :math:`\mathbf{c}`; without one,
            :math:`\gamma` and :math:`\beta` are learned. (default: :obj:`None`)
        eps (float, optional): Added to the variance. (default: :obj:`1e-5`)

    Shapes:
        - **input:** :math:`(B, *, C)`, condition :math:`(B, C')` or :math:`(B, *, C')`
        - **output:** :math:`(B, *, C)`, of the dtype of the input

    Raises:
        ValueError: If a condition is missing, not wanted or of another shape.
    """

    def _normalize(self, x: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
        shift = None if shift is None else shift.to(x.dtype)
        return F.layer_norm(x, scale.shape, scale.to(x.dtype), shift, self.eps)


class AdaptiveRMSNorm(AdaptiveNorm):
    r"""An :class:`RMSNorm` whose scale and shift come from a condition or are learned.

    .. math::
        \mathbf{y} = \frac{\mathbf{x}}{\sqrt{\frac{1}{C} \sum_c x_c^2 + \epsilon}} \odot
        (1 + \gamma) + \beta, \qquad (\gamma, \beta) = \mathbf{W} \mathbf{c} + \mathbf{b}

    All parameters start at zero, so that it starts as a plain norm.

    Args:
        channels (int): Size of each sample.
        cond_dim (int, optional): Size of the condition :math:`\mathbf{c}`; without one,
            :math:`\gamma` and :math:`\beta` are learned. (default: :obj:`None`)
        eps (float, optional): Added to the mean of the squares. (default: :obj:`1e-5`)

    Shapes:
        - **input:** :math:`(B, *, C)`, condition :math:`(B, C')` or :math:`(B, *, C')`
        - **output:** :math:`(B, *, C)`, of the dtype of the input

    Raises:
        ValueError: If a condition is missing, not wanted or of another shape.
    """

    def _normalize(self, x: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
        y = rms_norm(x, scale, self.eps)
        return y if shift is None else y + shift.to(x.dtype)
