from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def derivatives(x: Tensor, index: Tensor, weight: Tensor, velocity: slice | None) -> Tensor:
    r"""Returns the gradient of each channel of a state, and how the flow carries it along.

    .. math::
        \nabla s_i, \qquad (\mathbf{u}_i \cdot \nabla) \, s_i

    Args:
        x (torch.Tensor): The state.
        index (torch.Tensor): Pairs of nodes, see
            :func:`~pyg_stmamba.data.mesh.gradient_weights`.
        weight (torch.Tensor): Their weights.
        velocity (slice, optional): The channels of the velocity :math:`\mathbf{u}`; without one
            there are only gradients.

    Shapes:
        - **input:** :math:`(|\mathcal{V}|, H, S)`, :math:`(2, M)`, :math:`(M, D)`
        - **output:** :math:`(|\mathcal{V}|, H, S D + S)` or :math:`(|\mathcal{V}|, H, S D)`
    """
    node, neighbor = index
    parts = x.index_select(0, neighbor).unsqueeze(-1) * weight.view(-1, 1, 1, weight.size(1))
    gradient = x.new_zeros(*x.shape, weight.size(1)).index_add_(0, node, parts)
    if velocity is None:
        return gradient.flatten(2)
    advection = (gradient * x[..., velocity].unsqueeze(2)).sum(-1)
    return torch.cat([gradient.flatten(2), advection], dim=-1)


def velocity_channels(state: Mapping[str, int], dim: int) -> slice | None:
    r"""Returns the channels of the first field of a state with one for each direction.

    Args:
        state (dict[str, int]): The fields and their numbers of channels.
        dim (int): Number of directions.
    """
    first = 0
    for channels in state.values():
        if channels == dim:
            return slice(first, first + channels)
        first += channels
    return None


def derivative_channels(state: Mapping[str, int], dim: int) -> int:
    r"""Returns how many channels :func:`derivatives` gives, none without directions.

    Args:
        state (dict[str, int]): The fields and their numbers of channels.
        dim (int): Number of directions, 0 for none.
    """
    channels = sum(state.values())
    carried = velocity_channels(state, dim) is not None
    return channels * dim + (channels if carried else 0)
