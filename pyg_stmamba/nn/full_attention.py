from __future__ import annotations

import torch
from torch import Tensor, nn

from pyg_stmamba.nn.softmax_attention import softmax_attention


class FullAttention(nn.Module):
    r"""The softmax attention of the `"Attention Is All You Need"
    <https://arxiv.org/abs/1706.03762>`_ paper with the face of
    :class:`~pyg_stmamba.nn.PerformerAttention`: what that one approximates, in quadratic time.

    .. math::
        \mathbf{y}_i = \sum_j \mathrm{softmax}_j \left( \mathbf{q}_i^{\top} \mathbf{k}_j /
        \sqrt{d} \right) \mathbf{v}_j

    A query without any key gives 0.

    Args:
        causal (bool, optional): Whether a query sees keys up to its own place only.
            (default: :obj:`False`)
        dropout (float, optional): Dropout probability of the weights. (default: :obj:`0.0`)

    Shapes:
        - **input:** queries :math:`(B, L, H, d)`, keys :math:`(B, S, H, d)`, values
          :math:`(B, S, H, E)`, attention mask :math:`(B, S)` or :math:`(B, L, S)` *(optional)*,
          time index :math:`(S)` *(optional)*; causal and with times :math:`L = S`
        - **output:** :math:`(B, L, H, E)`, and the weights :math:`(B, H, L, S)` or :obj:`None`

    Raises:
        ValueError: If the mask does not fit, or the numbers of queries and keys differ although
            there is an order.
    """

    def __init__(self, causal: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.causal, self.dropout = causal, dropout

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        output_attention: bool = False,
        time_index: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        r"""Attends.

        Args:
            query (torch.Tensor): The queries.
            key (torch.Tensor): The keys.
            value (torch.Tensor): The values.
            attention_mask (torch.Tensor, optional): Booleans, one a key or one a pair,
                :obj:`True` = not allowed. (default: :obj:`None`)
            output_attention (bool, optional): Whether to return the weights too, those before
                dropout. (default: :obj:`False`)
            time_index (torch.Tensor, optional): The time of each token: a query sees the keys of
                its own time and of earlier ones. (default: :obj:`None`)
        """
        allowed = self._allowed(query, key, attention_mask, time_index)
        empty = None
        if allowed is not None:
            empty = ~allowed.any(-1, keepdim=True)
            allowed = allowed | empty  # so that no softmax is over nothing
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        dropout = self.dropout if self.training else 0.0
        out = softmax_attention(query, key, value, allowed, dropout=dropout)
        weights = None
        if output_attention:
            logits = query @ key.transpose(-1, -2) * query.size(-1) ** -0.5
            if allowed is not None:
                logits = logits.masked_fill(~allowed, -torch.inf)
            weights = logits.softmax(-1)
        if empty is not None:
            out = out.masked_fill(empty, 0.0)
            weights = None if weights is None else weights.masked_fill(empty, 0.0)
        return out.transpose(1, 2), weights

    def _allowed(
        self,
        query: Tensor,
        key: Tensor,
        attention_mask: Tensor | None,
        time_index: Tensor | None,
    ) -> Tensor | None:
        length, keys = query.size(1), key.size(1)
        allowed = None
        if (self.causal or time_index is not None) and length != keys:
            raise ValueError(
                f"causal attention needs as many queries as keys, got {length} and {keys}"
            )
        if time_index is not None and time_index.shape != (keys,):
            raise ValueError(
                f"time_index must be one integer a key, [{keys}], got {list(time_index.shape)}"
            )
        if time_index is not None:
            allowed = time_index.unsqueeze(-1) >= time_index
        elif self.causal:
            allowed = torch.ones(length, keys, dtype=torch.bool, device=query.device).tril()
        if attention_mask is None:
            return allowed
        if attention_mask.shape not in (key.shape[:2], (*query.shape[:2], keys)):
            raise ValueError(
                f"attention_mask must be [B, S] = {list(key.shape[:2])} or [B, L, S] = "
                f"{[*query.shape[:2], keys]}, got {list(attention_mask.shape)}"
            )
        if attention_mask.dtype != torch.bool:
            raise ValueError(f"attention_mask must be boolean, got {attention_mask.dtype}")
        given = ~(attention_mask.unsqueeze(1) if attention_mask.dim() == 2 else attention_mask)
        given = given.unsqueeze(1)  # one for all heads
        return given if allowed is None else given & allowed

    def __repr__(self) -> str:
        return f"{type(self).__name__}(causal={self.causal}, dropout={self.dropout})"
