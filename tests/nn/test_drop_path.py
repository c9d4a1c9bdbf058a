import pytest
import torch

from pyg_stmamba.nn.drop_path import DropPath
from tests.laws import same


def test_nothing_is_dropped_in_evaluation():
    x = torch.randn(5, 3, 4, 2)
    cls = torch.randn(1, 3, 1, 2)
    for drop in (DropPath(0.9).eval(), DropPath(0.0)):
        y, token = drop(x, cls)
        assert y is x
        assert token is cls
        assert drop(x)[1] is None


def test_a_sample_is_kept_or_dropped_as_a_whole():
    x = torch.rand(5, 2000, 4, 2) + 1  # N B T C
    kept = DropPath(0.25)(x)[0] / x
    share = kept[0, :, 0, 0]
    torch.testing.assert_close(kept, share[None, :, None, None].expand_as(kept))
    torch.testing.assert_close(share[share > 0], torch.full_like(share[share > 0], 4 / 3))
    # Three standard errors of 2000 draws.
    assert (share > 0).float().mean().item() == pytest.approx(0.75, abs=0.03)


def test_graphs_of_a_batch_draw_apart():
    batch = torch.arange(400).repeat_interleave(torch.arange(400) % 3 + 1)
    x = torch.rand(len(batch), 4, 2) + 1
    kept = DropPath(0.5)(x, batch=batch)[0] / x
    per_graph = torch.stack([kept[batch == g].mean() for g in range(400)])
    torch.testing.assert_close(kept, per_graph[batch][:, None, None].expand_as(kept))
    assert (per_graph > 0).float().mean().item() == pytest.approx(0.5, abs=0.075)


def test_one_graph_is_one_sample():
    drop = DropPath(0.5)
    for _ in range(10):
        kept, _ = drop(torch.ones(5, 4, 2))
        assert (kept == kept[0, 0, 0]).all()


def test_no_node_at_all():
    drop = DropPath(0.5)
    y, _ = drop(torch.ones(0, 4, 2), batch=torch.zeros(0, dtype=torch.long))
    assert y.shape == (0, 4, 2)


def test_a_class_token_shares_the_fate_of_its_graph():
    batch = torch.tensor([0, 0, 1, 2, 2, 2])
    drop = DropPath(0.5)
    x, cls = torch.ones(6, 50, 4, 2), torch.ones(4, 50, 1, 2)  # the last graph has no node
    y, token = drop(x, cls, batch)
    same(y, token[batch].expand_as(y))
    assert token.unique().tolist() == [0.0, 2.0]
    y, token = drop(x, cls[:1])
    same(y, token.expand_as(y))


def test_bad_probability():
    for p in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"a probability below 1, got {p}"):
            DropPath(p)


def test_inputs_and_type():
    kept = torch.randn(5, 3, 4, 2)
    x = kept.clone()
    DropPath(0.5)(x)
    same(x, kept)
    x = torch.randn(5, 3, 4, 2, dtype=torch.bfloat16)
    assert DropPath(0.5)(x)[0].dtype == torch.bfloat16
    torch.manual_seed(3)
    once, _ = DropPath(0.5)(x)
    torch.manual_seed(3)
    same(DropPath(0.5)(x)[0], once)
    assert str(DropPath(0.1)) == "DropPath(p=0.1)"
