import pytest
import torch

from pyg_stmamba.nn import pivot, unpivot
from tests.laws import same


def test_pivot():
    x = torch.randn(2, 3, 5, 4)
    y = pivot(x)
    assert y.shape == (5, 2, 3, 4)
    same(y, x.permute(2, 0, 1, 3))
    assert y[4, 1, 2, 3] == x[1, 2, 4, 3]
    same(y.flatten().sort().values, x.flatten().sort().values)


@pytest.mark.parametrize(
    "x", [torch.randn(2, 3, 5, 4), torch.randn(5, 4, 2, 3).permute(2, 3, 0, 1)]
)
def test_round_trip_without_a_copy(x):
    same(unpivot(pivot(x)), x)
    assert unpivot(pivot(x)).stride() == x.stride()
    assert unpivot(pivot(x)).data_ptr() == pivot(x).data_ptr() == x.data_ptr()
