from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

# Up to so many modes a CPU takes two products with a matrix of waves, at any length faster there
# than a Fourier transform of which most is thrown away.
FEW = 48


class FourierModes(nn.Module):
    r"""Some of the frequencies of a series: from time to their Fourier coefficients and back, as in
    the `"FEDformer: Frequency Enhanced Decomposed Transformer for Long-term Series Forecasting"
    <https://arxiv.org/abs/2201.12740>`_ paper.

    .. math::
        \tilde{\mathbf{x}}_m = \frac{1}{\sqrt{L}} \sum_{n=0}^{L-1} \mathbf{x}_n
        e^{-2 \pi \mathrm{i} f_m n / L}, \qquad m = 1, \ldots,
        M = \min(\mathrm{modes}, \lfloor L / 2 \rfloor + 1)

    All coefficients are taken if there are no more than :obj:`modes`. Random frequencies are drawn
    once and are part of the state dict; a length always has the same ones.

    Args:
        modes (int, optional): Number of frequencies. (default: :obj:`32`)
        mode_select (str, optional): Which ones :math:`f_m` are, :obj:`"low"` for the lowest or
            :obj:`"random"` for a random choice among all. (default: :obj:`"low"`)

    Raises:
        ValueError: If there is no mode, or the selection is unknown.
    """

    draws: Tensor | None

    def __init__(self, modes: int = 32, mode_select: Literal["low", "random"] = "low") -> None:
        super().__init__()
        if modes < 1:
            raise ValueError(f"modes must be at least 1, got {modes}")
        if mode_select not in ("low", "random"):
            raise ValueError(f"unknown mode_select {mode_select!r}; choose 'low' or 'random'")
        self.modes = modes
        self.mode_select = mode_select
        # Integers, for a half-precision copy of the module must keep its frequencies.
        draws = torch.zeros(modes, dtype=torch.long) if mode_select == "random" else None
        self.register_buffer("draws", draws)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws random frequencies anew."""
        if self.draws is not None:
            self.draws.copy_(torch.randint(2**31, (self.modes,)).sort().values)

    def index(self, length: int) -> Tensor:
        r"""Returns the frequencies :math:`f_m` of a series, in rising order.

        Args:
            length (int): Steps of the series.

        Shapes:
            - **output:** :math:`(M)`
        """
        bins = length // 2 + 1
        count = min(self.modes, bins)
        if self.draws is None:
            return torch.arange(count)
        # Rising numbers, each moved on by its place, so that no two are equal.
        spread = self.draws[:count] * (bins - count + 1) >> 31
        return spread + torch.arange(count, device=spread.device)

    def analyze(self, x: Tensor) -> Tensor:
        r"""Returns the coefficients of series, at least in single precision.

        Args:
            x (torch.Tensor): The series.

        Shapes:
            - **input:** :math:`(*, L, D)`
            - **output:** complex, :math:`(*, M, D)`
        """
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        index = self.index(x.size(-2)).to(x.device)
        if not _by_product(index):
            return torch.fft.rfft(x, dim=-2, norm="ortho").index_select(-2, index)
        with torch.autocast(x.device.type, enabled=False):
            real, imag = (_waves(index, x.size(-2), x.dtype) @ x).chunk(2, dim=-2)
        return torch.complex(real, imag)

    def synthesize(self, spectrum: Tensor, length: int) -> Tensor:
        r"""Returns the series that have these coefficients and no others.

        Args:
            spectrum (torch.Tensor): The coefficients. At frequencies zero and one half, where a
                real series has none, imaginary parts are left out.
            length (int): Steps of the series.

        Shapes:
            - **input:** complex, :math:`(*, M, D)`
            - **output:** :math:`(*, L, D)`
        """
        index = self.index(length).to(spectrum.device)
        if not _by_product(index):
            bins = (*spectrum.shape[:-2], length // 2 + 1, spectrum.size(-1))
            spectrum = spectrum.new_zeros(bins).index_copy(-2, index, spectrum)
            return torch.fft.irfft(spectrum, n=length, dim=-2, norm="ortho")
        # All other frequencies stand for the negative one as well.
        own = (index == 0) | (2 * index == length)
        count = torch.where(own, 1.0, 2.0).repeat(2).unsqueeze(-1)
        parts = torch.cat([spectrum.real, spectrum.imag], dim=-2)
        with torch.autocast(spectrum.device.type, enabled=False):
            return (_waves(index, length, parts.dtype) * count.to(parts.dtype)).mT @ parts

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.modes}, mode_select={self.mode_select!r})"


def _by_product(index: Tensor) -> bool:
    return index.numel() <= FEW and index.device.type == "cpu"


def _waves(index: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    r"""The real and then the imaginary parts of the waves of a Fourier transform, ``[2 M, L]``."""
    step = torch.arange(length, device=index.device)
    angle = step.double() * (2 * math.pi / length)
    wave = torch.stack([angle.cos(), -angle.sin()]) / math.sqrt(length)
    # A whole number of turns is taken off before it could cost digits.
    return wave[:, index.unsqueeze(-1) * step % length].flatten(0, 1).to(dtype)
