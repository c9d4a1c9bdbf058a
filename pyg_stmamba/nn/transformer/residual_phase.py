from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch_geometric.nn.inits import reset

from pyg_stmamba.nn.dropout import Dropout
from pyg_stmamba.nn.norm.adaptive_norm import AdaptiveLayerNorm, AdaptiveRMSNorm
from pyg_stmamba.nn.norm.resolver import norm_resolver


class ResidualPhase(nn.Module):
    r"""What stands around an attention or a feed-forward network of a transformer layer: its norm,
    dropout and residual sum.

    .. math::
        \mathbf{y} = \mathbf{x} + \mathrm{Drop}(f(\mathrm{Norm}(\mathbf{x}))), \qquad
        \mathbf{y} = \mathrm{Norm}(\mathbf{x} + \mathrm{Drop}(f(\mathbf{x})))

    The first is :obj:`"pre_norm"` (`"On Layer Normalization in the Transformer Architecture"
    <https://arxiv.org/abs/2002.04745>`_), the second :obj:`"post_norm"` (`"Attention Is All You
    Need" <https://arxiv.org/abs/1706.03762>`_).

    .. code-block:: python

        y = phase.leave(x, f(phase.enter(x)))

    Args:
        channels (int): Size of each token.
        norm_strategy (str, optional): :obj:`"pre_norm"` or :obj:`"post_norm"`.
            (default: :obj:`"pre_norm"`)
        norm (str, optional): :obj:`"layer"`, :obj:`"rms"`, :obj:`"adaptive"` or
            :obj:`"adaptive_rms"`. (default: :obj:`"layer"`)
        dropout (float, optional): Dropout probability of what is added. (default: :obj:`0.1`)
        eps (float, optional): What the norm adds to the variance. (default: :obj:`1e-5`)
        cond_dim (int, optional): Size of the condition of an adaptive norm.
            (default: :obj:`None`)

    Shapes:
        - **input:** :math:`(*, D)`
        - **output:** :math:`(*, D)`

    Raises:
        ValueError: If a name is unknown; the choices are listed.
    """

    def __init__(
        self,
        channels: int,
        norm_strategy: Literal["pre_norm", "post_norm"] = "pre_norm",
        norm: str = "layer",
        dropout: float = 0.1,
        eps: float = 1e-5,
        cond_dim: int | None = None,
    ) -> None:
        super().__init__()
        if norm_strategy not in ("pre_norm", "post_norm"):
            raise ValueError(
                f"unknown norm_strategy {norm_strategy!r}; choose 'pre_norm' or 'post_norm'"
            )
        self.norm_strategy = norm_strategy
        self.norm = norm_resolver(norm, channels, eps, cond_dim)
        self.dropout = Dropout(dropout)

    def enter(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        r"""What the operator of the phase is given."""
        return normalize(self.norm, x, cond) if self.norm_strategy == "pre_norm" else x

    def leave(self, x: Tensor, change: Tensor, cond: Tensor | None = None) -> Tensor:
        r"""What the phase gives, from its input and what the operator says."""
        x = x + self.dropout(change)
        return x if self.norm_strategy == "pre_norm" else normalize(self.norm, x, cond)

    def reset_parameters(self) -> None:
        r"""Resets the norm."""
        reset(self.norm)


def normalize(norm: nn.Module, x: Tensor, cond: Tensor | None) -> Tensor:
    r"""Applies a norm, and its condition where it takes one."""
    return norm(x, cond) if isinstance(norm, AdaptiveLayerNorm | AdaptiveRMSNorm) else norm(x)
