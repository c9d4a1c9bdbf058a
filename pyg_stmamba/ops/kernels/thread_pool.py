r"""Threads for kernels that release the interpreter lock."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch


def over_ranges(count: int, work: Callable[[int, int, int], None]) -> None:
    r"""Calls :obj:`work(part, start, stop)` for about equal parts of :obj:`range(count)`, as many
    as :func:`torch.get_num_threads` says, at the same time."""
    parts = max(1, min(torch.get_num_threads(), count))
    bounds = [count * part // parts for part in range(parts + 1)]
    jobs = [_pool().submit(work, part, bounds[part], bounds[part + 1]) for part in range(1, parts)]
    work(0, bounds[0], bounds[1])
    for job in jobs:
        job.result()


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="pyg_stmamba")


# Threads do not survive a fork; a child such as a data loader's worker starts its own.
os.register_at_fork(after_in_child=_pool.cache_clear)
