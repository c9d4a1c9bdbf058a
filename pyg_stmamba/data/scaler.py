from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

CHUNK = 2**22


class Scaler(nn.Module):
    r"""Standardises each channel, and brings forecasts back to original units.

    .. math::
        x' = \frac{x - \mu_c}{\sigma_c}

    :math:`\mu_c` and :math:`\sigma_c` are buffers, so they travel in the checkpoint of the model
    that owns the scaler. Until :meth:`fit` is called they are 0 and 1.

    Args:
        channels (int): Number of channels :math:`C`.

    Shapes:
        - **input:** :math:`[..., C]`
        - **output:** the same shape
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels}")
        self.channels = channels
        self.register_buffer("mean", torch.empty(channels))
        self.register_buffer("std", torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Goes back to the identity: mean 0, standard deviation 1."""
        self.mean.zero_()
        self.std.fill_(1)

    @torch.no_grad()
    def fit(
        self, values: Tensor, mask: Tensor | None = None, weight: Tensor | None = None
    ) -> Scaler:
        r"""Takes mean and (population) standard deviation of each channel.

        A channel that is constant gets standard deviation 1: it becomes 0 everywhere, and what
        differs from the constant later keeps its units.

        To fit on the inputs of the training windows only, as published results do, weigh each
        step by the number of those windows that see it:

        .. code-block:: python

            train = Windows(graph, window=12, horizon=12, starts=split["train"])
            scaler.fit(graph.x, weight=train.step_counts())  # zeros included
            scaler.fit(graph.x, graph.x_mask, train.step_counts())  # observed entries only

        Args:
            values (torch.Tensor): Series :math:`[N, T, C]`, or any :math:`[..., T, C]`.
            mask (torch.Tensor, optional): Boolean, :obj:`True` = observed, same shape; entries
                that are not observed do not count. (default: :obj:`None`)
            weight (torch.Tensor, optional): How often each step counts, :math:`[T]`, not
                negative. (default: :obj:`None`, every step once)

        Returns:
            Scaler: itself.

        Raises:
            ValueError: If shapes do not fit, an entry that counts is not finite, or a channel
                has no entry that counts.
        """
        values, mask, weight = self._checked(values, mask, weight)
        if weight is None:
            weight = torch.ones(values.size(1), dtype=torch.float64, device=values.device)
        kept = weight != 0
        if not bool(kept.all()):
            # Steps that do not count may hold anything, so they are left out, not multiplied by 0.
            first, last = int(kept.nonzero()[0]), int(kept.nonzero()[-1]) + 1
            values, weight, kept = values[:, first:last], weight[first:last], kept[first:last]
            mask = None if mask is None else mask[:, first:last]

        count = torch.zeros(self.channels, dtype=torch.float64, device=values.device)
        total, square = count.clone(), count.clone()
        for chunk, observed in _chunks(values, mask, kept):
            count += torch.einsum("ntc,t->c", observed.double(), weight)
            total += torch.einsum("ntc,t->c", chunk, weight)
        if bool((count == 0).any()):
            raise ValueError(
                "no observed entry to fit on in channel(s) "
                f"{(count == 0).nonzero().flatten().tolist()}"
            )
        mean = total / count
        if not bool(mean.isfinite().all()):
            raise ValueError(
                "values hold NaN or infinity in channel(s) "
                f"{(~mean.isfinite()).nonzero().flatten().tolist()}; pass mask=... (boolean, True "
                "= observed), for example mask=~values.isnan()"
            )
        for chunk, observed in _chunks(values, mask, kept):
            deviation = torch.where(observed, chunk - mean, 0.0)
            square += torch.einsum("ntc,ntc,t->c", deviation, deviation, weight)
        std = (square / count).sqrt()
        # Below the resolution of float32 what is left is rounding, not variation.
        constant = std <= torch.finfo(torch.float32).eps * mean.abs()
        self.mean.copy_(mean)
        self.std.copy_(torch.where(constant, 1.0, std))
        return self

    def forward(self, x: Tensor, channels: Sequence[int] | None = None) -> Tensor:
        r"""Original units to standardised ones.

        Args:
            x (torch.Tensor): Values, channels last.
            channels (sequence, optional): Which channels :obj:`x` holds, where it does not hold
                all. (default: :obj:`None`)
        """
        mean, std = self._of(x, channels)
        return (x - mean) / std

    def inverse(self, x: Tensor, channels: Sequence[int] | None = None) -> Tensor:
        r"""Standardised units back to original ones.

        Args:
            x (torch.Tensor): Values, channels last.
            channels (sequence, optional): Which channels :obj:`x` holds, where it does not hold
                all. (default: :obj:`None`)
        """
        mean, std = self._of(x, channels)
        return x * std + mean

    def _of(self, x: Tensor, channels: Sequence[int] | None) -> tuple[Tensor, Tensor]:
        mean, std = self.mean, self.std
        if channels is not None:
            mean, std = mean[list(channels)], std[list(channels)]
        if x.dim() == 0 or x.size(-1) != mean.numel():
            raise ValueError(
                f"expected {mean.numel()} channel(s) in the last dimension, got shape "
                f"{list(x.shape)}"
            )
        return mean, std

    def _checked(
        self, values: Tensor, mask: Tensor | None, weight: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        if values.dim() < 2 or values.size(-1) != self.channels:
            raise ValueError(
                f"values must be [..., T, C] with C = {self.channels} channels, got shape "
                f"{list(values.shape)}"
            )
        num_steps = values.size(-2)
        if mask is not None:
            if mask.dtype != torch.bool or mask.shape != values.shape:
                raise ValueError(
                    f"mask must be boolean (True = observed) of shape {list(values.shape)}, got "
                    f"{mask.dtype} of shape {list(mask.shape)}"
                )
            mask = mask.reshape(-1, num_steps, self.channels)
        if weight is not None:
            if weight.shape != (num_steps,):
                raise ValueError(
                    f"weight must be of shape [{num_steps}], one number a step, got "
                    f"{list(weight.shape)}"
                )
            weight = weight.to(values.device, torch.float64)
            if not bool((weight >= 0).all()) or not bool(weight.any()):
                raise ValueError("weight must not be negative, and not all zero")
        return values.reshape(-1, num_steps, self.channels), mask, weight

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.channels})"


def _chunks(values: Tensor, mask: Tensor | None, kept: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    # Float64 copies of a few nodes at a time: memory stays small for millions of entries.
    nodes = max(1, CHUNK // values[0].numel())
    for i, chunk in enumerate(values.split(nodes)):
        observed = kept.view(1, -1, 1).expand_as(chunk)
        if mask is not None:
            observed = observed & mask[i * nodes : i * nodes + nodes]
        yield torch.where(observed, chunk.double(), 0.0), observed
