from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyg_stmamba.nn.spacetime.token_layout import check_tokens, localize, reverse_localize


class LocalAttention(nn.Module):
    r"""Attention of each variable over its own time, the local attention of the `"Long-Range
    Transformers for Dynamic Spatiotemporal Forecasting" <https://arxiv.org/abs/2109.12218>`_
    paper.

    Over a memory, variable :math:`i` attends to the context variable of index
    :obj:`target_index[i]`, over all of its time.

    Args:
        attention (torch.nn.Module): The attention, called as :obj:`attention(query, key, value,
            attention_mask, output_attention, time_index)`.
        num_variables (int): Number of variables :math:`N`.
        num_context_variables (int, optional): Number of variables :math:`M` of a memory.
            (default: :obj:`None`, as many)
        target_index (sequence of int, optional): The context variable of each variable.
            (default: :obj:`None`, the one of the same index)

    Shapes:
        - **input:** tokens :math:`(B, N \cdot L, D)`, memory :math:`(B, M \cdot S, D)`
          *(optional)*, both variable by variable, padding mask of what is attended to
          *(optional)*
        - **output:** :math:`(B, N \cdot L, D)`, and the weights of each variable,
          :math:`(N \cdot B, H, L, S)`, or :obj:`None`

    Raises:
        ValueError: If there are more variables than context variables and no
            :obj:`target_index`, or it does not name one context variable for each variable.
    """

    target_index: Tensor

    def __init__(
        self,
        attention: nn.Module,
        num_variables: int,
        num_context_variables: int | None = None,
        target_index: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        context = num_variables if num_context_variables is None else num_context_variables
        if target_index is None and num_variables > context:
            raise ValueError(
                f"of {num_variables} variables only {context} have a context variable of the same "
                f"index; pass target_index=[...] with the index of one for each"
            )
        index = list(range(num_variables) if target_index is None else target_index)
        if len(index) != num_variables or not all(0 <= i < context for i in index):
            raise ValueError(
                f"target_index must hold {num_variables} indices from 0 to {context - 1}, one for "
                f"each variable, got {index}"
            )
        self.attention = attention
        self.num_variables = num_variables
        self.num_context_variables = context
        self.register_buffer("target_index", torch.tensor(index), persistent=False)

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
            causal (bool, optional): Whether a token attends to times up to its own only.
                (default: :obj:`False`)
            output_attention (bool, optional): Whether to return the weights.
                (default: :obj:`False`)
        """
        query = localize(x, self.num_variables)
        if memory is None:
            key = query
            mask = None if padding_mask is None else localize(padding_mask, self.num_variables)
        else:
            key = self._of_context(memory)
            mask = None if padding_mask is None else self._of_context(padding_mask)
        time = torch.arange(query.size(1), device=x.device) if causal else None
        y, weights = self.attention(query, key, key, mask, output_attention, time)
        return reverse_localize(y, self.num_variables), weights

    def _of_context(self, memory: Tensor) -> Tensor:
        check_tokens(memory, self.num_context_variables)
        series = memory.unflatten(1, (self.num_context_variables, -1))
        return localize(series.index_select(1, self.target_index).flatten(1, 2), self.num_variables)
