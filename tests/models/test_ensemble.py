import pytest
import torch
from torch import nn

from pyg_stmamba.models import Ensemble
from tests import laws


def test_the_mean_of_the_members():
    members = [nn.Linear(3, 2) for _ in range(3)]
    ensemble, x = Ensemble(members), torch.randn(5, 3)
    torch.testing.assert_close(ensemble(x), (members[0](x) + members[1](x) + members[2](x)) / 3)
    laws.copies_are_equal(ensemble, lambda copy: copy(x))


def test_it_is_bound_to_what_a_member_is_bound_to():
    free, bound = nn.Linear(1, 1), nn.Linear(1, 1)
    bound.num_nodes, bound.steps_per_day = 5, 24
    assert Ensemble([free]).num_nodes is None
    assert (Ensemble([free, bound]).num_nodes, Ensemble([free, bound]).steps_per_day) == (5, 24)


def test_no_member_is_no_ensemble():
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble([])
