import pytest
import torch
from torch import nn

from pyg_stmamba.nn.embedding.space_time_position import SpaceTimePosition
from tests.laws import close, copies_are_equal, same

D = 6


@pytest.mark.parametrize("class_token", [False, True])
def test_each_token_gets_its_place_and_its_time(class_token):
    op = SpaceTimePosition(D, 4, 3, class_token)
    x = torch.randn(4, 2, 3, D)
    y, cls = op(x)
    e, p = op.space.weight, op.time.table.embedding.weight
    for i in range(4):
        for t in range(3):
            close(y[i, :, t], x[i, :, t] + e[i + class_token] + p[t], 1e-6)
    if class_token:
        same(cls, (op.cls + e[0]).expand(1, 2, 1, -1))
    else:
        assert cls is None


def test_what_is_absent_is_not_added():
    x = torch.randn(4, 3, D)
    assert SpaceTimePosition(D)(x) == (x, None)
    y, cls = SpaceTimePosition(D, class_token=True)(x, num_graphs=2)
    assert y is x
    assert cls.shape == (2, 1, D)


def test_graphs_share_the_vectors_of_nodes():
    op = SpaceTimePosition(D, 4, None, True)
    x = torch.randn(8, 3, D)
    y, cls = op(x, num_graphs=2)
    close(y[:4], op(x[:4])[0], 1e-6)
    close(y[4:], op(x[4:])[0], 1e-6)
    assert cls.shape == (2, 1, D)
    for nodes, graphs in ((3, 1), (8, 1), (6, 2)):
        with pytest.raises(ValueError, match="each of 4 nodes, got"):
            op(x[:nodes], num_graphs=graphs)
    with pytest.raises(ValueError, match="2 graphs of 4 nodes each have 8 nodes, got 9"):
        op(torch.randn(9, 3, D), num_graphs=2)


def test_other_grids_and_lengths_are_interpolated():
    op = SpaceTimePosition(D, (2, 2), 3, True)
    x = torch.randn(12, 2, 5, D)
    y, _ = op(x, (3, 4))
    field = op.space.weight[1:].t().unflatten(-1, (2, 2))[None]
    place = nn.functional.interpolate(field, (3, 4), mode="bicubic")[0].flatten(1).t()
    time = op.time.table.embedding.weight.t()[None]
    time = nn.functional.interpolate(time, 5, mode="linear")[0].t()
    close(y, x + place[:, None, None] + time, 1e-6)


def test_initialization_and_copies():
    op = SpaceTimePosition(1000, 4, 3, True)
    assert op.cls.std().item() == pytest.approx(0.02, rel=0.1)
    kept = op.cls.clone()
    op.reset_parameters()
    assert not torch.equal(op.cls, kept)
    op, x = SpaceTimePosition(D, 4, 3, True), torch.randn(4, 2, 3, D)
    copies_are_equal(op, lambda op: op(x)[0])
    kept = x.clone()
    op(x)
    same(x, kept)
