import pytest

from pyg_stmamba.benchmark.timing import interleaved_medians, kernel_seconds, seconds


def test_runs_take_turns(cpu):
    calls = []
    medians = interleaved_medians([lambda: calls.append("a"), lambda: calls.append("b")], cpu, 3)
    assert calls == ["a", "a", "b", "b"] * 3
    assert len(medians) == 2
    assert all(median >= 0 for median in medians)


def test_the_median_is_that_of_the_times_of_each(cpu, monkeypatch):
    # Durations 1, 3, 9 of the first and 5, 2, 1 of the second, one after the other.
    clock = iter([0, 1, 1, 6, 6, 9, 9, 11, 11, 20, 20, 21])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    assert interleaved_medians([int, str], cpu, 3) == [3, 2]


def test_no_repeats(cpu):
    with pytest.raises(ValueError, match="repeats=0 must be at least 1"):
        interleaved_medians([int], cpu, 0)


def test_times_of_one_run(cpu):
    assert seconds(lambda: sum(range(1000)), cpu) > 0
    assert kernel_seconds(lambda: sum(range(1000)), cpu, 3) > 0
