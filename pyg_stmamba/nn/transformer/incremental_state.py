from __future__ import annotations

from typing import Any

from torch import Tensor

from pyg_stmamba.nn.transformer.layer import LayerState
from pyg_stmamba.nn.transformer.layer_state import reorder_layer_state

IncrementalState = dict[str, Any]
r"""What a :class:`TransformerDecoder` keeps of the tokens that it has seen:
:obj:`{"layers": [{"self_attn": {"key": [B, t, D], "value": [B, t, D]}, "cross_attn": {"key":
[B, S, D], "value": [B, S, D]}}, ...]}`, an entry for each depth; :obj:`{}` before the first."""


def seen_tokens(state: IncrementalState) -> int:
    r"""The number of tokens that a state has seen, hence the place of the next one."""
    layers = state.get("layers")
    return layers[0]["self_attn"]["key"].size(1) if layers else 0


def layer_states(state: IncrementalState, num_layers: int) -> list[LayerState]:
    r"""The state of each layer.

    Raises:
        ValueError: If it is the state of a decoder with another number of layers.
    """
    layers = state.get("layers") or [{} for _ in range(num_layers)]
    if len(layers) != num_layers:
        raise ValueError(
            f"the incremental state has {len(layers)} layers, the decoder {num_layers}; start with "
            "{}, or hand over what this decoder returned"
        )
    return layers


def reorder_incremental_state(state: IncrementalState, index: Tensor) -> IncrementalState:
    r"""Chooses the sequences of a batch that go on, as a beam search does: row :math:`i` of the
    new state is row :obj:`index[i]` of the old one, which stays as it is.

    Args:
        state (dict): What a :class:`TransformerDecoder` returned.
        index (torch.Tensor): Which rows, in which order; one may come several times.

    Shapes:
        - **input:** :math:`(B')`
    """
    layers = [
        {name: reorder_layer_state(part, index) for name, part in layer.items()}
        for layer in state.get("layers", [])
    ]
    return {**state, "layers": layers} if layers else dict(state)
