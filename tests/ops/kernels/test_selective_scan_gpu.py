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
    grads = torch.autograd.grad(y.sum() + last_state.sum(), [broken[0], broken[1], broken[6]])
    for grad in grads:
        assert (grad[~mask] == 0).all()
        assert grad.isfinite().all()


def test_nan_stays_in_its_row_and_does_not_go_back_in_time(kernel, triton_device):
    u = torch.zeros(2, 5, 3, device=triton_device)
    u[0, 2, 1] = torch.nan
    ones = torch.ones(2, 5, 2, device=triton_device)
    A = -torch.ones(3, 2, device=triton_device)
    y = selective_scan(u, torch.ones_like(u), A, ones, ones, implementation="triton")
    expected = torch.zeros_like(u, dtype=torch.bool)
    expected[0, 2:, 1] = True
    assert torch.equal(y.isnan(), expected)


def test_tensors_on_a_cpu_are_refused_unless_interpreted(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    u = torch.zeros(1, 1, 1)
    with pytest.raises(ValueError, match=r"triton.*runs on a GPU, got tensors on cpu"):
        selective_scan(u, u, -u[0], u, u, implementation="triton")
