import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses import FakeTensorMode

from pyg_stmamba.benchmark.memory import StorageCounter
from pyg_stmamba.ops import backend, selective_scan
from pyg_stmamba.ops.selective_scan import IMPLEMENTATIONS, example_inputs

ON_CPU = [
    entry.name for entry in IMPLEMENTATIONS if not entry.reasons_against(*example_inputs("cpu"))
]
FASTER = [name for name in ON_CPU if name != "reference"]


def make_inputs(*rows: int, steps: int, channels: int = 5, states: int = 3, dtype=torch.float32):
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype).requires_grad_()

    return {
        "u": draw(*rows, steps, channels),
        "delta": draw(*rows, steps, channels),
        "A": (-torch.rand(channels, states, dtype=dtype) - 0.1).requires_grad_(),
        "B": draw(*rows, steps, states),
        "C": draw(*rows, steps, states),
        "D": draw(channels),
        "z": draw(*rows, steps, channels),
        "delta_bias": draw(channels),
        "initial_state": draw(*rows, channels, states),
    }


def outputs_and_gradients(inputs: dict[str, Tensor], **kwargs) -> list[Tensor]:
    y, state = selective_scan(**inputs, return_last_state=True, **kwargs)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    loss = (y * weights).sum() + state.square().sum()
    return [y, state, *torch.autograd.grad(loss, list(inputs.values()), allow_unused=True)]


def assert_close(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for a, e in zip(actual, expected, strict=True):
        assert (a is None) == (e is None)
        if e is not None:
            assert a.shape == e.shape
            assert a.dtype == e.dtype
            scale = max(1.0, e.abs().max().item() if e.numel() else 0.0)
            torch.testing.assert_close(a / scale, e / scale, atol=tolerance, rtol=0)


def skip_unless_it_runs(name: str, inputs: dict[str, Tensor]) -> None:
    entry = next(entry for entry in IMPLEMENTATIONS if entry.name == name)
    *first, initial_state = inputs.values()
    if reasons := entry.reasons_against(*first, False, initial_state):
        pytest.skip(f"{name}: {reasons}")


def by_hand(u, delta, A, B, C, D, z, delta_bias, h, mask):
    """The equations in numpy, number by number."""
    y = np.zeros_like(u)
    h = h.copy()
    for r in range(u.shape[0]):
        for t in range(u.shape[1]):
            if not mask[r, t]:
                continue
            for d in range(u.shape[2]):
                step = math.log1p(math.exp(delta[r, t, d] + delta_bias[d]))
                for n in range(A.shape[1]):
                    h[r, d, n] *= math.exp(step * A[d, n])
                    h[r, d, n] += step * B[r, t, n] * u[r, t, d]
                    y[r, t, d] += C[r, t, n] * h[r, d, n]
                gate = z[r, t, d] / (1 + math.exp(-z[r, t, d]))
                y[r, t, d] = (y[r, t, d] + D[d] * u[r, t, d]) * gate
    return y, h


@pytest.mark.parametrize("name", ON_CPU)
def test_equations(name):
    inputs = make_inputs(2, steps=20)
    mask = torch.rand(2, 20) > 0.3
    y, state = selective_scan(
        **inputs, mask=mask, delta_softplus=True, return_last_state=True, implementation=name
    )
    arrays = [x.detach().double().numpy() for x in inputs.values()]
    expected_y, expected_state = by_hand(*arrays, mask.numpy())
    np.testing.assert_allclose(y.detach().numpy(), expected_y, atol=1e-5)
    np.testing.assert_allclose(state.detach().numpy(), expected_state, atol=1e-5)


@pytest.mark.parametrize("name", ON_CPU)
def test_against_mambapy(name):
    from mambapy.pscan import pscan

    inputs = make_inputs(3, steps=65)
    inputs = {key: inputs[key] for key in ("u", "delta", "A", "B", "C", "D")}
    u, delta, A, B, C, D = inputs.values()
    step = F.softplus(delta).unsqueeze(-1)
    states = pscan(torch.exp(step * A), step * B.unsqueeze(2) * u.unsqueeze(-1))
    expected = (states @ C.unsqueeze(-1)).squeeze(-1) + D * u
    y = selective_scan(**inputs, delta_softplus=True, implementation=name)
    grads = torch.autograd.grad(y.sin().sum(), list(inputs.values()))
    expected_grads = torch.autograd.grad(expected.sin().sum(), list(inputs.values()))
    assert_close([y, *grads], [expected, *expected_grads], 1e-5)


@pytest.mark.parametrize("name", FASTER)
@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(
    ("rows", "steps", "channels", "states"),
    [((1,), 1, 1, 1), ((3, 2), 63, 5, 4), ((2,), 65, 16, 8), ((65,), 17, 3, 16), ((), 33, 2, 3)],
)
def test_parity(name, softplus, masked, rows, steps, channels, states):
    inputs = make_inputs(*rows, steps=steps, channels=channels, states=states)
    if not softplus:
        inputs["delta"] = inputs["delta"].detach().abs().requires_grad_()
        inputs["delta_bias"] = inputs["delta_bias"].detach().abs().requires_grad_()
    mask = torch.rand(*rows, steps) > 0.3 if masked else None
    ours, expected = (
        outputs_and_gradients(inputs, delta_softplus=softplus, mask=mask, implementation=which)
        for which in (name, "reference")
    )
    assert_close(ours, expected, 2e-5)


@pytest.mark.parametrize("name", FASTER)
def test_parity_in_float64(name):
    inputs = make_inputs(3, steps=35, dtype=torch.float64)
    skip_unless_it_runs(name, inputs)
    ours, expected = (
        outputs_and_gradients(inputs, delta_softplus=True, implementation=which)
        for which in (name, "reference")
    )
    assert_close(ours, expected, 1e-12)


@pytest.mark.parametrize("name", FASTER)
@pytest.mark.parametrize("absent", ["D", "z", "delta_bias", "initial_state"])
def test_parity_without(name, absent):
    inputs = make_inputs(4, steps=19)
    del inputs[absent]
    ours, expected = (
        outputs_and_gradients(inputs, delta_softplus=True, implementation=which)
        for which in (name, "reference")
    )
    assert_close(ours, expected, 1e-5)


@pytest.mark.parametrize("name", ON_CPU)
def test_only_the_last_state_is_used(name):
    inputs = make_inputs(4, steps=19)
    grads = []
    for which in (name, "reference"):
        _, state = selective_scan(**inputs, return_last_state=True, implementation=which)
        grads.append(torch.autograd.grad(state.sum(), (inputs["u"], inputs["initial_state"])))
    assert_close(grads[0], grads[1], 1e-5)


@pytest.mark.parametrize("name", ON_CPU)
def test_gradcheck(name):
    inputs = make_inputs(2, steps=18, channels=2, states=2, dtype=torch.float64)
    skip_unless_it_runs(name, inputs)
    mask = torch.rand(2, 18) > 0.2

    def run(*tensors):
        return selective_scan(
            **dict(zip(inputs, tensors)),
            delta_softplus=True,
            mask=mask,
            return_last_state=True,
            implementation=name,
        )

    assert torch.autograd.gradcheck(run, tuple(inputs.values()), fast_mode=True)


@pytest.mark.parametrize("name", ON_CPU)
def test_chunks_are_the_whole(name):
    inputs = make_inputs(3, steps=50)
    whole, last = selective_scan(
        **inputs, delta_softplus=True, return_last_state=True, implementation=name
    )
    state, parts = inputs["initial_state"], []
    for steps in (slice(0, 1), slice(1, 33), slice(33, 50)):
        over_time = ("u", "delta", "B", "C", "z")
        part = {k: v[:, steps] if k in over_time else v for k, v in inputs.items()}
        y, state = selective_scan(
            **{**part, "initial_state": state},
            delta_softplus=True,
            return_last_state=True,
            implementation=name,
        )
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state, last, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize("softplus", [True, False])
def test_masked_steps_have_no_influence(name, softplus):
    inputs = make_inputs(4, steps=20)
    mask = torch.rand(4, 20) > 0.4
    mask[2] = False
    arguments = {"delta_softplus": softplus, "mask": mask, "implementation": name}
    clean = outputs_and_gradients(inputs, **arguments)
    for key in ("u", "delta", "B", "C", "z"):
        inputs[key] = inputs[key].detach().masked_fill(~mask[..., None], math.nan).requires_grad_()
    assert_close(outputs_and_gradients(inputs, **arguments), clean, 0.0)
    assert (clean[0][~mask] == 0).all()
    assert torch.equal(clean[1][2], inputs["initial_state"][2])
    for gradient, key in zip(clean[2:], inputs):
        if key in ("u", "delta", "B", "C", "z"):
            assert (gradient[~mask] == 0).all()


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize(("rows", "steps"), [((0,), 5), ((3,), 0), ((0, 2), 0)])
def test_empty(name, rows, steps):
    inputs = make_inputs(*rows, steps=steps)
    skip_unless_it_runs(name, inputs)
    y, state, *gradients = outputs_and_gradients(inputs, implementation=name)
    assert y.shape == (*rows, steps, 5)
    torch.testing.assert_close(state, inputs["initial_state"])
    assert all(g.shape == x.shape for g, x in zip(gradients, inputs.values()) if g is not None)


def test_empty_by_default():
    y, state = selective_scan(**make_inputs(2, steps=0), return_last_state=True)
    assert y.shape == (2, 0, 5)
    assert state.shape == (2, 5, 3)


@pytest.mark.parametrize("name", FASTER)
def test_very_many_rows(name):
    torch.manual_seed(2)  # whose sums do not happen to cancel
    inputs = make_inputs(70_000, steps=2, channels=1, states=2)
    exact = {key: value.detach().double().requires_grad_() for key, value in inputs.items()}
    ours = outputs_and_gradients(inputs, delta_softplus=True, implementation=name)
    right = outputs_and_gradients(exact, delta_softplus=True, implementation="reference")
    # Sums over all rows too; one float32 term after the other would be off by 8e-6.
    assert_close(ours, [value.float() for value in right], 2e-6)


@pytest.mark.parametrize("name", ON_CPU)
def test_inputs_need_not_be_contiguous_and_stay_unchanged(name):
    inputs = {k: v.detach() for k, v in make_inputs(4, 3, steps=20).items()}
    expected = selective_scan(**inputs, delta_softplus=True, implementation=name)
    strided = {k: v.t().contiguous().t() if v.dim() < 3 else v for k, v in inputs.items()}
    strided["B"] = inputs["B"].transpose(0, 1).contiguous().transpose(0, 1)
    strided["u"] = torch.cat([inputs["u"], inputs["z"]], -1).chunk(2, -1)[0]
    before = {k: v.clone() for k, v in strided.items()}
    y = selective_scan(**strided, delta_softplus=True, implementation=name)
    torch.testing.assert_close(y, expected, atol=1e-6, rtol=1e-6)
    assert all(torch.equal(before[k], strided[k]) for k in before)


@pytest.mark.parametrize("name", ON_CPU)
def test_bfloat16_keeps_a_float32_state(name):
    inputs = make_inputs(3, steps=40)
    rounded = {
        k: v.detach().bfloat16().requires_grad_() if k not in ("A", "D", "delta_bias") else v
        for k, v in inputs.items()
    }
    y, state = selective_scan(
        **rounded, delta_softplus=True, return_last_state=True, implementation=name
    )
    expected, expected_state = selective_scan(
        **{k: v.float() for k, v in rounded.items()},
        delta_softplus=True,
        return_last_state=True,
        implementation="reference",
    )
    assert y.dtype == torch.bfloat16
    assert state.dtype == torch.float32
    torch.testing.assert_close(state, expected_state, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(y, expected.bfloat16(), atol=1e-2, rtol=1e-2)
    gradients = torch.autograd.grad(y.float().sum(), list(rounded.values()))
    assert [g.dtype for g in gradients] == [x.dtype for x in rounded.values()]


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize(("channels", "states"), [(16, 4), (33, 1), (7, 5)])
def test_bfloat16_gradients(name, channels, states):
    inputs = {
        key: x.detach().bfloat16().requires_grad_()
        for key, x in make_inputs(3, steps=40, channels=channels, states=states).items()
    }
    wide = {key: x.detach().double().requires_grad_() for key, x in inputs.items()}
    ours = outputs_and_gradients(inputs, delta_softplus=True, implementation=name)
    right = outputs_and_gradients(wide, delta_softplus=True, implementation="reference")
    assert_close([x.double() for x in ours], right, 2e-2)


@pytest.mark.skipif("numba" not in ON_CPU, reason="there is no kernel for this CPU")
def test_halves_of_a_tensor_are_read_where_they_lie():
    whole = torch.randn(20, 30, 64)
    inputs = {k: x.detach() for k, x in make_inputs(20, steps=30, channels=32).items()}
    inputs["u"], inputs["z"] = whole.chunk(2, -1)
    with StorageCounter() as memory:
        y = selective_scan(**inputs, delta_softplus=True, implementation="numba")
    # Copies of both would be twice as large as the output.
    assert memory.peak < 1.5 * y.numel() * 4


@pytest.mark.parametrize("name", ON_CPU)
def test_autocast_changes_nothing(name):
    inputs = make_inputs(3, steps=20)
    expected = outputs_and_gradients(inputs, delta_softplus=True, implementation=name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = outputs_and_gradients(inputs, delta_softplus=True, implementation=name)
    assert_close(actual, expected, 0.0)


@pytest.mark.parametrize("name", ["torch", None])
def test_compile(name):
    inputs = make_inputs(3, steps=20)

    def run(**tensors):
        return selective_scan(
            **tensors, delta_softplus=True, return_last_state=True, implementation=name
        )

    results = []
    for function in (torch.compile(run, fullgraph=True, backend="aot_eager"), run):
        y, state = function(**inputs)
        loss = y.sin().sum() + state.sum()
        results.append([y, state, *torch.autograd.grad(loss, list(inputs.values()))])
    assert_close(*results, 1e-6)


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("name", ["torch", pytest.param(None, marks=pytest.mark.choice)])
def test_export(name, trainable):
    class Scan(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.A = torch.nn.Parameter(-torch.ones(5, 3), requires_grad=trainable)

        def forward(self, u, B):
            return selective_scan(
                u,
                u,
                self.A,
                B,
                B,
                delta_softplus=True,
                return_last_state=True,
                implementation=name,
            )

    inputs = make_inputs(3, steps=20)
    arguments = tuple(inputs[k].detach() for k in ("u", "B"))
    rows, steps = torch.export.Dim("rows"), torch.export.Dim("steps")
    shapes = ({0: rows, 1: steps}, {0: rows, 1: steps})
    program = torch.export.export(Scan(), arguments, dynamic_shapes=shapes)
    scans = [n for n in program.graph.nodes if "pyg_stmamba" in str(n.target)]
    assert len(scans) == 1
    longer = make_inputs(7, steps=35)
    arguments = tuple(longer[k].detach() for k in ("u", "B"))
    for actual, expected in zip(program.module()(*arguments), Scan()(*arguments)):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("name", ["torch"])
def test_opcheck(name):
    inputs = make_inputs(2, steps=18, channels=2, states=2)
    operation = torch.ops.pyg_stmamba.scan_forward.default
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operation, (*inputs.values(), True, True), test_utils=checks)


def test_memory_grows_like_the_inputs():
    peaks = []
    lengths = [256, 1024, 8192]
    for steps in lengths:
        inputs = make_inputs(2, steps=steps, channels=8, states=16)
        with StorageCounter() as memory:
            selective_scan(**inputs, delta_softplus=True, implementation="torch").sum().backward()
        peaks.append(memory.peak)
    slope = np.polyfit(np.log(lengths), np.log(peaks), 1)[0]
    assert slope <= 1.1
    # Far below one tensor of steps x channels x states.
    assert peaks[-1] < 2 * 8192 * 8 * 16 * 4


def test_without_gradients_no_chunk_is_kept():
    inputs = make_inputs(2, steps=512, channels=8, states=16)
    peaks = []
    for keep in (True, False):
        with StorageCounter() as memory, torch.set_grad_enabled(keep):
            selective_scan(**inputs, delta_softplus=True, implementation="torch")
        peaks.append(memory.peak)
    assert peaks[0] - peaks[1] >= 0.9 * (512 // 16) * 2 * 8 * 16 * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"A": torch.ones(4, 3)}, r"A must be \[D, N\] with D = 5, got \[4, 3\]"),
        ({"B": torch.ones(2, 6, 4)}, r"B must be \[2, 6, 3\]"),
        ({"z": torch.ones(2, 6, 4)}, r"z must be \[2, 6, 5\]"),
        ({"mask": torch.ones(2, 6)}, r"mask must be torch.bool"),
        ({"mask": torch.ones(6, dtype=torch.bool)}, r"mask must be \[2, 6\]"),
        ({"u": torch.ones(2, 6, 5, dtype=torch.int64)}, r"u must be floating point"),
        ({"initial_state": torch.ones(5, 3)}, r"initial_state must be \[2, 5, 3\]"),
        ({"implementation": "cuda"}, r"unknown implementation 'cuda'.*'mamba_ssm'.*'reference'"),
        ({"implementation": "mamba_ssm"}, r"cannot run here.*it takes no initial state.*CUDA"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        selective_scan(**{**make_inputs(2, steps=6), **change})


def selective_scan_fn(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    z=None,
    delta_bias=None,
    delta_softplus=False,
    return_last_state=False,
):
    """Stands in for mamba-ssm's function: same arguments, time last, rows first."""
    assert u.dim() == 3
    assert B.shape == C.shape == (u.shape[0], A.shape[1], u.shape[2])
    assert all(x.is_contiguous() for x in (u, delta, B, C))
    assert {x.dtype for x in (delta, B, C)} == {u.dtype}
    assert A.dtype == torch.float32
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    delta = F.softplus(delta) if delta_softplus else delta
    state, outputs = torch.zeros(u.shape[0], *A.shape), []
    for t in range(u.shape[2]):
        decay = torch.exp(torch.einsum("bd,dn->bdn", delta[..., t], A))
        state = decay * state + torch.einsum("bd,bn->bdn", delta[..., t] * u[..., t], B[..., t])
        outputs.append(torch.einsum("bdn,bn->bd", state, C[..., t]))
    y = torch.stack(outputs, dim=2)
    y = y if D is None else y + D[:, None] * u
    y = (y if z is None else y * F.silu(z)).to(u.dtype)
    return (y, state) if return_last_state else y


@pytest.fixture
def mamba_ssm(monkeypatch):
    name = "mamba_ssm.ops.selective_scan_interface"
    module = SimpleNamespace(selective_scan_fn=selective_scan_fn, selective_scan_cuda=object())
    monkeypatch.setitem(sys.modules, name, module)
    backend._first_import_failure.cache_clear()
    yield module
    backend._first_import_failure.cache_clear()


@pytest.mark.parametrize("rows", [(), (3,), (2, 3)])
@pytest.mark.parametrize("full", [True, False])
def test_mamba_ssm_stand_in(mamba_ssm, rows, full):
    inputs = make_inputs(*rows, steps=9)
    del inputs["initial_state"]
    if not full:
        inputs = {k: inputs[k] for k in ("u", "delta", "A", "B", "C")}
    entry = IMPLEMENTATIONS[0]
    assert entry.name == "mamba_ssm"
    y, state = entry.run(**inputs, delta_softplus=True)
    gradients = torch.autograd.grad(y.sin().sum(), list(inputs.values()))
    expected, expected_state = selective_scan(
        **inputs, delta_softplus=True, return_last_state=True, implementation="reference"
    )
    expected_gradients = torch.autograd.grad(expected.sin().sum(), list(inputs.values()))
    assert_close([y, state, *gradients], [expected, expected_state, *expected_gradients], 1e-5)


def cuda_inputs(dtype=torch.float32, states=3):
    u = torch.empty(2, 6, 5, device="cuda", dtype=dtype)
    A, B = torch.empty(5, states, device="cuda"), torch.empty(2, 6, states, device="cuda")
    return {"u": u, "delta": u, "A": A, "B": B, "C": B}


@pytest.mark.choice
def test_mamba_ssm_is_chosen_on_a_gpu(mamba_ssm):
    entry = IMPLEMENTATIONS[0]
    with FakeTensorMode():
        inputs = cuda_inputs()
        assert entry.reasons_against(**inputs) == []
        chosen = backend.choose("selective_scan", IMPLEMENTATIONS, None, *inputs.values())
        assert chosen.name == "mamba_ssm"
        mask = torch.empty(2, 6, device="cuda", dtype=torch.bool)
        assert "mask" in entry.reasons_against(**inputs, mask=mask)[0]
        assert "initial" in entry.reasons_against(**inputs, initial_state=inputs["A"])[0]
        assert "257" in entry.reasons_against(**cuda_inputs(states=257))[0]
        assert "float64" in entry.reasons_against(**cuda_inputs(torch.float64))[0]
        inputs["u"].requires_grad_()
        assert "gradient" in entry.reasons_against(**inputs, return_last_state=True)[0]
    del mamba_ssm.selective_scan_cuda
    backend._first_import_failure.cache_clear()
    with FakeTensorMode():
        assert "no compiled selective_scan_cuda" in entry.reasons_against(**cuda_inputs())[0]
