from __future__ import annotations

from torch import Tensor, nn

from pyg_stmamba.nn.activation import ACTIVATIONS
from pyg_stmamba.nn.dropout import Dropout


class FeedForward(nn.Module):
    r"""The feed-forward network of the `"Attention Is All You Need"
    <https://arxiv.org/abs/1706.03762>`_ paper, on each token alone (a convolution of width 1).

    .. math::
        \mathbf{y} = \mathrm{Drop} \left( \mathbf{W}_2 \, \mathrm{Drop} \left( \sigma \left(
        \mathbf{W}_1 \mathbf{x} + \mathbf{b}_1 \right) \right) + \mathbf{b}_2 \right)

    Args:
        d_model (int): Size of each token, in and out.
        d_ff (int, optional): Size within. (default: :obj:`None`, four times :obj:`d_model`)
        dropout (float, optional): Dropout probability. (default: :obj:`0.2`)
        activation (str, optional): :obj:`"gelu"`, :obj:`"relu"` or :obj:`"silu"`.
            (default: :obj:`"gelu"`)

    Shapes:
        - **input:** :math:`(*, D)`
        - **output:** :math:`(*, D)`

    Raises:
        ValueError: If the activation is unknown; the choices are listed.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int | None = None,
        dropout: float = 0.2,
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"unknown activation {activation!r}; choose one of {sorted(ACTIVATIONS)}"
            )
        d_ff = 4 * d_model if d_ff is None else d_ff
        self.linear1 = nn.Linear(d_model, d_ff)
        self.activation = ACTIVATIONS[activation]()
        self.linear2 = nn.Linear(d_ff, d_model)
        self.dropout = Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        self.linear1.reset_parameters()
        self.linear2.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        h = self.dropout(self.activation(self.linear1(x)))
        return self.dropout(self.linear2(h))
