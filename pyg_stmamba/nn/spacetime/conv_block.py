from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pyg_stmamba.nn.spacetime.padding import hide_padding
from pyg_stmamba.nn.spacetime.token_layout import check_tokens, localize, reverse_localize


class ConvBlock(nn.Module):
    r"""Halves the time of each variable by a convolution and a pooling, the distilling of the
    `"Informer: Beyond Efficient Transformer for Long Sequence Time-Series Forecasting"
    <https://arxiv.org/abs/2012.07436>`_ paper.

    .. math::
        \mathbf{y}_i = \mathrm{MaxPool}_{3, 2} \left( \mathrm{GELU} \left( \mathrm{BatchNorm}
        \left( \mathbf{W} \star_{3} \mathbf{x}_i \right) \right) \right)
        \quad \text{for each variable } i

    The convolution is circular in time. Variables do not mix; in training, the batch norm takes
    its statistics over all tokens of the batch.

    Args:
        split_length_into (int): Number of variables :math:`N`.
        d_model (int): Size of each token, in and out.

    Shapes:
        - **input:** tokens :math:`(B, N \cdot L, D)`, variable by variable, padding mask
          :math:`(B, N \cdot L)` *(optional)*
        - **output:** :math:`(B, N \cdot \lceil L / 2 \rceil, D)`
    """

    def __init__(self, split_length_into: int, d_model: int) -> None:
        super().__init__()
        self.split_length_into = split_length_into
        self.d_model = d_model
        self.conv = nn.Conv1d(d_model, d_model, 3, padding=1, padding_mode="circular")
        self.norm = nn.BatchNorm1d(d_model)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        self.conv.reset_parameters()
        self.norm.reset_parameters()

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        r"""Runs over each variable.

        Args:
            x (torch.Tensor): The tokens.
            padding_mask (torch.Tensor, optional): Boolean, :obj:`True` = padding, which enters as
                zero; :meth:`shorten_padding_mask` gives that of the output.
                (default: :obj:`None`)
        """
        check_tokens(x, self.split_length_into, self.d_model)
        x = hide_padding(x, padding_mask)
        series = localize(x, self.split_length_into).transpose(1, 2)
        series = F.max_pool1d(F.gelu(self.norm(self.conv(series))), 3, 2, 1)
        return reverse_localize(series.transpose(1, 2), self.split_length_into)

    def shorten_padding_mask(self, padding_mask: Tensor) -> Tensor:
        r"""The padding mask of the output: a token is padding if all that it saw is.

        Args:
            padding_mask (torch.Tensor): The padding mask of the input.

        Shapes:
            - **input:** :math:`(B, N \cdot L)`
            - **output:** :math:`(B, N \cdot \lceil L / 2 \rceil)`
        """
        real = localize((~padding_mask).float().unsqueeze(-1), self.split_length_into)
        real = F.pad(real.transpose(1, 2), (1, 1), mode="circular")
        seen = F.max_pool1d(F.max_pool1d(real, 3, 1), 3, 2, 1)
        return reverse_localize(seen.transpose(1, 2), self.split_length_into).squeeze(-1) == 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.split_length_into}, {self.d_model})"
