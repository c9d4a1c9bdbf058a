import importlib

import pytest
import torch

from pyg_stmamba.benchmark.op_parity import check_implementation, scan_op_case
from pyg_stmamba.ops import selective_scan
from pyg_stmamba.ops.selective_scan import IMPLEMENTATIONS

TRITON = next(entry for entry in IMPLEMENTATIONS if entry.name == "triton")


@pytest.fixture
def kernel(triton_device, monkeypatch):
    module = importlib.import_module("pyg_stmamba.ops.kernels.selective_scan_gpu")
    if triton_device == "cpu":
        # The interpreter takes time for every channel, also for those that are not there.
        monkeypatch.setattr(module, "CHANNELS", 4)
    return module


@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize(
    ("rows", "steps", "channels", "states"),
    [(1, 1, 1, 1), (3, 2, 5, 3), (2, 15, 4, 1), (1, 16, 3, 2), (2, 17, 3, 2), (1, 33, 1, 1)],
)
def test_outputs_and_all_gradients(kernel, triton_device, stateful, rows, steps, channels, states):
    case = scan_op_case(rows, steps, channels, states, stateful)
    found = check_implementation(case, TRITON, torch.device(triton_device), torch.float32)
    assert found.holds, str(found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_dtypes(kernel, triton_device, dtype):
    case = scan_op_case(2, 5, 3, 2, stateful=True)
    found = check_implementation(case, TRITON, torch.device(triton_device), dtype)
    assert found.holds, str(found)


@pytest.mark.parametrize("absent", ["D", "z", "delta_bias", "delta_softplus", "initial_state"])
def test_optional_inputs(kernel, triton_device, absent):
    case = scan_op_case(2, 4, 3, 2, stateful=True)
    arguments = dict(case.arguments)
    arguments[absent] = False if absent == "delta_softplus" else None
    if absent == "delta_softplus":
        arguments["delta"] = arguments["delta"].abs()
    case = case._replace(arguments=arguments)
    found = check_implementation(case, TRITON, torch.device(triton_device), torch.float32)
    assert found.holds, str(found)


def test_only_the_last_state_is_used(kernel, triton_device):
    case = scan_op_case(2, 18, 1, 1)
    tensors = {name: x for name, x in case.arguments.items() if isinstance(x, torch.Tensor)}
    results = []
    for name, dtype, device in (
        ("triton", torch.float32, triton_device),
        ("reference", torch.float64, "cpu"),
    ):
        given = {k: x.to(device, dtype).requires_grad_() for k, x in tensors.items()}
        _, state = selective_scan(**given, return_last_state=True, implementation=name)
        wanted = [given[k] for k in ("u", "delta", "A", "B")]
        results.append([g.cpu().double() for g in torch.autograd.grad(state.sum(), wanted)])
    for found, right in zip(*results):
        torch.testing.assert_close(found, right, atol=1e-5, rtol=1e-5)


def test_chunks_are_the_whole(kernel, triton_device):
    *arguments, _ = scan_op_case(2, 20, 3, 2, stateful=True).arguments.values()
    u, delta, A, B, C, D, z, bias, softplus, state = (
        x.to(triton_device).float() if isinstance(x, torch.Tensor) else x for x in arguments
    )
    whole, last = TRITON.run(u, delta, A, B, C, D, z, bias, softplus, state)
    parts = []
    for s in (slice(0, 1), slice(1, 18), slice(18, 20)):
        y, state = TRITON.run(
            u[:, s], delta[:, s], A, B[:, s], C[:, s], D, z[:, s], bias, softplus, state
        )
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state, last, atol=1e-5, rtol=1e-5)


def test_strided_tensors_of_several_dtypes(kernel, triton_device):
    both = torch.randn(2, 3, 4, 6, device=triton_device, dtype=torch.bfloat16)
    B = torch.randn(3, 2, 2, 4, device=triton_device, dtype=torch.float16).permute(1, 0, 3, 2)
    given = {
        "u": both[..., :3],
        "delta": torch.randn(3, 2, 4, 3, device=triton_device).transpose(0, 1),
        "A": -torch.rand(2, 3, device=triton_device).t(),
        "B": B,
        "C": B.float().flip(-1),
        "z": both[..., 3:].half(),
        "initial_state": torch.randn(2, 3, 2, 3, device=triton_device).transpose(-1, -2),
    }
    exact = {k: x.double().cpu().requires_grad_() for k, x in given.items()}
    given = {k: x.requires_grad_() for k, x in given.items()}
    results = []
    for name, inputs in (("triton", given), ("reference", exact)):
        y = selective_scan(**inputs, delta_softplus=True, implementation=name)
        grads = torch.autograd.grad(y.double().sum(), list(inputs.values()))
        results.append([y, *grads])
    assert [g.dtype for g in results[0][1:]] == [x.dtype for x in given.values()]
    for found, right in zip(*results):
        torch.testing.assert_close(found.double().cpu(), right, atol=2e-2, rtol=2e-2)


def test_several_rows_of_one_program(kernel, triton_device, monkeypatch):
    monkeypatch.setattr(kernel, "PARTS", 2)
    case = scan_op_case(7, 3, 2, 2, stateful=True)
    found = check_implementation(case, TRITON, torch.device(triton_device), torch.float32)
    assert found.holds, str(found)


def test_what_a_mask_hides_has_no_influence(kernel, triton_device):
    arguments = scan_op_case(3, 5, 2, 2, stateful=True).arguments
    moved = [
        value.to(triton_device).float() if isinstance(value, torch.Tensor) else value
        for value in list(arguments.values())[:-1]
    ]
    mask = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()
    mask = mask.to(triton_device)
    clean, _ = TRITON.run(*moved, mask)
    broken = list(moved)
    for place in (0, 1, 3, 4, 6):
        broken[place] = moved[place].masked_fill(~mask[..., None], torch.nan).requires_grad_()
    y, last_state = TRITON.run(*broken, mask)
    assert torch.equal(y, clean)
    assert (y[1] == 0).all()
    torch.testing.assert_close(last_state[1], moved[9][1])
    places = (0, 1, 2, 3, 4, 5, 6, 7, 9)
    for some in (moved, broken):
        for place in places:
            some[place] = some[place].detach().requires_grad_()
    grads, clean_grads = (
        torch.autograd.grad(
            sum(output.sum() for output in TRITON.run(*some, mask)),
            [some[place] for place in places],
        )
        for some in (broken, moved)
    )
    for place, grad, clean_grad in zip(places, grads, clean_grads):
        assert torch.equal(grad, clean_grad)
        if place in (0, 1, 3, 4, 6):
            assert (grad[~mask] == 0).all()


def test_nan_stays_in_its_row_and_does_not_go_back_in_time(kernel, triton_device):
    u = torch.zeros(2, 5, 3, device=triton_device)
    u[0, 2, 1] = torch.nan
    ones = torch.ones(2, 5, 2, device=triton_device)
    A = -torch.ones(3, 2, device=triton_device)
    y = selective_scan(u, torch.ones_like(u), A, ones, ones, implementation="triton")
    expected = torch.zeros_like(u, dtype=torch.bool)
    expected[0, 2:, 1] = True
    assert torch.equal(y.isnan(), expected)


@pytest.mark.parametrize("name", ["u", "delta", "B", "C", "z"])
def test_nan_at_the_last_step_gives_gradients_of_nan_where_the_reference_does(
    kernel, triton_device, name
):
    arguments = scan_op_case(1, 5, 2, 2).arguments
    given = {k: x for k, x in arguments.items() if isinstance(x, torch.Tensor)}
    given[name][0, 4, 0] = torch.nan
    results = []
    for implementation, device in (("triton", triton_device), ("reference", "cpu")):
        inputs = {k: x.to(device).float().requires_grad_() for k, x in given.items()}
        y = selective_scan(**inputs, delta_softplus=True, implementation=implementation)
        grads = torch.autograd.grad(y.sum(), list(inputs.values()))
        results.append([x.isnan().cpu() for x in (y, *grads)])
    for found, right in zip(*results):
        assert torch.equal(found, right)


def test_tensors_on_a_cpu_are_refused_unless_interpreted(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    u = torch.zeros(1, 1, 1)
    with pytest.raises(ValueError, match=r"triton.*runs on a GPU, got tensors on cpu"):
        selective_scan(u, u, -u[0], u, u, implementation="triton")
