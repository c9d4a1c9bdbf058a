import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyg_stmamba.nn import FullAttention
from tests.laws import close

B, L, H, D, E = 2, 9, 3, 4, 5
TIMES = torch.tensor([2, 0, 1, 1, 5, 0, 2, 2, 7])


def tokens(length: int = L, keys: int = L) -> list[Tensor]:
    shapes = ((B, length, H, D), (B, keys, H, D), (B, keys, H, E))
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def by_torch(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None) -> Tensor:
    query, key, value = (x.double().transpose(1, 2) for x in (query, key, value))
    out = F.scaled_dot_product_attention(query, key, value, allowed)
    return out.transpose(1, 2).float()


@pytest.mark.parametrize("masked", [None, "keys", "pairs"])
@pytest.mark.parametrize(("causal", "timed"), [(False, False), (True, False), (True, True)])
def test_against_torch(causal, timed, masked):
    given, mask = tokens(), None
    allowed = torch.ones(B, 1, L, L, dtype=torch.bool)
    if masked == "keys":
        mask = torch.rand(B, L) > 0.6
        mask[0, [1, 5]] = True  # all of the first time
        allowed = allowed & ~mask[:, None, None]
    elif masked == "pairs":
        mask = torch.rand(B, L, L) > 0.6
        mask[0, 1] = True
        allowed = allowed & ~mask[:, None]
    if timed:
        allowed = allowed & (TIMES[:, None] >= TIMES)
    elif causal:
        allowed = allowed.tril()
    empty = ~allowed.any(-1, keepdim=True)
    assert masked is None or not timed or empty.any()
    right = by_torch(*given, allowed | empty).masked_fill(empty.transpose(1, 2), 0.0)
    time = TIMES if timed else None
    out, weights = FullAttention(causal)(*given, mask, True, time)
    close(out, right, 1e-6)
    close(torch.einsum("bhls,bshe->blhe", weights, given[2]), out, 1e-6)
    assert (weights.masked_select(~allowed) == 0).all()
    close(weights.sum(-1), (~empty).expand(B, H, L, 1).squeeze(-1).float(), 1e-6)
    alone, nothing = FullAttention(causal)(*given, mask, time_index=time)
    assert nothing is None
    assert torch.equal(alone, out)
    for ours, theirs in zip(*(torch.autograd.grad(y.sin().sum(), given) for y in (out, right))):
        close(ours, theirs, 1e-6)


def test_numbers_of_queries_and_keys_may_differ():
    given = tokens(length=2)
    out, weights = FullAttention()(*given, output_attention=True)
    close(out, by_torch(*given, None), 1e-6)
    assert weights.shape == (B, H, 2, L)


@pytest.mark.parametrize("causal", [True, False])
def test_all_hidden_gives_zero(causal):
    given, mask = tokens(), torch.zeros(B, L, dtype=torch.bool)
    mask[0] = True
    out, weights = FullAttention(causal)(*given, mask, output_attention=True)
    assert (out[0] == 0).all()
    assert (weights[0] == 0).all()
    grads = torch.autograd.grad(out.sin().sum() + weights.sin().sum(), given)
    assert all(grad.isfinite().all() for grad in grads)
    assert all((grad[0] == 0).all() for grad in grads)


def test_dropout_in_training_only():
    op, given = FullAttention(dropout=0.5), tokens()
    out, weights = op(*given, output_attention=True)
    assert not torch.equal(op(*given)[0], out)
    right, before = op.eval()(*given, output_attention=True)
    assert torch.equal(op(*given)[0], right)
    assert torch.equal(weights, before)
    op.train()
    many = torch.stack([op(*given)[0] for _ in range(2000)]).mean(0)
    close(many, right, 0.15)


def test_bad_masks():
    with pytest.raises(ValueError, match=r"\[2, 9\] or \[B, L, S\] = \[2, 9, 9\], got \[9, 9\]"):
        FullAttention()(*tokens(), torch.zeros(L, L, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"attention_mask must be boolean, got torch\.float32"):
        FullAttention()(*tokens(), torch.full((B, L), -math.inf))
    with pytest.raises(ValueError, match="as many queries as keys, got 2 and 9"):
        FullAttention(causal=True)(*tokens(length=2))
    with pytest.raises(ValueError, match="as many queries as keys, got 2 and 9"):
        FullAttention()(*tokens(length=2), time_index=TIMES)
    with pytest.raises(ValueError, match=r"one integer a key, \[9\], got \[1\]"):
        FullAttention()(*tokens(), time_index=TIMES[:1])


def test_repr():
    assert str(FullAttention(True, 0.1)) == "FullAttention(causal=True, dropout=0.1)"
