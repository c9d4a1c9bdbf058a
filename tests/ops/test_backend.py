import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses import FakeTensorMode

from pyg_stmamba.ops import backend, causal_conv1d, implementations
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
def _nothing_was_tried_and_nobody_warned():
    forget()
    yield
    forget()


def forget():
    backend._first_trial_failure.cache_clear()
    backend._failed.clear()
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
    assert {line.op for line in lines} == set(backend.OPS)
    on_cpu = {(line.op, line.name): line for line in lines if line.device == "cpu"}
    for op in ("selective_scan", "causal_conv1d", "graph_attention", "linear_attention"):
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


KERNEL = "pyg_stmamba.ops.kernels.causal_conv1d_cpu"


@pytest.fixture
def kernel():
    pytest.importorskip(KERNEL, reason="the Numba kernel cannot be imported")


class NoImport:
    """Fails where the kernel is looked for, as a missing shared library does."""

    def find_spec(self, name, path=None, target=None):
        if name == KERNEL:
            raise OSError("libllvm.so.99: cannot open\nshared object file")


def refuse(*args):
    raise OSError("libllvm.so.99: cannot open\nshared object file")


@pytest.fixture(params=["import", "forward", "backward"])
def broken_kernel(request, monkeypatch, kernel):
    """The Numba kernel of the convolution fails where the parameter says."""
    if request.param == "import":
        monkeypatch.delitem(sys.modules, KERNEL)
        monkeypatch.setattr(sys, "meta_path", [NoImport(), *sys.meta_path])
    else:
        parts = {"forward": lambda *args: None, "backward": lambda *args: None}
        monkeypatch.setitem(
            sys.modules, KERNEL, SimpleNamespace(**{**parts, request.param: refuse})
        )


def convolved(**options):
    x, weight = torch.randn(3, 6, 5, requires_grad=True), torch.randn(5, 4)
    y = causal_conv1d(x, weight, **options)
    (grad,) = torch.autograd.grad(y.sin().sum(), x)
    return y, grad


@pytest.mark.choice
@pytest.mark.usefixtures("broken_kernel")
def test_a_broken_kernel_is_warned_of_once_and_the_next_implementation_serves():
    reason = r"it fails on this machine \(OSError: libllvm.so.99: cannot open shared object file\)"
    torch.manual_seed(1)
    with pytest.warns(UserWarning, match=f"conv1d runs without its numba impl.*: {reason}") as seen:
        ours = convolved()
    assert len(seen) == 1
    for _ in range(2):
        torch.manual_seed(1)
        for actual, expected in zip(ours, convolved(implementation="reference")):
            torch.testing.assert_close(actual, expected)
        torch.manual_seed(1)
        ours = convolved()


@pytest.mark.usefixtures("broken_kernel")
def test_a_broken_kernel_asked_for_by_name_raises():
    with pytest.raises(ValueError, match="'numba' of causal_conv1d cannot run here: it fails on"):
        convolved(implementation="numba")
    (line,) = (x for x in implementations() if (x.op, x.name) == ("causal_conv1d", "numba"))
    assert "OSError: libllvm" in line.reasons[0]


@pytest.mark.choice
@pytest.mark.usefixtures("broken_kernel")
def test_a_broken_kernel_and_the_compiler():
    torch.compiler.reset()  # what was compiled beside another broken kernel
    compiled = torch.compile(causal_conv1d, fullgraph=True, backend="aot_eager")
    x, weight = torch.randn(3, 6, 5), torch.randn(5, 4)
    with pytest.warns(UserWarning, match="runs without its numba implementation"):
        y = compiled(x, weight)
    torch.testing.assert_close(y, causal_conv1d(x, weight, implementation="reference"))


def test_without_the_package_of_a_kernel_nobody_is_warned(monkeypatch, kernel):
    monkeypatch.delitem(sys.modules, KERNEL)
    monkeypatch.setitem(sys.modules, "numba", None)
    convolved()
    with pytest.raises(ValueError, match=r"it cannot be imported \(import of numba halted"):
        convolved(implementation="numba")


@pytest.mark.choice
def test_no_memory_for_a_trial_is_no_reason_for_good(monkeypatch):
    def no_memory(*args):
        raise MemoryError

    monkeypatch.setitem(sys.modules, KERNEL, SimpleNamespace(forward=no_memory))
    for _ in range(2):
        with pytest.raises(MemoryError):
            convolved()
    assert backend._failed == {}


@pytest.mark.choice
@pytest.mark.usefixtures("kernel")
def test_a_trial_runs_outside_of_all_modes():
    x, weight = torch.ones(3, 6, 5), torch.ones(5, 4)
    with FakeTensorMode() as mode, torch.inference_mode():
        causal_conv1d(mode.from_tensor(x), mode.from_tensor(weight))
    assert backend._first_trial_failure.cache_info().currsize == 1
    assert backend._failed == {}


@pytest.mark.choice
@pytest.mark.usefixtures("kernel")
def test_nothing_is_tried_while_export_replaces_built_in_functions():
    class Convolution(torch.nn.Module):
        def forward(self, x, weight):
            return causal_conv1d(x, weight)

    program = torch.export.export(
        Convolution(), (torch.ones(3, 6, 5), torch.ones(5, 4)), strict=False
    )
    assert "fused_conv_forward" in str(program.graph)
    assert backend._first_trial_failure.cache_info().currsize == 0
