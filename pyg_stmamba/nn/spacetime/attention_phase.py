from __future__ import annotations

from torch import Tensor, nn

from pyg_stmamba.nn.dropout import Dropout
from pyg_stmamba.nn.spacetime.normalization import Normalization


class AttentionPhase(nn.Module):
    r"""What an attention adds to the tokens.

    .. math::
        \mathbf{y} = \mathbf{x} + \mathrm{Drop}(\mathrm{Attention}(\mathrm{Norm}(\mathbf{x})))

    Args:
        attention (torch.nn.Module): A :class:`LocalAttention` or a :class:`GlobalAttention`.
        d_model (int): Size of each token.
        dropout (float, optional): Dropout probability of what is added. (default: :obj:`0.0`)
        normalization (str, optional): The method of :class:`Normalization`.
            (default: :obj:`"layernorm"`)

    Shapes:
        - **input:** tokens :math:`(B, L, D)`, memory :math:`(B, S, D)` *(optional)*, padding mask
          of what is attended to *(optional)*
        - **output:** :math:`(B, L, D)` and the weights or :obj:`None`
    """

    def __init__(
        self,
        attention: nn.Module,
        d_model: int,
        dropout: float = 0.0,
        normalization: str = "layernorm",
    ) -> None:
        super().__init__()
        self.norm = Normalization(d_model, normalization)
        self.attention = attention
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        padding_mask: Tensor | None = None,
        causal: bool = False,
        output_attention: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        change, weights = self.attention(
            self.norm(x), memory, padding_mask, causal, output_attention
        )
        return x + self.dropout(change), weights
