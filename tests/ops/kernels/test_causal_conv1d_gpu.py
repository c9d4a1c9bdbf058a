import importlib

import pytest
import torch

from pyg_stmamba.benchmark.op_parity import check_implementation, conv_op_case
from pyg_stmamba.ops.causal_conv1d import IMPLEMENTATIONS

TRITON = next(entry for entry in IMPLEMENTATIONS if entry.name == "triton")


@pytest.fixture
def kernel(triton_device, monkeypatch):
    module = importlib.import_module("pyg_stmamba.ops.kernels.causal_conv1d_gpu")
    monkeypatch.setattr(module, "PARTS", 2)
    return module


@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize("activation", ["silu", None])
@pytest.mark.parametrize(
    ("rows", "steps", "channels"), [(1, 1, 1), (5, 2, 65), (3, 15, 3), (2, 16, 63), (3, 33, 2)]
)
def test_outputs_and_all_gradients(
    kernel, triton_device, stateful, activation, rows, steps, channels
):
    case = conv_op_case(rows, steps, channels, stateful)
    case = case._replace(arguments={**case.arguments, "activation": activation})
    found = check_implementation(case, TRITON, torch.device(triton_device), torch.float32)
    assert found.holds, str(found)


@pytest.mark.parametrize("width", [1, 2, 3, 7])
def test_widths(kernel, triton_device, width):
    case = conv_op_case(2, 5, 3, stateful=True)
    shapes = {"weight": (3, width), "initial_state": (2, width - 1, 3)}
    drawn = {name: torch.randn(*size, dtype=torch.float64) for name, size in shapes.items()}
    case = case._replace(arguments={**case.arguments, **drawn})
    found = check_implementation(case, TRITON, torch.device(triton_device), torch.float32)
    assert found.holds, str(found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_dtypes(kernel, triton_device, dtype):
    case = conv_op_case(3, 5, 3, stateful=True)
    found = check_implementation(case, TRITON, torch.device(triton_device), dtype)
    assert found.holds, str(found)


def test_without_a_bias(kernel, triton_device):
    case = conv_op_case(2, 5, 3)
    case = case._replace(arguments={**case.arguments, "bias": None})
    found = check_implementation(case, TRITON, torch.device(triton_device), torch.float32)
    assert found.holds, str(found)


def test_nan_goes_no_further_than_the_filter_reaches(kernel, triton_device):
    x = torch.zeros(2, 9, 3, device=triton_device)
    x[1, 2, 0] = torch.nan
    y = TRITON.run(x, torch.ones(3, 4, device=triton_device))
    expected = torch.zeros_like(x, dtype=torch.bool)
    expected[1, 2:6, 0] = True
    assert torch.equal(y.isnan(), expected)
