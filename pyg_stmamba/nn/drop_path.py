from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    r"""The stochastic depth of the `"Deep Networks with Stochastic Depth"
    <https://arxiv.org/abs/1603.09382>`_ paper: what a residual branch adds is left out for a
    whole sample with probability :obj:`p`, and scaled by :math:`1 / (1 - p)` for the others.

    A sample is a graph in a window: all its nodes and steps, and its class token, share one draw.

    Args:
        p (float, optional): The probability of a branch to be left out. (default: :obj:`0.0`)

    Shapes:
        - **input:** :math:`(|\mathcal{V}|, *, T, C)`, class tokens :math:`(G, *, 1, C)`
          *(optional)*, the graph of each node :math:`(|\mathcal{V}|)` *(optional)*
        - **output:** :math:`(|\mathcal{V}|, *, T, C)` and :math:`(G, *, 1, C)` or :obj:`None`

    Raises:
        ValueError: If :obj:`p` is not in :math:`[0, 1)`.
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"drop_path must be a probability below 1, got {p}")
        self.p = p

    def forward(
        self, x: Tensor, cls: Tensor | None = None, batch: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        if not self.training or self.p == 0:
            return x, cls
        if cls is not None:
            graphs = cls.size(0)
        else:
            graphs = 1 if batch is None or batch.numel() == 0 else int(batch.max()) + 1
        keep = torch.rand(graphs, *x.shape[1:-2], 1, 1, device=x.device) >= self.p
        scale = keep.to(x.dtype) / (1 - self.p)
        dropped = x * (scale if batch is None else scale[batch])
        return dropped, None if cls is None else cls * scale

    def extra_repr(self) -> str:
        return f"p={self.p}"
