import pytest
import torch

from pyg_stmamba.nn import softmax_attention as module
from pyg_stmamba.nn.softmax_attention import softmax_attention
from tests.laws import close


def explicit(query, key, value, allowed=None):
    logits = query.double() @ key.double().mT / query.size(-1) ** 0.5
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -torch.inf)
    return (logits.softmax(-1) @ value.double()).float()


@pytest.mark.parametrize(("few", "limit"), [(64, 65535), (0, 65535), (0, 5)])
def test_against_the_formula(few, limit, monkeypatch):
    monkeypatch.setattr(module, "FEW", few)  # with 0 it is never by products
    monkeypatch.setattr(module, "MAX_GRID", limit)  # 5 // 2 heads: two rows at a time
    query, key, value = (torch.randn(3, 2, 2, n, 4) for n in (5, 6, 6))
    close(softmax_attention(query, key, value), explicit(query, key, value), 1e-6)
    shared = torch.rand(5, 6) > 0.5
    shared[:, 0] = True
    out = softmax_attention(query, key, value, shared)
    close(out, explicit(query, key, value, shared), 1e-6)
    rows = torch.rand(3, 1, 1, 5, 6) > 0.5
    rows[..., 0] = True
    out = softmax_attention(query, key, value, rows)
    close(out, explicit(query, key, value, rows), 1e-6)
    past = torch.ones(6, 6, dtype=torch.bool).tril()
    out = softmax_attention(key, key, value, causal=True)
    close(out, explicit(key, key, value, past), 1e-6)


def test_gradients_do_not_depend_on_the_way(monkeypatch):
    leaves = [torch.randn(3, 2, 6, 4, requires_grad=True) for _ in range(3)]
    found = []
    for few in (64, 0):
        monkeypatch.setattr(module, "FEW", few)
        y = softmax_attention(*leaves, causal=True)
        found.append(torch.autograd.grad(y.sin().sum(), leaves))
    for ours, right in zip(*found):
        close(ours, right, 1e-6)


@pytest.mark.parametrize("few", [64, 0])
def test_dropout_leaves_the_mean(few, monkeypatch):
    monkeypatch.setattr(module, "FEW", few)
    query, key, value = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 5, 4), torch.rand(2, 1, 5, 4)
    drawn = softmax_attention(*(x.repeat(4000, 1, 1, 1) for x in (query, key, value)), dropout=0.4)
    assert (drawn == 0).any()
    mean = drawn.unflatten(0, (4000, 2)).mean(0)
    close(mean, softmax_attention(query, key, value), 0.05)


def test_more_rows_than_a_grid(monkeypatch):
    monkeypatch.setattr(module, "FEW", 0)
    query = torch.randn(70_000, 1, 2, 2, requires_grad=True)
    out = softmax_attention(query, query, query)
    close(out[-1], softmax_attention(query[-1:], query[-1:], query[-1:])[0], 1e-6)
    out.sum().backward()
    assert query.grad[-1].abs().sum() > 0


def test_no_rows():
    query = torch.zeros(0, 2, 3, 4)
    assert softmax_attention(query, query, query).shape == (0, 2, 3, 4)
