import copy

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from pyg_stmamba.nn import TemporalAttention, TemporalPerformer, redraw_when_due
from pyg_stmamba.ops.random_features import optimal_coefficient
from tests.laws import close, same

C, HEADS = 12, 3


def randomized(**options) -> TemporalPerformer:
    op = TemporalPerformer(C, HEADS, **options)
    with torch.no_grad():
        for parameter in op.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return op


def features(op: TemporalPerformer, x: np.ndarray) -> np.ndarray:
    """Of one head of one step."""
    attention = op.attention
    if attention.qk_norm:
        length = np.exp(0.5 * attention.log_temperature.item())
        x = length * x / np.linalg.norm(x)
    else:
        x = x / (C // HEADS) ** 0.25
    projected = attention.projection.double().numpy() @ x
    if attention.kernel == "relu":
        return np.maximum(projected, 0) + 1e-3
    if attention.feature_map == "optimal":
        a = optimal_coefficient(len(x) ** 0.5 / 2, len(x))
        length = np.square(attention.projection.double().numpy()).sum(1)
        projected = (1 - 4 * a) ** 0.5 * projected + a * length
    if attention.feature_map == "hyperbolic":
        projected = np.concatenate([projected, -projected])
    return np.exp(projected - 0.5 * x @ x)


def recurrence(op: TemporalPerformer, x: torch.Tensor) -> np.ndarray:
    """The equations of the paper for one series x[T, C], in float64, step by step."""
    p = {name: value.double().numpy() for name, value in op.state_dict().items()}
    x = x.double().numpy()
    T, size = len(x), C // HEADS
    if op.position.kind == "learned":
        x = x + p["position.weight"][:T]
    elif op.position.kind == "sinusoidal":
        t, i = np.arange(T)[:, None], np.arange(C // 2)[None]
        x = x.copy()
        x[:, 0::2] += np.sin(t / 10000 ** (2 * i / C))
        x[:, 1::2] += np.cos(t / 10000 ** (2 * i / C))
    projected = x @ p["in_proj.weight"].T + p["in_proj.bias"]
    query, key, value = projected.reshape(T, 3, HEADS, size).transpose(1, 2, 0, 3)
    y = np.zeros((T, HEADS, size))
    for h in range(HEADS):
        key_value, key_sum, sums = 0.0, 0.0, []
        for t in range(T):
            phi = features(op, key[h, t])
            key_value = key_value + np.outer(phi, value[h, t])
            key_sum = key_sum + phi
            sums.append((key_value, key_sum))
        for t in range(T):
            key_value, key_sum = sums[t if op.causal else -1]
            phi = features(op, query[h, t])
            y[t, h] = phi @ key_value / (phi @ key_sum)
    return y.reshape(T, C) @ p["out_proj.weight"].T + p["out_proj.bias"]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"position": "learned", "max_length": 80},
        {"position": "sinusoidal"},
        {"position": None, "nb_features": 5},
        {"feature_map": "positive"},
        {"feature_map": "hyperbolic"},
        {"kernel": "relu"},
        {"qk_norm": True},
    ],
)
def test_against_the_recurrence(options, causal):
    op = randomized(causal=causal, **options)
    x = torch.randn(2, 70, C)
    for row, y in zip(x, op(x)):
        np.testing.assert_allclose(y.detach(), recurrence(op, row), atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_many_features_come_close_to_softmax_attention(causal):
    op = TemporalPerformer(C, HEADS, 8192, causal=causal)
    other = TemporalAttention(C, HEADS, causal=causal, position="sinusoidal")
    kept = {k: v for k, v in op.state_dict().items() if not k.startswith("attention.")}
    other.load_state_dict(kept, strict=True)
    x, mask = torch.randn(3, 20, C), torch.rand(3, 20) > 0.3
    for given in (None, mask):
        right = other(x, given)
        assert (op(x, given) - right).norm() < 0.1 * right.norm()


def test_the_state_does_not_grow():
    op = TemporalPerformer(C, HEADS, 7)
    shapes = []
    for steps in (1, 3, 70, 200):
        _, state = op.prefill(torch.randn(2, 5, steps, C))
        shapes.append([leaf.shape for leaf in tree_leaves(state)])
        assert int(state.steps) == steps
        assert state.steps.device.type == "cpu"
    assert all(shape == shapes[0] for shape in shapes)
    assert shapes[0] == [(2, 5, HEADS, 7, 4), (2, 5, HEADS, 7), (2, 5, HEADS), ()]
    _, state = op.step(torch.randn(2, 5, C), state)
    assert int(state.steps) == 201
    _, after = op.prefill(torch.randn(2, 5, 0, C), state)
    for a, b in zip(tree_leaves(after), tree_leaves(state), strict=True):
        same(a, b)


def test_a_stream_is_as_exact_as_the_whole():
    op = randomized()
    x = torch.randn(1, 300, C)
    state, parts = None, []
    for step in x.unbind(1):
        y, state = op.step(step, state)
        parts.append(y)
    np.testing.assert_allclose(torch.cat(parts).detach(), recurrence(op, x[0]), atol=1e-5)


def test_heads_do_not_mix():
    op = TemporalPerformer(C, HEADS, position=None)
    torch.nn.init.eye_(op.out_proj.weight)
    x = torch.randn(2, 9, C)
    before = op(x)
    with torch.no_grad():  # queries, keys and values of the second head
        op.in_proj.weight.view(3, HEADS, 4, C)[:, 1].mul_(-3.0)
    after = op(x)
    same(after[..., :4], before[..., :4])
    same(after[..., 8:], before[..., 8:])
    assert (after[..., 4:8] != before[..., 4:8]).any(-1).all()


def test_too_long_a_series():
    op = TemporalPerformer(C, HEADS, position="learned", max_length=4)
    x = torch.randn(2, 5, C)
    with pytest.raises(ValueError, match=r"4 learned positions.*5 steps.*max_length"):
        op(x)
    _, state = op.prefill(x[:, :4])
    with pytest.raises(ValueError, match="5 steps"):
        op.step(x[:, 4], state)
    assert TemporalPerformer(C, HEADS, max_length=4)(x).shape == x.shape


def test_autocast():
    op = randomized()
    x = torch.randn(3, 20, C)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = op.prefill(x)
    assert all(leaf.dtype in (torch.float32, torch.int64) for leaf in tree_leaves(state))
    close(y.float(), op(x), 5e-2)


def test_the_features_are_drawn_anew_by_the_model():
    op = TemporalPerformer(C, HEADS, redraw_interval=1)
    x = torch.randn(2, 5, C)
    before = op(x)
    same(op(x), before)
    redraw_when_due(op)
    same(op(x), before)
    redraw_when_due(op)
    assert not torch.equal(op(x), before)


def test_initialization_and_reset():
    torch.manual_seed(1)
    op = TemporalPerformer(64, 4, position="learned", qk_norm=True)
    assert (op.in_proj.bias == 0).all()
    assert (op.out_proj.bias == 0).all()
    assert op.in_proj.weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.05)
    before = copy.deepcopy(op)
    with torch.no_grad():
        op.attention.log_temperature.fill_(2.0)
        op.in_proj.bias.fill_(1.0)
    op.reset_parameters()
    assert (op.in_proj.bias == 0).all()
    assert op.attention.log_temperature == 0
    for new, old in (
        (op.in_proj.weight, before.in_proj.weight),
        (op.out_proj.weight, before.out_proj.weight),
        (op.position.weight, before.position.weight),
        (op.attention.projection, before.attention.projection),
    ):
        assert (new != old).any(-1).all()


def test_options_reach_the_attention():
    attention = TemporalPerformer(
        C, HEADS, 9, False, None, 5, "relu", "hyperbolic", True, redraw_interval=None
    ).attention
    assert (attention.dim_heads, attention.nb_features, attention.causal) == (4, 9, False)
    assert (attention.kernel, attention.feature_map) == ("relu", "hyperbolic")
    assert attention.qk_norm
    assert attention.redraw_interval is None


def test_bad_options():
    with pytest.raises(ValueError, match=r"channels \(12\).*heads \(5\)"):
        TemporalPerformer(12, 5)
    with pytest.raises(ValueError, match=r"'rotary'.*'learned', 'sinusoidal' or None"):
        TemporalPerformer(12, 4, position="rotary")
    with pytest.raises(ValueError, match="kernel='gauss' is unknown"):
        TemporalPerformer(12, 4, kernel="gauss")
    with pytest.raises(ValueError, match="not causal"):
        TemporalPerformer(12, 4, causal=False).prefill(torch.randn(2, 3, 12))


def test_repr():
    expected = "TemporalPerformer(12, heads=3, causal=True, position='sinusoidal')"
    assert str(TemporalPerformer(12, 3)) == expected
