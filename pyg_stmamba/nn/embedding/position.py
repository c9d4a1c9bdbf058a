from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from pyg_stmamba.nn.embedding.time2vec import Time2Vec


class PositionEmbedding(nn.Module):
    r"""A vector for each place of a window.

    A table of learned vectors knows the places up to :obj:`max_seq_len`; a :class:`Time2Vec` of
    the place has no limit. Of the latter only the periodic entries are used, since the linear one
    grows with the length.

    Args:
        d_model (int): Size of each vector.
        position_embedding (str, optional): :obj:`"learned"` or :obj:`"time2vec"`.
            (default: :obj:`"learned"`)
        max_seq_len (int, optional): Number of learned vectors, hence the longest window; needed by
            :obj:`"learned"`. (default: :obj:`None`)

    Shapes:
        - **input:** the length :math:`L` of the window, a number
        - **output:** :math:`(L, D)`

    Raises:
        ValueError: If the option is unknown, :obj:`"learned"` comes without :obj:`max_seq_len`, or
            a window is longer than that.
    """

    def __init__(
        self,
        d_model: int,
        position_embedding: Literal["learned", "time2vec"] = "learned",
        max_seq_len: int | None = None,
    ) -> None:
        super().__init__()
        self.d_model = d_model
        self.position_embedding = position_embedding
        self.max_seq_len = max_seq_len
        self.embedding: nn.Embedding | Time2Vec
        if position_embedding == "learned":
            if max_seq_len is None or max_seq_len < 1:
                raise ValueError(
                    "position_embedding='learned' needs max_seq_len, the length of the longest "
                    f"window, got {max_seq_len}; position_embedding='time2vec' has no limit"
                )
            self.embedding = nn.Embedding(max_seq_len, d_model)
        elif position_embedding == "time2vec":
            self.embedding = Time2Vec(1, d_model + 1)
        else:
            raise ValueError(
                f"unknown position_embedding {position_embedding!r}; choose 'learned' or 'time2vec'"
            )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all parameters anew."""
        if isinstance(self.embedding, nn.Embedding):
            nn.init.normal_(self.embedding.weight, std=0.02)
        else:
            self.embedding.reset_parameters()

    def forward(self, length: int) -> Tensor:
        weight = self.embedding.weight
        if isinstance(self.embedding, nn.Embedding):
            if length > weight.size(0):
                raise ValueError(
                    f"{self!r} has {weight.size(0)} learned positions, got a window of {length} "
                    "steps; build it with a larger max_seq_len, or with "
                    "position_embedding='time2vec'"
                )
            return weight[:length]
        place = torch.arange(length, device=weight.device, dtype=weight.dtype)
        return self.embedding(place.unsqueeze(-1))[:, 1:]

    def __repr__(self) -> str:
        limit = "" if self.max_seq_len is None else f", max_seq_len={self.max_seq_len}"
        return f"{type(self).__name__}({self.d_model}, {self.position_embedding!r}{limit})"
