import math

import pytest
import torch

from pyg_stmamba.benchmark import parity
from pyg_stmamba.benchmark.parity import relative_error


def test_errors_are_relative_to_the_largest_value():
    right = torch.tensor([1.0, -200.0])
    assert relative_error(right + torch.tensor([2.0, 0.0]), right) == 0.01
    assert relative_error(torch.tensor([0.5]), torch.tensor([0.0])) == 0.5
    assert relative_error(torch.empty(0, 3), torch.empty(0, 3)) == 0.0


@pytest.mark.parametrize("bad", [torch.tensor([math.nan]), torch.tensor([math.inf])])
def test_what_is_not_finite_does_not_agree(bad):
    assert relative_error(bad, torch.ones(1)) == math.inf
    assert relative_error(torch.ones(1), bad) == math.inf
    assert relative_error(bad, bad) == math.inf


def test_another_shape_does_not_agree():
    assert relative_error(torch.ones(3, 1), torch.ones(3)) == math.inf


def test_the_worst_tensor_decides_and_is_named():
    right = {"y": torch.ones(3), "gradient of x": torch.ones(3)}
    found = parity({"y": torch.ones(3), "gradient of x": torch.ones(3) * 1.5}, right, 1e-5)
    assert not found.holds
    assert found.worst == ("gradient of x", 0.5)
    assert str(found) == "gradient of x is off by 5.0e-01 > 1e-05"
    assert str(parity(right, right, 1e-5)) == "y is off by 0.0e+00 <= 1e-05"
    with pytest.raises(ValueError, match="to compare with"):
        parity({"y": torch.ones(3)}, right, 1e-5)
