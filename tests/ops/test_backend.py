import sys
import warnings

import pytest
import torch
from torch._subclasses import FakeTensorMode

from pyg_stmamba.ops import backend, implementations
from pyg_stmamba.ops.backend import Implementation, choose, missing, no_reasons


def needs_float64(x, *others):
    return [] if x.dtype == torch.float64 else [f"it needs float64, got {x.dtype}"]


def needs_rows(x, *others):
    return [] if x.size(0) > 1 else ["it needs rows", "two of them"]


TABLE = (
    Implementation("exact", torch.neg, needs_float64),
    Implementation("fast", torch.neg, needs_rows),
    Implementation("reference", torch.neg, no_reasons),
)


@pytest.fixture(autouse=True)
def _nobody_was_warned():
    backend._warned.clear()
    yield
    backend._warned.clear()


def test_the_first_without_a_reason_runs():
    assert choose("op", TABLE, None, torch.ones(2, dtype=torch.float64)).name == "exact"
    assert choose("op", TABLE, None, torch.ones(2)).name == "fast"
    assert choose("op", TABLE, None, torch.ones(1)).name == "reference"


def test_a_name_runs_or_says_why_not():
    assert choose("op", TABLE, "reference", torch.ones(2)).name == "reference"
    message = "'fast' of op cannot run here: it needs rows; two of them"
    with pytest.raises(ValueError, match=message):
        choose("op", TABLE, "fast", torch.ones(1))


def test_an_unknown_name_lists_the_choices():
    with pytest.raises(ValueError, match="'slow' of op; the choices are 'exact', 'fast', 'ref"):
        choose("op", TABLE, "slow", torch.ones(1))


def test_nothing_runs():
    with pytest.raises(ValueError, match=r"no implementation of op runs here:\n  exact: it needs"):
        choose("op", TABLE[:1], None, torch.ones(1))


def test_the_reference_on_a_gpu_warns_once():
    with FakeTensorMode():
        x = torch.empty(1, device="cuda")
        with pytest.warns(UserWarning, match=r"reference on cuda:0:\n  exact: .*\n  fast: .*two"):
            choose("op", TABLE, None, x)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            choose("op", TABLE, None, x)
        with pytest.warns(UserWarning, match="another"):
            choose("another", TABLE, None, x)


def test_other_implementations_are_silent_and_so_is_a_cpu():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choose("op", TABLE, None, torch.ones(1))
        with FakeTensorMode():
            choose("op", TABLE, None, torch.empty(2, device="cuda"))


def test_missing():
    backend._first_import_failure.cache_clear()
    assert missing("math", "sqrt") == []
    assert missing("math") == []
    assert missing("math", "wings") == ["math has no compiled wings"]
    assert "ModuleNotFoundError" in missing("no_such_package_at_all", "f")[0]


def test_a_broken_extension_is_a_reason_not_a_crash(tmp_path, monkeypatch):
    (tmp_path / "broken_extension.py").write_text("raise OSError('libcudart.so.99: not found')")
    monkeypatch.syspath_prepend(tmp_path)
    backend._first_import_failure.cache_clear()
    assert "OSError: libcudart.so.99" in missing("broken_extension", "f")[0]
    assert "broken_extension" not in sys.modules


def test_implementations():
    lines = implementations()
    assert {line.op for line in lines} == {"selective_scan", "causal_conv1d", "graph_attention"}
    on_cpu = {(line.op, line.name): line for line in lines if line.device == "cpu"}
    for op in ("selective_scan", "causal_conv1d", "graph_attention"):
        assert on_cpu[op, "torch"].available
        assert on_cpu[op, "reference"].available
    assert not on_cpu["selective_scan", "mamba_ssm"].available
    assert "CUDA" in on_cpu["selective_scan", "mamba_ssm"].reasons[0]
    assert all(line.available == (not line.reasons) for line in lines)


def test_compile():
    def run(x):
        return choose("op", TABLE, None, x).run(x) + len(missing("no_such_package_at_all"))

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(torch.ones(2)), torch.zeros(2))
