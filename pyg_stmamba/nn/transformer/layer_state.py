r"""What an attention keeps of the tokens that it has seen, for those that follow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyg_stmamba.nn.transformer.growing_buffer import GrowingBuffer

LayerState = dict[str, Any]
r""":obj:`{"key": [B, t, D], "value": [B, t, D]}`, heads side by side; :obj:`{}` before the first
token. Outside of autograd there is also a :obj:`"buffer"`, of which both are views; a state
without it goes on all the same."""


def extend_layer_state(layer_state: LayerState, key: Tensor, value: Tensor) -> LayerState:
    r"""Appends the keys and values of new tokens; the state given stays as it is, and may be
    continued several times.

    Args:
        layer_state (dict): The state before.
        key (torch.Tensor): The new keys.
        value (torch.Tensor): The new values.

    Shapes:
        - **input:** :math:`(B, L, D)`
    """
    others = {name: entry for name, entry in layer_state.items() if name != "buffer"}
    old = (layer_state["key"], layer_state["value"]) if "key" in layer_state else None
    if torch.is_grad_enabled():  # what a graph has seen must not be written to
        if old is not None:
            key, value = (torch.cat(parts, dim=1) for parts in zip(old, (key, value)))
        return {**others, "key": key, "value": value}

    new = torch.stack([key, value])
    buffer = layer_state.get("buffer")
    if old is None:
        buffer = GrowingBuffer(new)
    else:
        if buffer is None or not buffer.holds(old):
            buffer = GrowingBuffer(torch.stack(old))
        buffer = buffer.append(old[0].size(1), new)
    key, value = buffer.view(buffer.length)
    return {**others, "key": key, "value": value, "buffer": buffer}


def reorder_layer_state(layer_state: LayerState, index: Tensor) -> LayerState:
    r"""Chooses the sequences that go on, as a beam search does: row :math:`i` of the new state is
    row :obj:`index[i]` of the old one, which stays as it is.

    Args:
        layer_state (dict): The state before.
        index (torch.Tensor): Which rows, in which order; one may come several times.

    Shapes:
        - **input:** :math:`(B')`
    """
    return {
        name: entry.index_select(0, index) if name in ("key", "value") else entry
        for name, entry in layer_state.items()
        if name != "buffer"
    }
