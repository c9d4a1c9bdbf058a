import os
import threading
import warnings

import pytest
import torch

from pyg_stmamba.ops.kernels import thread_pool
from pyg_stmamba.ops.kernels.thread_pool import over_ranges


@pytest.fixture(params=["openmp", "pool"])
def two_threads(request, monkeypatch):
    if request.param == "pool":
        monkeypatch.setattr(thread_pool, "_openmp", lambda: None)
    elif thread_pool._openmp() is None:
        pytest.skip("torch has no OpenMP of GNU's here")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_every_number_is_worked_on_once(two_threads, count):
    parts, seen, threads = [], [], set()

    def work(part, start, stop):
        parts.append(part)
        seen.extend(range(start, stop))
        threads.add(threading.get_ident())

    over_ranges(count, work)
    assert sorted(seen) == list(range(count))
    assert sorted(parts) == list(range(min(2, max(1, count))))
    assert len(threads) == len(parts)


def test_openmp_gives_fewer_threads_than_asked_for():
    seen = []
    thread_pool._over_openmp(lambda region, data, parts, flags: region(data), 3, seen.append)
    assert seen == [0, 1, 2]


def test_several_callers_at_once(two_threads):
    sums = [0] * 4

    def call(caller):
        found = []
        for _ in range(50):
            over_ranges(10, lambda part, start, stop: found.extend(range(start, stop)))
        sums[caller] = sum(found)

    callers = [threading.Thread(target=call, args=(caller,)) for caller in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert sums == [50 * 45] * 4


def test_an_error_reaches_the_caller(two_threads):
    def work(part, start, stop):
        if part == 1:
            raise ValueError("in the other thread")

    with pytest.raises(ValueError, match="in the other thread"):
        over_ranges(4, work)


def test_works_in_a_forked_child(two_threads):
    over_ranges(2, lambda *_: None)  # the parent has its threads already
    with warnings.catch_warnings():
        # From Python 3.12 on a fork with threads warns.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        seen = []
        over_ranges(2, lambda part, start, stop: seen.append(part))
        os._exit(0 if sorted(seen) == [0, 1] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
