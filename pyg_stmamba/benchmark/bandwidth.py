r"""How close forward passes come to the speed of a copy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyg_stmamba.ops import causal_conv1d, graph_attention, selective_scan

from .shapes import GraphShape, RowShape, random_graph
from .timing import kernel_seconds


class ForwardPass(NamedTuple):
    r"""The forward pass of an operation.

    Args:
        op (str): The operation.
        run (callable): Computes the output.
        read (tuple of torch.Tensor): What it reads.
    """

    op: str
    run: Callable[[], Tensor]
    read: tuple[Tensor, ...]


def copy_bandwidth(numbers: int, device: torch.device) -> float:
    r"""Returns the bytes read and written a second by a copy of :obj:`numbers` in float32."""
    given = torch.randn(numbers, device=device)
    copied = torch.empty_like(given)
    return 2 * given.nbytes / kernel_seconds(lambda: copied.copy_(given), device)


def bandwidth(forward: ForwardPass, device: torch.device) -> float:
    r"""Returns the bytes a second, when all that is read and written counts once."""
    with torch.no_grad():
        written = forward.run().nbytes
        moved = written + sum(tensor.nbytes for tensor in forward.read)
        return moved / kernel_seconds(forward.run, device)


def forward_passes(
    rows: RowShape, graph: GraphShape, device: torch.device, dtype: torch.dtype
) -> Iterator[ForwardPass]:
    r"""The forward passes of all operations, each by the implementation that is chosen.

    Args:
        rows (RowShape): What is scanned and convolved.
        graph (GraphShape): What is attended over.
        device (torch.device): Where it runs.
        dtype (torch.dtype): In which dtype.
    """

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, dtype=dtype)

    series = (rows.rows, rows.steps, rows.channels)
    weights = (rows.rows, rows.steps, rows.states)
    A = -torch.rand(rows.channels, rows.states, device=device)
    D = torch.ones(rows.channels, device=device)
    scanned = (draw(*series), draw(*series), A, draw(*weights), draw(*weights), D, draw(*series))
    scan: Any = functools.partial(selective_scan, *scanned, delta_softplus=True)
    yield ForwardPass("selective_scan", scan, scanned)

    convolved = (draw(*series), draw(rows.channels, 4), draw(rows.channels))
    conv: Any = functools.partial(causal_conv1d, *convolved, "silu")
    yield ForwardPass("causal_conv1d", conv, convolved)

    edges = random_graph(graph.nodes, graph.edges).to(device)
    logits = (graph.nodes, graph.windows, graph.steps, graph.heads)
    value = draw(*logits, graph.channels // graph.heads)
    attended = (value, draw(*logits), draw(*logits), edges)
    attention: Any = functools.partial(graph_attention, *attended)
    yield ForwardPass("graph_attention", attention, attended)
