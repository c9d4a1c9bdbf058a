r"""Every implementation of every operation beside the reference in float64."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyg_stmamba.ops.backend import Implementation

from .parity import TOLERANCES, Parity, parity
from .shapes import random_graph

Arguments = dict[str, Any]


class OpCase(NamedTuple):
    r"""The arguments of an operation, in float64 on a CPU.

    Args:
        op (str): The operation.
        sizes (str): What they are like, for the report.
        arguments (dict[str, Any]): What an implementation runs on, in order.
        outputs (int, optional): How many of the outputs are asked for. (default: :obj:`1`)
        asked (tuple, optional): What else :obj:`reasons_against` is told. (default: :obj:`()`)
    """

    op: str
    sizes: str
    arguments: Arguments
    outputs: int = 1
    asked: tuple[Any, ...] = ()


def implementations_of(op: str) -> tuple[Implementation, ...]:
    r"""Returns the table of an operation."""
    return importlib.import_module(f"pyg_stmamba.ops.{op}").IMPLEMENTATIONS


def check_implementation(
    case: OpCase, entry: Implementation, device: torch.device, dtype: torch.dtype
) -> Parity | list[str]:
    r"""Compares outputs and the gradients of all inputs with those of the reference in float64 on
    the same (rounded) numbers, or says why the implementation does not run on them.

    Args:
        case (OpCase): The operation and its arguments.
        entry (Implementation): The implementation.
        device (torch.device): Where it runs; the reference runs on a CPU.
        dtype (torch.dtype): In which dtype it runs.
    """
    given = {name: _moved(value, device, dtype) for name, value in case.arguments.items()}
    reasons = entry.reasons_against(*given.values(), *case.asked)
    if reasons:
        return reasons
    exact = {name: _moved(value, "cpu", torch.float64) for name, value in given.items()}
    reference = next(e for e in implementations_of(case.op) if e.name == "reference")
    right = _outputs_and_gradients(reference, exact, case.outputs, dtype)
    found = _outputs_and_gradients(entry, given, case.outputs, dtype)
    return parity(found, right, TOLERANCES[dtype])


def scan_op_case(
    rows: int, steps: int, channels: int = 33, states: int = 16, stateful: bool = False
) -> OpCase:
    r"""The selective scan; with a state before, a mask and the state after if :obj:`stateful`."""
    draw = _drawer()
    arguments: Arguments = {
        "u": draw(rows, steps, channels),
        "delta": draw(rows, steps, channels),
        "A": -torch.rand(channels, states, dtype=torch.float64) - 0.1,
        "B": draw(rows, steps, states),
        "C": draw(rows, steps, states),
        "D": draw(channels),
        "z": draw(rows, steps, channels),
        "delta_bias": draw(channels) - 2,
        "delta_softplus": True,
        "initial_state": draw(rows, channels, states) if stateful else None,
        "mask": draw(rows, steps) > -1 if stateful else None,
    }
    sizes = f"{rows} rows, {steps} steps, {channels} channels, {states} states"
    sizes += ", stateful" * stateful
    return OpCase("selective_scan", sizes, arguments, 1 + stateful, (stateful,))


def conv_op_case(rows: int, steps: int, channels: int = 33, stateful: bool = False) -> OpCase:
    r"""The causal convolution; with inputs before the first step if :obj:`stateful`."""
    draw = _drawer()
    arguments: Arguments = {
        "x": draw(rows, steps, channels),
        "weight": draw(channels, 4),
        "bias": draw(channels),
        "activation": "silu",
        "initial_state": draw(rows, 3, channels) if stateful else None,
    }
    sizes = f"{rows} rows, {steps} steps, {channels} channels"
    return OpCase("causal_conv1d", sizes + ", stateful" * stateful, arguments)


def attention_op_case(
    nodes: int,
    slices: int,
    heads: int = 3,
    channels: int = 17,
    degree: int = 5,
    full: bool = False,
) -> OpCase:
    r"""Graph attention, where some nodes have no edge; with logits of the edges, dropout and the
    attention weights as an output if :obj:`full`."""
    draw = _drawer()
    edge_index = random_graph(nodes, min(degree * nodes, nodes * (nodes - 1)) * 4 // 5)
    edge_index = edge_index[:, edge_index[1] % 7 != 3]
    edges = edge_index.size(1)
    arguments: Arguments = {
        "value": draw(nodes, slices, heads, channels),
        "source_logit": draw(nodes, slices, heads),
        "target_logit": draw(nodes, slices, heads),
        "edge_index": edge_index,
        "edge_logit": draw(edges, 1, heads) if full else None,
        "keep": draw(edges, slices, heads) > -0.5 if full else None,
        "negative_slope": 0.2,
        "scale": 1.5 if full else 1.0,
        "return_attention": full,
    }
    sizes = f"{nodes} nodes, {edges} edges, {slices} slices, {heads} heads, {channels} channels"
    return OpCase("graph_attention", sizes + ", full" * full, arguments, 1 + full)


def odd_op_cases(largest: int = 500, rows: int = 65_537) -> Iterator[OpCase]:
    r"""Sizes at which kernels go wrong: 1, just beside powers of two, long, and many rows.

    Args:
        largest (int, optional): Longer series and larger graphs are left out.
            (default: :obj:`500`)
        rows (int, optional): The many rows. (default: :obj:`65537`)
    """
    for stateful in (False, True):
        for steps in (1, 63, 65, 500):
            if steps <= largest:
                yield scan_op_case(5, steps, stateful=stateful)
                yield conv_op_case(5, steps, stateful=stateful)
        for channels, states in ((1, 1), (65, 3), (130, 16)):
            yield scan_op_case(3, 7, channels, states, stateful)
            yield conv_op_case(3, 2, channels, stateful)
        yield scan_op_case(rows, 2, 3, 2, stateful)
        yield conv_op_case(rows, 2, 3, stateful)
        for nodes, slices in ((1, 1), (63, 1), (65, 3), (500, 12)):
            if nodes <= largest:
                yield attention_op_case(nodes, slices, full=stateful)
        yield attention_op_case(65, 3, 1, 1, full=stateful)
        yield attention_op_case(65, 2, 4, 64, full=stateful)
        yield attention_op_case(9, max(rows // 9, 1), 1, 2, full=stateful)


def _outputs_and_gradients(
    entry: Implementation, arguments: Arguments, count: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    leaves = {
        name: value.requires_grad_()
        for name, value in arguments.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }
    given = entry.run(*arguments.values())
    outputs = list(given[:count]) if isinstance(given, tuple) else [given]
    draw = _drawer(1)
    # Rounded, so that the reference is given the same numbers.
    cotangents = [draw(*y.shape).to(dtype).to(y) for y in outputs]
    grads = torch.autograd.grad(outputs, list(leaves.values()), cotangents)
    found = {f"output {place}": y.detach() for place, y in enumerate(outputs)}
    return found | {f"gradient of {name}": grad for name, grad in zip(leaves, grads)}


def _moved(value: Any, device: torch.device | str, dtype: torch.dtype) -> Any:
    if not isinstance(value, Tensor):
        return value
    value = value.detach().to(device)
    return value.to(dtype) if value.is_floating_point() else value


def _drawer(seed: int = 0) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
