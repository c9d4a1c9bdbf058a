from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any


def in_processes(
    work: Callable[..., object], jobs: Sequence[tuple[Any, ...]], workers: int
) -> Iterator[tuple[int, int]]:
    r"""Does jobs in processes of their own, some at the same time, and yields the number and the
    exit code of each when it ends. Those that still run when the iterator is closed, or is left by
    an exception, are ended.

    A job for which memory runs out takes no other one with it, as it would in a pool.

    Args:
        work (callable): What each process calls with the arguments of its job; a function of a
            module, which the new process imports.
        jobs (Sequence[tuple]): The arguments of each job.
        workers (int): How many run at the same time.
    """
    # A forked child would wait for threads of torch that are not there.
    context = multiprocessing.get_context("spawn")
    waiting = list(enumerate(jobs))
    running: dict[Any, tuple[int, Any]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                number, arguments = waiting.pop(0)
                process = context.Process(target=_quietly, args=(work, arguments))
                process.start()
                running[process.sentinel] = (number, process)
            for sentinel in wait(list(running)):
                number, process = running.pop(sentinel)
                process.join()
                yield number, process.exitcode or 0
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


def _quietly(work: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    try:
        work(*arguments)
    except KeyboardInterrupt:
        # Ctrl-C reaches every process of a terminal; the first one tells of it.
        raise SystemExit(130) from None
