from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ReversibleNorm(nn.Module):
    r"""Base of the norms that can be undone: they differ in the statistics they take.

    .. math::
        \hat{x} = w_c \, \frac{x - \mu_c}{\sigma_c} + b_c, \qquad
        x = \sigma_c \, \frac{\hat{x} - b_c}{w_c} + \mu_c

    A weight nearer to zero than :obj:`eps` counts as :math:`\pm` :obj:`eps`, so that both
    directions stay inverse to each other. All is calculated in at least float32; what is
    normalized has the precision of the input, what is brought back at least float32, as
    values in original units may need more digits than half precision has.

    Args:
        num_features (int): Number of channels :math:`C`.
        eps (float): The smallest weight.
        affine (bool): If set to :obj:`False`, there are no :math:`w` and :math:`b`.
    """

    def __init__(self, num_features: int, eps: float, affine: bool) -> None:
        super().__init__()
        if num_features < 1:
            raise ValueError(f"num_features must be at least 1, got {num_features}")
        if not eps > 0:
            raise ValueError(f"eps must be positive, got {eps}")
        self.num_features, self.eps, self.affine = num_features, eps, affine
        if affine:
            self.weight = nn.Parameter(torch.empty(num_features))
            self.bias = nn.Parameter(torch.empty(num_features))
        else:
            self.register_parameter("weight", None)
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Goes back to weight 1 and bias 0."""
        if self.affine:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def _normalize(
        self, x: Tensor, mean: Tensor, std: Tensor, channels: Sequence[int] | None
    ) -> Tensor:
        x = (x - _pick(mean, channels)) / _pick(std, channels)
        if self.affine:
            x = x * _pick(self._safe_weight(), channels) + _pick(self.bias, channels)
        return x

    def _denormalize(
        self, y: Tensor, mean: Tensor, std: Tensor, channels: Sequence[int] | None
    ) -> Tensor:
        y = at_least_float32(y)
        if self.affine:
            y = (y - _pick(self.bias, channels)) / _pick(self._safe_weight(), channels)
        return y * _pick(std, channels) + _pick(mean, channels)

    def _safe_weight(self) -> Tensor:
        safe = self.weight.abs().clamp(min=self.eps).copysign(self.weight)
        # The gradient is that of the weight itself, or one near zero could never leave.
        return self.weight + (safe - self.weight).detach()

    def _check(self, x: Tensor, channels: Sequence[int] | None = None) -> None:
        expected = self.num_features if channels is None else len(channels)
        fits = x.dim() >= 2 and x.size(-2) >= 1 and x.size(-1) == expected
        if not fits or not x.is_floating_point():
            raise ValueError(
                f"{self!r} takes floating-point series [..., L, {expected}] with a step or more, "
                f"got shape {tuple(x.shape)} and dtype {x.dtype}; channels={channels}"
            )

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.num_features}, affine={self.affine})"


def at_least_float32(x: Tensor) -> Tensor:
    r"""Returns half precision as float32, anything else as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def unknown_mode(mode: str) -> ValueError:
    r"""Returns the error that lists the directions."""
    return ValueError(f"mode={mode!r} is unknown; choose from 'norm', 'denorm'")


def _pick(statistic: Tensor, channels: Sequence[int] | None) -> Tensor:
    return statistic if channels is None else statistic[..., list(channels)]
