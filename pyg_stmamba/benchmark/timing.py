r"""How long computations take, side by side."""

import statistics
import time
from collections.abc import Callable, Sequence

import torch

Run = Callable[[], object]


def interleaved_medians(runs: Sequence[Run], device: torch.device, repeats: int) -> list[float]:
    r"""Runs all in turn, over and over, and returns the median seconds of each.

    What else the machine does, and how hot it gets, then falls on all alike. Each runs twice in its
    turn, and the second run counts, as in a training loop: the first finds the caches and the
    memory of the process as another has left them.

    Args:
        runs (Sequence[callable]): The computations.
        device (torch.device): Where they run.
        repeats (int): How often each runs.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats} must be at least 1")
    taken: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, times in zip(runs, taken):
            run()
            times.append(seconds(run, device))
    return [statistics.median(times) for times in taken]


def seconds(run: Run, device: torch.device) -> float:
    r"""Returns the seconds of one run: by the wall clock on a CPU, between two events on a GPU
    (from an idle device to the last kernel, with what launching costs)."""
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def kernel_seconds(run: Run, device: torch.device, repeats: int = 20) -> float:
    r"""Returns the seconds of one run without what launching costs: of replays of a CUDA graph.

    On a CPU it is the median of :func:`seconds`.
    """
    run()
    if device.type != "cuda":
        return interleaved_medians([run], device, repeats)[0]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    graph.replay()
    return interleaved_medians([graph.replay], device, repeats)[0]
