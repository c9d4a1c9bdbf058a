r"""Which implementation of an operation runs, and why not the others."""

import functools
import importlib
import textwrap
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

OPS = (
    "selective_scan",
    "causal_conv1d",
    "graph_attention",
    "linear_attention",
    "flash_attention",
    "xformers_attention",
)


class Implementation(NamedTuple):
    r"""One way to compute an operation; :obj:`reasons_against` takes the arguments of :obj:`run`
    (and what else the operation was asked for) and lists why it cannot run on them; an empty list
    means that it can.
    """

    name: str
    run: Callable[..., Any]
    reasons_against: Callable[..., list[str]]


class Availability(NamedTuple):
    r"""One line of :func:`implementations`."""

    op: str
    name: str
    device: str
    available: bool
    reasons: tuple[str, ...]


def no_reasons(*args: Any, **kwargs: Any) -> list[str]:
    r"""The answer of an implementation that runs on every input."""
    return []


def choose(
    op: str,
    table: tuple[Implementation, ...],
    implementation: str | None,
    *args: Any,
    **kwargs: Any,
) -> Implementation:
    r"""Returns the implementation named, or else the first of the table without a reason against
    it.

    The choice depends on the arguments alone. The implementation called :obj:`"reference"` warns
    once per operation when it runs on a GPU, with the reasons against all that stand before it. An
    implementation passed over because it failed its trial is warned of once.

    Args:
        op (str): The name of the operation, for messages.
        table (tuple of Implementation): The implementations, best first.
        implementation (str or None): The name asked for, or :obj:`None` for the best.
        *args: The arguments of the operation.
        **kwargs: The keyword arguments of the operation.

    Raises:
        ValueError: If the name is unknown, or there is a reason against the implementation named.
    """
    if implementation is not None:
        chosen = _named(op, table, implementation)
        reasons = chosen.reasons_against(*args, **kwargs)
        if reasons:
            raise ValueError(
                f"implementation={implementation!r} of {op} cannot run here: {'; '.join(reasons)}"
            )
    else:
        chosen = _first(op, table, args, kwargs)
    if chosen.name == "reference" and args[0].is_cuda and not torch.compiler.is_compiling():
        _warn_once(op, table, args, kwargs)
    return chosen


def check_floating_point(**tensors: Tensor | None) -> None:
    r"""Checks that all tensors given are floating point.

    Raises:
        ValueError: If one is not.
    """
    for name, tensor in tensors.items():
        if tensor is not None and not tensor.is_floating_point():
            raise ValueError(f"{name} must be floating point, got {tensor.dtype}")


def check_devices(**tensors: Tensor | None) -> None:
    r"""Checks that all tensors given are on the device of the first.

    Raises:
        ValueError: If one is not.
    """
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    first = next(iter(given))
    device = given[first].device
    for name, tensor in given.items():
        if tensor.device != device:
            raise ValueError(f"{name} must be on {device} like {first}, got {tensor.device}")


def missing(module: str, function: str | None = None) -> list[str]:
    r"""Lists why the optional :obj:`module`, or :obj:`function` in it, is not there."""
    reason = _import_failure(module, function)
    return [reason] if reason else []


def failed_trial(op: str, name: str, module: str, x: Tensor) -> list[str]:
    r"""Lists why the implementation :obj:`name` of :obj:`op`, which needs :obj:`module`, failed on
    small tensors of the dtype and device of :obj:`x`.

    It is tried once in a process, forward and backward, so that what cannot be imported or
    compiled on a platform is known before anything depends on it.
    """
    if torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling():
        # A trial would compile what torch.export puts in place of max, min and pow as it traces.
        return [_failed[op, name]] if (op, name) in _failed else missing(module)
    reason = _trial_failure(op, name, x.dtype, x.device)
    return [reason] if reason else []


def reasons_against_compiled(
    tensors: tuple[Tensor | None, ...], module: str, function: str
) -> list[str]:
    r"""Lists what speaks against a CUDA extension that is not a torch custom op."""
    reasons = []
    given = [tensor for tensor in tensors if tensor is not None]
    if not all(tensor.is_cuda for tensor in given):
        devices = ", ".join(sorted({str(tensor.device) for tensor in given}))
        reasons.append(f"it needs CUDA tensors, these are on {devices}")
    if any(tensor.dtype == torch.float64 for tensor in given):
        reasons.append("it has no float64")
    if torch.compiler.is_compiling():
        reasons.append("torch.compile and torch.export cannot see into it")
    return reasons or missing(module, function)


def implementations() -> list[Availability]:
    r"""Lists every implementation of every operation on the devices of this machine."""
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    lines = []
    for op in OPS:
        module = importlib.import_module(f"pyg_stmamba.ops.{op}")
        for device in devices:
            arguments = module.example_inputs(device)
            for entry in module.IMPLEMENTATIONS:
                reasons = tuple(entry.reasons_against(*arguments))
                lines.append(Availability(op, entry.name, device, not reasons, reasons))
    return lines


def _named(op: str, table: tuple[Implementation, ...], name: str) -> Implementation:
    for entry in table:
        if entry.name == name:
            return entry
    choices = ", ".join(repr(entry.name) for entry in table)
    raise ValueError(f"unknown implementation {name!r} of {op}; the choices are {choices}")


def _first(
    op: str, table: tuple[Implementation, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Implementation:
    for entry in table:
        if not entry.reasons_against(*args, **kwargs):
            return entry
        _warn_of_failed_trial(op, entry.name)
    raise ValueError(f"no implementation of {op} runs here:\n{_reasons(table, args, kwargs)}")


def _reasons(
    table: tuple[Implementation, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> str:
    return "\n".join(
        f"  {entry.name}: {'; '.join(entry.reasons_against(*args, **kwargs)) or 'runs'}"
        for entry in table
    )


_warned: set[str] = set()


def _warn_once(
    op: str, table: tuple[Implementation, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    if op in _warned:
        return
    _warned.add(op)
    better = table[: [entry.name for entry in table].index("reference")]
    warnings.warn(
        f"{op} runs its slow reference on {args[0].device}:\n{_reasons(better, args, kwargs)}",
        stacklevel=4,
    )


@torch.compiler.assume_constant_result
def _import_failure(module: str, function: str | None) -> str:
    return _first_import_failure(module, function)


@functools.cache
def _first_import_failure(module: str, function: str | None) -> str:
    # A broken CUDA extension raises anything from ImportError to OSError and RuntimeError.
    try:
        found = importlib.import_module(module)
    except Exception as error:
        return f"{module} cannot be imported ({type(error).__name__}: {error})"
    if function is not None and getattr(found, function, None) is None:
        return f"{module} has no compiled {function}"
    return ""


@torch.compiler.assume_constant_result
def _trial_failure(op: str, name: str, dtype: torch.dtype, device: torch.device) -> str:
    return _first_trial_failure(op, name, dtype, device)


# Of each operation and implementation that failed its trial, the reason.
_failed: dict[tuple[str, str], str] = {}


@functools.cache
def _first_trial_failure(op: str, name: str, dtype: torch.dtype, device: torch.device) -> str:
    try:
        # In a thread of its own none of the caller's modes holds, be it inference or a tracer's.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(_try, op, name, dtype, device).result()
    except ModuleNotFoundError as error:
        return f"it cannot be imported ({error})"
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        # A compiler raises anything, in many lines.
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 500)
        _failed[op, name] = f"it fails on this machine ({reason})"
        return _failed[op, name]
    return ""


def _try(op: str, name: str, dtype: torch.dtype, device: torch.device) -> None:
    module = importlib.import_module(f"{__package__}.{op}")
    run = next(entry.run for entry in module.IMPLEMENTATIONS if entry.name == name)
    inputs = [
        x.detach().to(dtype).requires_grad_() if x.is_floating_point() else x
        for x in module.example_inputs(device)
    ]
    y = run(*inputs)
    (y[0] if isinstance(y, tuple) else y).sum().backward()


@torch.compiler.assume_constant_result
def _warn_of_failed_trial(op: str, name: str) -> None:
    reason = _failed.get((op, name))
    if reason is None or reason in _warned:
        return
    _warned.add(reason)
    warnings.warn(f"{op} runs without its {name} implementation: {reason}", stacklevel=5)
