from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ScaleNorm(nn.Module):
    r"""The scaled :math:`\ell_2` normalization of the `"Transformers without Tears: Improving the
    Normalization of Self-Attention" <https://arxiv.org/abs/1910.05895>`_ paper.

    .. math::
        \mathbf{y} = g \, \frac{\mathbf{x}}{\max(\lVert \mathbf{x} \rVert, \epsilon)}

    with one learned number :math:`g`, at first :math:`\sqrt{D}`.

    Args:
        d_model (int): Size of each token.
        eps (float, optional): Least length to divide by. (default: :obj:`1e-5`)

    Shapes:
        - **input:** :math:`(*, D)`
        - **output:** :math:`(*, D)`
    """

    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.d_model = d_model
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Sets the length to what a token of independent unit normals has."""
        nn.init.constant_(self.weight, self.d_model**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * F.normalize(x, dim=-1, eps=self.eps)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.d_model})"


NORMALIZATIONS = {
    "layernorm": nn.LayerNorm,
    "batchnorm": nn.BatchNorm1d,
    "scale": ScaleNorm,
    "rms": nn.RMSNorm,
    "none": nn.Identity,
}


class Normalization(nn.Module):
    r"""Normalizes tokens by a method of choice.

    All but the batch norm treat each token alone. In training, the batch norm takes mean and
    variance of each channel over all tokens of the batch, padding included, so that a token
    learns of later ones and of other samples.

    Args:
        d_model (int): Size of each token.
        method (str, optional): :obj:`"layernorm"`, :obj:`"batchnorm"`, :obj:`"scale"`
            (:class:`ScaleNorm`), :obj:`"rms"` or :obj:`"none"`. (default: :obj:`"layernorm"`)

    Shapes:
        - **input:** :math:`(*, D)`
        - **output:** :math:`(*, D)`

    Raises:
        ValueError: If the method is unknown; the choices are listed.
    """

    def __init__(self, d_model: int, method: str = "layernorm") -> None:
        super().__init__()
        if method not in NORMALIZATIONS:
            raise ValueError(
                f"unknown normalization {method!r}; choose one of {sorted(NORMALIZATIONS)}"
            )
        self.d_model = d_model
        self.method = method
        self.norm = NORMALIZATIONS[method](d_model)

    def reset_parameters(self) -> None:
        r"""Resets all learnable parameters and running statistics."""
        if not isinstance(self.norm, nn.Identity):
            self.norm.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        if self.method == "batchnorm":
            return self.norm(x.reshape(-1, self.d_model)).reshape(x.shape)
        return self.norm(x)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.d_model}, method={self.method!r})"
