import numpy as np
import pytest
import torch

from pyg_stmamba.nn.embedding import PositionEmbedding
from tests.laws import close, copies_are_equal, same


def test_learned_positions_are_a_table():
    op = PositionEmbedding(4, max_seq_len=7)
    same(op(5), op.embedding(torch.arange(5)))
    same(op(7), op.embedding.weight)


def test_time2vec_positions_against_numpy():
    op = PositionEmbedding(4, "time2vec")
    weight, bias = op.embedding.weight.detach().numpy()[0], op.embedding.bias.detach().numpy()[0]
    expected = np.sin(np.arange(9)[:, None] * weight[1:] + bias[1:])
    close(op(9).detach(), torch.from_numpy(expected.astype(np.float32)), 1e-6)


def test_time2vec_positions_have_no_limit():
    y = PositionEmbedding(4, "time2vec")(10_000)
    assert y.shape == (10_000, 4)
    assert y.abs().max() <= 1


def test_too_long_a_window():
    with pytest.raises(ValueError, match="has 7 learned positions, got a window of 8 steps"):
        PositionEmbedding(4, max_seq_len=7)(8)


def test_bad_options():
    for max_seq_len in (None, 0):
        with pytest.raises(ValueError, match=f"needs max_seq_len.*got {max_seq_len}"):
            PositionEmbedding(4, max_seq_len=max_seq_len)
    with pytest.raises(ValueError, match="'rotary'; choose 'learned' or 'time2vec'"):
        PositionEmbedding(4, "rotary")


def test_initialization():
    weight = PositionEmbedding(64, max_seq_len=100).embedding.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert weight.mean().item() == pytest.approx(0, abs=0.002)


@pytest.mark.parametrize("position_embedding", ["learned", "time2vec"])
def test_copies(position_embedding):
    copies_are_equal(PositionEmbedding(4, position_embedding, 7), lambda op: op(5))


def test_repr():
    expected = "PositionEmbedding(4, 'learned', max_seq_len=7)"
    assert str(PositionEmbedding(4, max_seq_len=7)) == expected
    assert str(PositionEmbedding(4, "time2vec")) == "PositionEmbedding(4, 'time2vec')"
