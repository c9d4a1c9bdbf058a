from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyg_stmamba.nn.norm.reversible_norm import ReversibleNorm, at_least_float32, unknown_mode


class GlobalNorm(ReversibleNorm):
    r"""Normalizes each channel by statistics of the training data, the same for every series, and
    brings forecasts back with them.

    .. math::
        \hat{x}_c = w_c \, \frac{x_c - \mu_c}{\max(\sigma_c, \epsilon)} + b_c

    .. code-block:: python

        norm = GlobalNorm.fit(train)
        y = norm(model(norm(x, "norm")), "denorm")

    Args:
        global_mean (torch.Tensor or Sequence[float]): The means :math:`\mu` :math:`(C)`.
        global_std (torch.Tensor or Sequence[float]): The standard deviations :math:`\sigma`
            :math:`(C)`; those of constant channels are zero.
        eps (float, optional): The smallest standard deviation, and the smallest weight.
            (default: :obj:`1e-5`)
        affine (bool, optional): If set to :obj:`False`, there are no :math:`w` and :math:`b`.
            (default: :obj:`True`)

    Shapes:
        - **input:** series :math:`(*, L, C)`
        - **output:** series :math:`(*, L, C)`

    Raises:
        ValueError: If the statistics are not two finite vectors of one length, or a standard
            deviation is negative.
    """

    global_mean: Tensor
    global_std: Tensor

    def __init__(
        self,
        global_mean: Tensor | Sequence[float],
        global_std: Tensor | Sequence[float],
        eps: float = 1e-5,
        affine: bool = True,
    ) -> None:
        mean, std = torch.as_tensor(global_mean), torch.as_tensor(global_std)
        if mean.dim() != 1 or mean.shape != std.shape:
            raise ValueError(
                "global_mean and global_std must be vectors of one number a channel, got shapes "
                f"{tuple(mean.shape)} and {tuple(std.shape)}"
            )
        if not bool(mean.isfinite().all() & std.isfinite().all() & (std >= 0).all()):
            raise ValueError(
                "global_mean and global_std must be finite and global_std not negative, got "
                f"{mean.tolist()} and {std.tolist()}"
            )
        super().__init__(mean.numel(), eps, affine)
        self.register_buffer("global_mean", at_least_float32(mean.detach()).clone())
        self.register_buffer("global_std", at_least_float32(std.detach()).clone())

    @classmethod
    def fit(
        cls,
        y: Tensor,
        observed_mask: Tensor | None = None,
        eps: float = 1e-5,
        affine: bool = True,
    ) -> GlobalNorm:
        r"""Returns the norm with mean and (population) standard deviation of training data.

        Args:
            y (torch.Tensor): Series :math:`(*, L, C)`.
            observed_mask (torch.Tensor, optional): Boolean, :obj:`True` = observed, of the shape
                of :obj:`y`; what is not observed may hold anything.
                (default: :obj:`None`, all observed)
            eps (float, optional): As above. (default: :obj:`1e-5`)
            affine (bool, optional): As above. (default: :obj:`True`)

        Raises:
            ValueError: If shapes do not fit, an observed value is not finite, or nothing is
                observed of a channel.
        """
        observed = torch.ones_like(y, dtype=torch.bool) if observed_mask is None else observed_mask
        if y.dim() < 2 or observed.shape != y.shape or observed.dtype != torch.bool:
            raise ValueError(
                "GlobalNorm.fit takes y [..., L, C] and a boolean observed_mask (True = observed) "
                f"of the same shape, got {tuple(y.shape)} and {tuple(observed.shape)} of dtype "
                f"{observed.dtype}"
            )
        values = y.detach().double().masked_fill(~observed, 0.0).flatten(0, -2)
        observed = observed.flatten(0, -2)
        count = observed.sum(0)
        mean = values.sum(0) / count
        std = ((values - mean).masked_fill(~observed, 0.0).square().sum(0) / count).sqrt()
        useless = (count == 0) | ~mean.isfinite()
        if bool(useless.any()):
            raise ValueError(
                "GlobalNorm.fit found nothing observed, or NaN or infinity among what is, in "
                f"channel(s) {useless.nonzero().flatten().tolist()}; missing values need an "
                "observed_mask, for example ~y.isnan()"
            )
        dtype = torch.promote_types(y.dtype, torch.float32)
        return cls(mean.to(dtype), std.to(dtype), eps, affine)

    def norm(self, x: Tensor, channels: Sequence[int] | None = None) -> Tensor:
        r"""Original units to normalized ones.

        Args:
            x (torch.Tensor): The series.
            channels (Sequence[int], optional): Which channels :obj:`x` holds, where it does not
                hold all. (default: :obj:`None`)
        """
        self._check(x, channels)
        values = at_least_float32(x)
        return self._normalize(values, *self._statistics(values), channels).to(x.dtype)

    def denorm(self, y: Tensor, channels: Sequence[int] | None = None) -> Tensor:
        r"""Normalized units back to original ones; arguments as of :meth:`norm`."""
        self._check(y, channels)
        return self._denormalize(y, *self._statistics(at_least_float32(y)), channels)

    def forward(
        self, x: Tensor, mode: str = "norm", channels: Sequence[int] | None = None
    ) -> Tensor:
        r"""Runs :meth:`norm` or :meth:`denorm`.

        Args:
            x (torch.Tensor): The series.
            mode (str, optional): :obj:`"norm"` or :obj:`"denorm"`. (default: :obj:`"norm"`)
            channels (Sequence[int], optional): Which channels :obj:`x` holds, where it does not
                hold all. (default: :obj:`None`)
        """
        if mode == "norm":
            return self.norm(x, channels)
        if mode != "denorm":
            raise unknown_mode(mode)
        return self.denorm(x, channels)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return self.global_mean.to(like.dtype), self.global_std.to(like.dtype).clamp(min=self.eps)
