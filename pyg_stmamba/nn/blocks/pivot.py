from __future__ import annotations

from einops import rearrange
from torch import Tensor


def pivot(x: Tensor) -> Tensor:
    r"""Turns a dense tensor as papers write it into the nodes-first layout, without a copy.

    .. code-block:: python

        x = torch.randn(8, 12, 207, 64)  # 8 windows of 12 steps over 207 nodes
        pivot(x).shape                   # [207, 8, 12, 64]

    Shapes:
        - **input:** :math:`(B, T, |\mathcal{V}|, C)`
        - **output:** :math:`(|\mathcal{V}|, B, T, C)`, a view
    """
    return rearrange(x, "batch time node channel -> node batch time channel")


def unpivot(x: Tensor) -> Tensor:
    r"""Turns the nodes-first layout back into a dense tensor, without a copy.

    Shapes:
        - **input:** :math:`(|\mathcal{V}|, B, T, C)`
        - **output:** :math:`(B, T, |\mathcal{V}|, C)`, a view
    """
    return rearrange(x, "node batch time channel -> batch time node channel")
