r"""Threads for kernels that release the interpreter lock.

They are those that torch's own operations run on, where its OpenMP can be called from outside
(GNU's). Its idle threads wait in a loop for some milliseconds, and with threads of our own beside
them there would be more at work than processors. Elsewhere, and in a forked child, where OpenMP
would wait forever for threads that are no longer there, a pool serves.
"""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch

_REGION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def over_ranges(count: int, work: Callable[[int, int, int], None]) -> None:
    r"""Calls :obj:`work(part, start, stop)` for about equal parts of :obj:`range(count)`, as many
    as :func:`torch.get_num_threads` says, at the same time."""
    parts = max(1, min(torch.get_num_threads(), count))

    def work_on(part: int) -> None:
        work(part, count * part // parts, count * (part + 1) // parts)

    if parts == 1:
        work_on(0)
    elif (parallel := None if _forked else _openmp()) is not None:
        _over_openmp(parallel, parts, work_on)
    else:
        jobs = [_pool().submit(work_on, part) for part in range(1, parts)]
        work_on(0)
        for job in jobs:
            job.result()


def _over_openmp(parallel: Any, parts: int, work_on: Callable[[int], None]) -> None:
    waiting, errors = list(range(parts)), []

    def take_one(_: int | None = None) -> None:
        try:
            work_on(waiting.pop(0))
        except BaseException as error:  # which could not pass through OpenMP
            errors.append(error)

    parallel(_REGION(take_one), None, parts, 0)
    # OpenMP may have given fewer threads than asked for.
    while waiting and not errors:
        take_one()
    if errors:
        raise errors[0]


@lru_cache(maxsize=1)
def _openmp() -> Any:
    r"""What GNU's compilers call for a parallel region, in the library that torch has loaded."""
    try:
        parallel = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (OSError, AttributeError):
        return None
    parallel.argtypes = (_REGION, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    parallel.restype = None
    return parallel


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="pyg_stmamba")


_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True
    _pool.cache_clear()


os.register_at_fork(after_in_child=_after_fork)
