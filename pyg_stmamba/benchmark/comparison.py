r"""Ours beside its peers: parity first, then memory, then time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from .contender import Case, Contender
from .memory import peak_memory
from .parity import Parity, parity
from .timing import interleaved_medians


class Cost(NamedTuple):
    r"""What a computation takes: seconds, and bytes at once."""

    seconds: float
    bytes: int


class Comparison(NamedTuple):
    r"""What came of a case.

    Args:
        name (str): The function.
        shape (str): The sizes.
        ours (Cost, optional): The cost of ours, unless no peer agrees with it.
        peers (dict[str, Cost]): The costs of the peers that agree with ours.
        parity (dict[str, Parity]): How far each peer lies from ours.
        left_out (dict[str, str]): Why other peers did not take part.
    """

    name: str
    shape: str
    ours: Cost | None
    peers: dict[str, Cost]
    parity: dict[str, Parity]
    left_out: dict[str, str]

    @property
    def refused(self) -> dict[str, Parity]:
        r"""The peers that do not agree with ours, of which nothing is timed."""
        return {name: found for name, found in self.parity.items() if not found.holds}


def compare(case: Case, device: torch.device, repeats: int = 5) -> Comparison:
    r"""Compares outputs and gradients, and measures all who agree in turn in one process.

    Args:
        case (Case): The function, ours and the peers.
        device (torch.device): Where it runs.
        repeats (int, optional): How often each is timed, after two runs to warm up.
            (default: :obj:`5`)
    """
    with _full_precision():
        return _compare(case, device, repeats)


def _compare(case: Case, device: torch.device, repeats: int) -> Comparison:
    y = case.ours.step(None)[0]
    cotangent = torch.randn_like(y) if case.train else None
    right = case.ours.results(cotangent)
    found: dict[str, Parity] = {}
    left_out = dict(case.left_out)
    for peer in case.peers:
        try:
            results = peer.results(_cotangent(peer, cotangent))
        except Exception as error:  # what a peer may do wrong is not known beforehand
            left_out[peer.name] = f"it failed: {type(error).__name__}: {_first_line(error)}"
        else:
            found[peer.name] = parity(right, results, case.tolerance)
    del right
    agreeing = [peer for peer in case.peers if peer.name in found and found[peer.name].holds]
    if found and not agreeing:
        return Comparison(case.name, case.shape, None, {}, found, left_out)
    ours, *others = _costs([case.ours, *agreeing], cotangent, device, repeats)
    peers = {peer.name: cost for peer, cost in zip(agreeing, others)}
    return Comparison(case.name, case.shape, ours, peers, found, left_out)


def _costs(
    contenders: list[Contender], cotangent: Tensor | None, device: torch.device, repeats: int
) -> list[Cost]:
    def run_of(contender: Contender):  # type: ignore[no-untyped-def]
        given = _cotangent(contender, cotangent)
        return lambda: contender.step(given)

    runs = [run_of(contender) for contender in contenders]
    peaks = [peak_memory(run, device) for run in runs]
    times = interleaved_medians(runs, device, repeats)
    return [Cost(*cost) for cost in zip(times, peaks)]


def _cotangent(contender: Contender, cotangent: Tensor | None) -> Tensor | None:
    return None if cotangent is None else contender.cotangent(cotangent)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")


@contextmanager
def _full_precision() -> Iterator[None]:
    """Convolutions of float32 would otherwise round their inputs to ten bits on a GPU."""
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before
