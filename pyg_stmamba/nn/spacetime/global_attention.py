from __future__ import annotations

import torch
from torch import Tensor, nn

from pyg_stmamba.nn.spacetime.windowing import ReverseWindowing, Windowing


class GlobalAttention(nn.Module):
    r"""Attention of each token to the tokens of all variables, the global attention of the
    `"Long-Range Transformers for Dynamic Spatiotemporal Forecasting"
    <https://arxiv.org/abs/2109.12218>`_ paper.

    Among themselves, tokens attend within their window of time. A memory, whose length may be
    another, is attended to as a whole.

    Args:
        attention (torch.nn.Module): The attention, called as :obj:`attention(query, key, value,
            attention_mask, output_attention, time_index)`.
        num_variables (int): Number of variables :math:`N`.
        windows (int, optional): Number of windows :math:`W`. (default: :obj:`1`)
        shifted (bool, optional): Whether windows start half a window later, see
            :class:`Windowing`. (default: :obj:`False`)

    Shapes:
        - **input:** tokens :math:`(B, N \cdot L, D)`, variable by variable, memory
          :math:`(B, S, D)` *(optional)*, padding mask of what is attended to *(optional)*
        - **output:** :math:`(B, N \cdot L, D)`, and the weights of each window,
          :math:`(B \cdot W, H, N \cdot w, N \cdot w)`, or those of the memory,
          :math:`(B, H, N \cdot L, S)`, or :obj:`None`
    """

    def __init__(
        self, attention: nn.Module, num_variables: int, windows: int = 1, shifted: bool = False
    ) -> None:
        super().__init__()
        self.attention = attention
        self.windowing = Windowing(num_variables, windows, shifted)
        self.reverse_windowing = ReverseWindowing(num_variables, windows, shifted)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        padding_mask: Tensor | None = None,
        causal: bool = False,
        output_attention: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        r"""Attends among the tokens, or to a memory.

        Args:
            x (torch.Tensor): The tokens.
            memory (torch.Tensor, optional): What to attend to instead of the tokens.
                (default: :obj:`None`)
            padding_mask (torch.Tensor, optional): Boolean, :obj:`True` where what is attended to
                is padding. (default: :obj:`None`)
            causal (bool, optional): Whether a token attends to times up to its own only, of any
                variable. (default: :obj:`False`)
            output_attention (bool, optional): Whether to return the weights.
                (default: :obj:`False`)
        """
        if memory is not None:
            return self.attention(x, memory, memory, padding_mask, output_attention)
        variables = self.windowing.num_variables
        tokens, mask = self.windowing(x, padding_mask)
        time = None
        if causal:
            # A window holds consecutive steps, so the place in it orders them.
            time = torch.arange(tokens.size(1) // variables, device=x.device).repeat(variables)
        y, weights = self.attention(tokens, tokens, tokens, mask, output_attention, time)
        return self.reverse_windowing(y, x.size(1) // variables), weights
