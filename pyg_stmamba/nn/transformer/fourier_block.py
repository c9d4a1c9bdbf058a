from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from pyg_stmamba.nn.transformer.fourier_modes import FourierModes


class FourierBlock(nn.Module):
    r"""The frequency enhanced block of the `"FEDformer: Frequency Enhanced Decomposed Transformer
    for Long-term Series Forecasting" <https://arxiv.org/abs/2201.12740>`_ paper: some Fourier
    coefficients of a series, each times a learned matrix.

    .. math::
        \mathbf{y} = \mathcal{F}^{-1} \left( \mathbf{R}_m^{\top} \tilde{\mathbf{x}}_m \right),
        \qquad \tilde{\mathbf{x}} = \mathcal{F}(\mathbf{x})

    where each head has complex matrices :math:`\mathbf{R}_m` of its own, and frequencies that are
    not selected come out as zero. It is non-causal: each output depends on all steps.

    Args:
        d_model (int): Size of each step, in and out.
        n_heads (int): Number of heads; they share the channels.
        modes (int, optional): Number of frequencies, all of a series that has no more.
            (default: :obj:`32`)
        mode_select (str, optional): Which ones, :obj:`"low"` or :obj:`"random"`, see
            :class:`FourierModes`. (default: :obj:`"low"`)

    Shapes:
        - **input:** :math:`(*, L, D)`
        - **output:** :math:`(*, L, D)`

    Raises:
        ValueError: If an option is none of the above, or the heads do not divide the channels.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        modes: int = 32,
        mode_select: Literal["low", "random"] = "low",
    ) -> None:
        super().__init__()
        if n_heads < 1 or d_model % n_heads != 0:
            raise ValueError(f"d_model ({d_model}) must be divisible by n_heads ({n_heads})")
        self.d_model = d_model
        self.n_heads = n_heads
        self.modes = FourierModes(modes, mode_select)
        size = d_model // n_heads
        self.weight = nn.Parameter(torch.empty(n_heads, size, size, modes, 2))
        self._reset_weight()

    def reset_parameters(self) -> None:
        r"""Draws the matrices and random frequencies anew."""
        self.modes.reset_parameters()
        self._reset_weight()

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 2 or x.size(-1) != self.d_model:
            raise ValueError(
                f"{type(self).__name__} expects x[..., L, D] with D = {self.d_model}, got a tensor "
                f"of shape {list(x.shape)}"
            )
        spectrum = self.transform(self.modes.analyze(x))
        return self.modes.synthesize(spectrum, x.size(-2)).to(x.dtype)

    def transform(self, spectrum: Tensor) -> Tensor:
        r"""Returns the coefficients times the matrices.

        Args:
            spectrum (torch.Tensor): The coefficients.

        Shapes:
            - **input:** complex, :math:`(*, M, D)`
            - **output:** complex, :math:`(*, M, D)`
        """
        weight = self.weight[..., : spectrum.size(-2), :].to(spectrum.real.dtype)
        heads = spectrum.unflatten(-1, (self.n_heads, -1))
        weight = torch.view_as_complex(weight.contiguous())
        return torch.einsum("...mhe,heom->...mho", heads, weight).flatten(-2)

    def _reset_weight(self) -> None:
        # Real and imaginary parts share the variance 1 / E, with which coefficients keep theirs.
        nn.init.normal_(self.weight, std=(2 * self.weight.size(1)) ** -0.5)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.d_model}, n_heads={self.n_heads}, "
            f"modes={self.modes.modes}, mode_select={self.modes.mode_select!r})"
        )
