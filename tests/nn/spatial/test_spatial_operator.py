import pytest
import torch

from pyg_stmamba.nn import SpatialOperator


def test_base_class_is_abstract():
    with pytest.raises(NotImplementedError):
        SpatialOperator()(torch.zeros(3, 2, 1), torch.zeros(2, 0, dtype=torch.long))
