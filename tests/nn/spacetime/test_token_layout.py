import pytest
import torch

from pyg_stmamba.nn.spacetime import (
    Flatten,
    Localize,
    PredRearrange,
    ReverseLocalize,
    localize,
    reverse_localize,
)
from tests.laws import inputs_stay_untouched, same

B, N, L, D = 2, 3, 5, 4


def test_flatten():
    x = torch.randn(B, L, N)
    tokens = Flatten()(x)
    assert tokens.shape == (B, N * L, 1)
    for i in range(N):
        for t in range(L):
            same(tokens[:, i * L + t, 0], x[:, t, i])


def test_predictions_become_series():
    x = torch.randn(B, L, N)
    same(PredRearrange(N)(Flatten()(x)), x)

    tokens = torch.randn(B, N * L, 2)
    series = PredRearrange(N)(tokens)
    assert series.shape == (2, B, L, N)
    for i in range(N):
        for t in range(L):
            same(series[:, :, t, i], tokens[:, i * L + t].t())


def test_localize():
    tokens = torch.randn(B, N * L, D)
    series = localize(tokens, N)
    assert series.shape == (N * B, L, D)
    for i in range(N):
        for b in range(B):
            same(series[i * B + b], tokens[b, i * L : (i + 1) * L])


@pytest.mark.parametrize(
    "tokens",
    [
        torch.randn(B, N * L, D),
        torch.randn(D, N * L, B).transpose(0, 2),
        torch.randn(B, 1, D).expand(B, N * L, D),
        torch.randn(B, N * L) > 0,
        torch.arange(N * L).expand(B, -1),
    ],
)
def test_round_trip(tokens):
    same(reverse_localize(localize(tokens, N), N), tokens)
    same(ReverseLocalize(N)(Localize(N)(tokens)), tokens)
    same(Localize(N)(tokens), localize(tokens, N))
    inputs_stay_untouched(Localize(N), tokens)


def test_errors_show_the_shape():
    with pytest.raises(ValueError, match=r"\[B, N \* L, ...\] of N = 4.*\[2, 15, 4\]"):
        localize(torch.randn(B, N * L, D), 4)
    with pytest.raises(ValueError, match=r"N = 0 variables"):
        localize(torch.randn(B, N * L, D), 0)
    with pytest.raises(ValueError, match=r"\[N \* B, L, ...\] of N = 3.*\[7, 5, 4\]"):
        reverse_localize(torch.randn(7, L, D), N)
    with pytest.raises(ValueError, match=r"\[B, L, N\].*\[5, 3\]"):
        Flatten()(torch.randn(L, N))
    for shape in ((B, N * L), (B, N * L, 1, 1), (B, N * L + 1, 1)):
        with pytest.raises(ValueError, match=r"N = 3 variables"):
            PredRearrange(N)(torch.randn(shape))


def test_repr():
    assert str(Localize(3)) == "Localize(3)"
    assert str(ReverseLocalize(3)) == "ReverseLocalize(3)"
    assert str(PredRearrange(3)) == "PredRearrange(3)"
