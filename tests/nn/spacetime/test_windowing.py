import math

import pytest
import torch
import torch.nn.functional as F

from pyg_stmamba.nn.spacetime import ReverseWindowing, Windowing
from tests.laws import close, same
from tests.nn.spacetime.oracles import groups, pairs, places

B, N, D = 2, 3, 4

layouts = pytest.mark.parametrize(
    ("length", "windows", "shifted"),
    [
        (length, windows, shifted)
        for length in (*range(1, 10), 12, 17)
        for windows in (1, 2, 3, 5)
        for shifted in (False, True)
    ],
)


def both(windows, shifted):
    return Windowing(N, windows, shifted), ReverseWindowing(N, windows, shifted)


@layouts
def test_round_trip(length, windows, shifted):
    windowing, reverse = both(windows, shifted)
    width = math.ceil(length / windows)
    shape = (B, N * length, D)
    for x in (
        torch.randn(shape),
        torch.randn(shape[::-1]).transpose(0, 2),
        torch.randn(B, 1, D).expand(shape),
        torch.randn(shape[:2]) > 0,
        torch.arange(N * length).expand(B, -1),
    ):
        tokens, _ = windowing(x)
        assert tokens.shape[1:] == (N * width, *x.shape[2:])
        assert tokens.dtype == x.dtype
        moves = shifted and windows > 1 and width > 1
        assert tokens.size(0) == B * (windows + 1 if moves else windows)
        same(reverse(tokens, length), x)


@layouts
def test_who_meets(length, windows, shifted):
    """Exactly those who meet in Swin's rolled windows under its mask."""
    windowing, _ = both(windows, shifted)
    given = torch.rand(B, N * length) > 0.7
    tokens, mask = windowing(torch.arange(B * N * length).reshape(B, -1), given)
    group = groups(length, windows, shifted)
    meets = pairs(places(N, length), places(N, length), lambda i, t, j, s: group[t] == group[s])
    met = torch.zeros(B * N * length, B * N * length, dtype=torch.bool)
    found = []
    for window, hidden in zip(tokens, mask):
        kept = window[~hidden]
        found += kept.tolist()
        met[kept.unsqueeze(-1), kept] = True
        steps = (kept % length).reshape(-1)
        variables = kept // length % N
        assert (torch.diff(variables) >= 0).all()
        for variable in variables.unique():
            assert (torch.diff(steps[variables == variable]) > 0).all()
    real = torch.arange(B * N * length)[~given.flatten()]
    assert sorted(found) == real.tolist()
    expected = torch.block_diag(*[meets] * B).bool()
    hidden = given.flatten()
    same(met, expected & ~hidden & ~hidden.unsqueeze(-1))


@layouts
def test_places_in_a_window_are_steps(length, windows, shifted):
    """All variables of a window lie side by side, and each at consecutive steps."""
    step = torch.arange(length).repeat(N).expand(1, -1)
    variable = torch.arange(N).repeat_interleave(length).expand(1, -1)
    windowing, _ = both(windows, shifted)
    steps, mask = windowing(step)
    variables, _ = windowing(variable)
    hidden = torch.zeros_like(steps, dtype=torch.bool) if mask is None else mask
    for window_steps, window_variables, padding in zip(steps, variables, hidden):
        rows = window_steps.unflatten(0, (N, -1))
        kept = ~padding.unflatten(0, (N, -1))
        same(kept, kept[:1].expand_as(kept))
        same(rows, rows[:1].expand_as(rows))
        assert (torch.diff(rows[0][kept[0]]) == 1).all()
        numbers = window_variables.unflatten(0, (N, -1))
        same(numbers.masked_fill(~kept, 0), torch.arange(N).unsqueeze(-1) * kept)


@layouts
def test_attention_within_windows(length, windows, shifted):
    windowing, reverse = both(windows, shifted)
    x = torch.randn(B, N * length, D)
    given = torch.rand(B, N * length) > 0.6
    tokens, mask = windowing(x, given)
    # a padded query may see nothing, which not every torch answers by zeros
    allowed = ~mask.unsqueeze(1) | torch.eye(tokens.size(1), dtype=torch.bool)
    y = reverse(F.scaled_dot_product_attention(tokens, tokens, tokens, allowed), length)

    group = groups(length, windows, shifted)
    at = places(N, length)
    for b in range(B):
        for i, (_, t) in enumerate(at):
            if given[b, i]:
                continue
            seen = [j for j, (_, s) in enumerate(at) if group[s] == group[t] and not given[b, j]]
            weight = torch.stack([x[b, i] @ x[b, j] / D**0.5 for j in seen]).softmax(0)
            close(y[b, i], weight @ x[b, seen], 1e-6)


def test_what_fills_up_is_masked_zero():
    windowing = Windowing(N, 2, shifted=True)
    x = torch.ones(B, N * 7, D)
    tokens, mask = windowing(x)
    same(mask, (tokens == 0).all(-1))
    assert mask.sum() == B * N * (3 * 4 - 7)


def test_no_mask_where_nothing_is_padding():
    x = torch.randn(B, N * 6, D)
    for windows in (1, 2, 3):
        assert Windowing(N, windows)(x).padding_mask is None
    assert Windowing(N, 4)(x).padding_mask is not None
    assert Windowing(N, 2, shifted=True)(x).padding_mask is not None
    same(Windowing(N, 1, shifted=True)(x).tokens, x)  # a single window does not shift


def test_gradients():
    x = torch.randn(B, N * 7, D, requires_grad=True)
    windowing, reverse = both(3, True)
    weight = torch.randn_like(x)
    (reverse(windowing(x).tokens, 7) * weight).sum().backward()
    same(x.grad, weight)


def test_errors():
    with pytest.raises(ValueError, match=r"N = 3 variables.*\[2, 16, 4\]"):
        Windowing(N, 2)(torch.randn(B, 16, D))
    with pytest.raises(ValueError, match=r"True = padding.*\[2, 15\].*\[2, 12\]"):
        Windowing(N, 2)(torch.randn(B, 15, D), torch.zeros(B, 12, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"\[B \* 3, 12, ...\].*length 7.*\[4, 12, 4\]"):
        ReverseWindowing(N, 2, shifted=True)(torch.randn(4, 12, D), 7)
    with pytest.raises(ValueError, match=r"at least one.*windows=0"):
        Windowing(N, 0)


def test_repr():
    assert str(Windowing(3, 2, True)) == "Windowing(3, windows=2, shifted=True)"
