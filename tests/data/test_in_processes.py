import multiprocessing
import os
import time

import pytest

from pyg_stmamba.data.in_processes import in_processes


@pytest.mark.slow
def test_each_job_ends_with_its_own_code():
    found = dict(in_processes(os._exit, [(0,), (3,), (0,)], workers=2))
    assert found == {0: 0, 1: 3, 2: 0}
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [1, 2])
def test_so_many_run_at_the_same_time(monkeypatch, workers):
    running, most = 0, []

    class Process:
        """A process that ends when it is waited for."""

        def __init__(self, target, args) -> None:
            self.sentinel, self.exitcode = object(), args[1][0]

        def start(self) -> None:
            nonlocal running
            running += 1
            most.append(running)

        def join(self) -> None:
            nonlocal running
            running -= 1

    class Context:
        def __init__(self, method: str) -> None:
            assert method == "spawn"
            self.Process = Process

    monkeypatch.setattr(multiprocessing, "get_context", Context)
    monkeypatch.setattr("pyg_stmamba.data.in_processes.wait", lambda waiting: waiting[:1])
    assert list(in_processes(print, [(code,) for code in (5, 0, 7)], workers)) == [
        *((0, 5), (1, 0), (2, 7)),
    ]
    assert max(most) == workers
    assert running == 0


@pytest.mark.slow
def test_what_still_runs_is_ended_with_the_iterator():
    jobs = in_processes(time.sleep, [(0,), (600,), (600,)], workers=2)
    assert next(jobs) == (0, 0)
    start = time.monotonic()
    jobs.close()
    assert time.monotonic() - start < 60
    assert not multiprocessing.active_children()
