r"""What is measured at which shape: each function of ours beside its peers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyg_stmamba.nn import SpatialGAT, STMambaBlock
from pyg_stmamba.ops import causal_conv1d, selective_scan

from . import shapes
from .contender import Case, Contender, of_function, of_module
from .parity import TOLERANCES
from .peers import CONVS, DENSE_GAT, GATS, MAMBAS, SCANS, TRITON_GAT, Peer
from .shapes import GraphShape, RowShape, random_graph
from .torch_block import TorchBlock

CPU = torch.device("cpu")
# A peer that makes a larger tensor is left out: it makes several, and the machine may not survive.
LARGEST_TENSOR = {"cpu": 3 * 2**29, "cuda": 2**32}

Build = Callable[..., Case]
# A peer, the elements of the largest tensor that it makes, and what sets it up.
Entry = tuple[Peer, int, Callable[[], Contender]]


def scan_case(
    shape: RowShape, device: torch.device = CPU, dtype: torch.dtype = torch.float32
) -> Case:
    r"""The selective scan with skip, gate and softplus."""
    rows, steps, channels, states = shape
    draw = _drawer(device, dtype)
    inputs = {
        "u": draw(rows, steps, channels),
        "delta": 0.1 * draw(rows, steps, channels),
        "A": -torch.arange(1.0, states + 1, device=device).repeat(channels, 1),
        "B": draw(rows, steps, states),
        "C": draw(rows, steps, states),
        "D": draw(channels).float(),
        "z": draw(rows, steps, channels),
        "delta_bias": draw(channels).float() - 3,
    }
    run: Any = functools.partial(selective_scan, delta_softplus=True)
    entries = [(peer, _state_elements(peer, shape), _function(peer, inputs)) for peer in SCANS]
    ours = of_function("ours", run, inputs)
    return _case("selective scan", str(shape), ours, entries, device, dtype, steps)


def conv_case(
    shape: RowShape, device: torch.device = CPU, dtype: torch.dtype = torch.float32
) -> Case:
    r"""The causal convolution of width 4 with bias and SiLU."""
    draw = _drawer(device, dtype)
    inputs = {
        "x": draw(shape.rows, shape.steps, shape.channels),
        "weight": 0.5 * draw(shape.channels, 4),
        "bias": draw(shape.channels),
    }
    run: Any = functools.partial(causal_conv1d, activation="silu")
    entries = [(peer, 0, _function(peer, inputs)) for peer in CONVS]
    ours = of_function("ours", run, inputs)
    sizes = f"{shape.rows:,} rows x {shape.steps:,} steps x {shape.channels} channels"
    return _case("causal conv1d", sizes, ours, entries, device, dtype, shape.steps)


def graph_attention_case(
    shape: GraphShape, device: torch.device = CPU, dtype: torch.dtype = torch.float32
) -> Case:
    r"""The graph attention layer over all slices."""
    op = _seeded(SpatialGAT, shape.channels, shape.channels // shape.heads, shape.heads)
    x, edges = _graph(shape, device, dtype)
    weights = _weights(op, device, dtype)

    def contend(peer: Peer, other: Callable[[], Tensor]) -> Callable[[], Contender]:
        def build() -> Contender:
            module = peer.make(op.in_channels, op.out_channels, heads=op.heads)
            return of_module(peer.name, module, weights, x, other(), layout=peer.layout)

        return build

    slices = shape.steps * shape.windows
    entries = [
        (peer, _message_elements(shape), contend(peer, lambda: _repeat(edges, shape)))
        for peer in GATS
    ]
    pairs = shape.nodes**2 * slices * shape.heads
    entries.append((TRITON_GAT, 0, contend(TRITON_GAT, lambda: edges)))
    entries.append((DENSE_GAT, pairs, contend(DENSE_GAT, lambda: _dense(edges, shape, dtype))))
    ours = of_module("ours", op, weights, x, edges)
    return _case("graph attention", str(shape), ours, entries, device, dtype, shape.steps)


def block_case(
    shape: GraphShape,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
    train: bool = True,
) -> Case:
    r"""A block of graph attention and Mamba: a training step, or the forward pass alone.

    A peer is PyG's convolution on repeated edges and a Mamba, composed in the same way.
    """
    block = _seeded(STMambaBlock, shape.channels, num_heads=shape.heads, dropout=0.0)
    x, edges = _graph(shape, device, dtype)
    weights = _weights(block, device, dtype)

    def contend(gat: Peer, mamba: Peer) -> Callable[[], Contender]:
        def build() -> Contender:
            spatial = gat.make(shape.channels, shape.channels // shape.heads, heads=shape.heads)
            module = TorchBlock(spatial, mamba.make(shape.channels), shape.channels)
            name = f"{gat.name} + {mamba.name}"
            return of_module(name, module, weights, x, _repeat(edges, shape), layout=gat.layout)

        return build

    gats, without_gats = _present(GATS, device, shape.steps)
    mambas, without_mambas = _present(MAMBAS, device, shape.steps)
    rows = RowShape(shape.nodes * shape.windows, shape.steps, 2 * shape.channels)
    entries = [
        (
            mamba._replace(name=f"{gat.name} + {mamba.name}"),
            max(_message_elements(shape), _state_elements(mamba, rows)),
            contend(gat, mamba),
        )
        for gat in gats
        for mamba in mambas
    ]
    ours = of_module("ours", block, weights, x, edges, nodes_first=True)
    name = "STMambaBlock, training step" if train else "STMambaBlock, forward"
    case = _case(name, str(shape), ours, entries, device, dtype, shape.steps)
    left_out = without_gats | without_mambas | case.left_out
    return case._replace(left_out=left_out, train=train)


SETS: dict[str, tuple[Build, ...]] = {
    "short": (
        functools.partial(scan_case, shapes.MANY_SHORT),
        functools.partial(conv_case, shapes.MANY_SHORT),
        functools.partial(graph_attention_case, shapes.METR_LA),
        functools.partial(block_case, shapes.METR_LA),
    ),
    "all": (
        *(functools.partial(scan_case, shape) for shape in shapes.ROWS),
        *(functools.partial(conv_case, shape) for shape in shapes.ROWS),
        *(functools.partial(graph_attention_case, shape) for shape in shapes.GRAPHS),
        *(functools.partial(block_case, shape) for shape in shapes.GRAPHS),
        functools.partial(block_case, shapes.LARGEST_CA, train=False),
    ),
}


def _case(
    name: str,
    shape: str,
    ours: Contender,
    entries: Iterable[Entry],
    device: torch.device,
    dtype: torch.dtype,
    steps: int,
) -> Case:
    peers, left_out = [], {}
    for peer, elements, build in entries:
        reasons = peer.reasons_against(device, steps) or _too_large(4 * elements, peer, device)
        if reasons:
            left_out[peer.name] = "; ".join(reasons)
        else:
            peers.append(build())
    if dtype != torch.float32:
        name = f"{name}, {str(dtype).removeprefix('torch.')}"
    return Case(name, shape, ours, peers, left_out, TOLERANCES[dtype])


def _present(
    peers: Iterable[Peer], device: torch.device, steps: int
) -> tuple[list[Peer], dict[str, str]]:
    present, left_out = [], {}
    for peer in peers:
        reasons = peer.reasons_against(device, steps)
        if reasons:
            left_out[peer.name] = "; ".join(reasons)
        else:
            present.append(peer)
    return present, left_out


def _too_large(size: int, peer: Peer, device: torch.device) -> list[str]:
    largest = LARGEST_TENSOR[device.type]
    if size <= min(peer.largest_tensor or largest, largest):
        return []
    return [f"one of its tensors takes {size / 1e9:.1f} GB"]


def _state_elements(peer: Peer, shape: RowShape) -> int:
    return 0 if peer.one_pass else shape.rows * shape.steps * shape.channels * shape.states


def _message_elements(shape: GraphShape) -> int:
    return (shape.edges + shape.nodes) * shape.steps * shape.windows * shape.channels


def _function(peer: Peer, inputs: Mapping[str, Tensor]) -> Callable[[], Contender]:
    return functools.partial(of_function, peer.name, peer.make, inputs, peer.layout)


def _drawer(device: torch.device, dtype: torch.dtype) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator).to(device, dtype)


def _seeded(make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return make(*arguments, **options)


def _graph(shape: GraphShape, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    draw = _drawer(device, dtype)
    x = _rounded(draw(shape.nodes, shape.windows, shape.steps, shape.channels), 8)
    return x, random_graph(shape.nodes, shape.edges).to(device)


def _weights(module: nn.Module, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    of_attention = ("lin.weight", "att_src", "att_dst")
    return {
        name: _rounded(value, 64 if name.endswith(of_attention) else None).to(device, dtype)
        for name, value in module.state_dict().items()
    }


def _rounded(x: Tensor, parts: int | None) -> Tensor:
    r"""Rounds to multiples of :obj:`1 / parts`.

    Sums of products of such numbers are exact in float32, so that whoever computes the logits of an
    attention gets the same: else a logit next to zero would be on either side of the LeakyReLU's
    bend, and a gradient five times as large as another's.
    """
    return x if parts is None else (x * parts).round() / parts


def _repeat(edges: Tensor, shape: GraphShape) -> Tensor:
    slices = torch.arange(shape.steps * shape.windows, device=edges.device) * shape.nodes
    return (edges.unsqueeze(1) + slices.view(1, -1, 1)).flatten(1)


def _dense(edges: Tensor, shape: GraphShape, dtype: torch.dtype) -> Tensor:
    adjacency = torch.zeros(shape.nodes, shape.nodes, device=edges.device, dtype=dtype)
    adjacency[edges[1], edges[0]] = 1
    return adjacency
