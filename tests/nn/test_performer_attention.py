import copy
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from pyg_stmamba.benchmark.memory import StorageCounter
from pyg_stmamba.nn import (
    FullAttention,
    PerformerAttention,
    redraw_projections,
    redraw_when_due,
)
from pyg_stmamba.ops import optimal_features
from pyg_stmamba.ops.random_features import optimal_coefficient
from tests.laws import close

B, L, H, D, E = 2, 70, 3, 8, 5
OPTIONS = {
    "optimal": {},
    "positive": {"feature_map": "positive"},
    "hyperbolic": {"feature_map": "hyperbolic"},
    "relu": {"kernel": "relu"},
    "independent": {"orthogonal": False},
    "few": {"nb_features": 3},
    "normed": {"qk_norm": True},
    "hyperbolic, normed": {"feature_map": "hyperbolic", "qk_norm": True},
    "eps": {"eps": 1e-2},
}
TIMES = torch.randint(0, 12, (L,), generator=torch.Generator().manual_seed(0))


def tokens(scale: float = 1.0, length: int = L, keys: int = L) -> list[Tensor]:
    shapes = ((B, length, H, D), (B, keys, H, D), (B, keys, H, E))
    return [(scale * torch.randn(shape)).requires_grad_() for shape in shapes]


def padding() -> Tensor:
    mask = torch.rand(B, L) > 0.6
    mask[:, 0] = False
    mask[0, L - 7 :] = True
    return mask


def features_by_hand(op: PerformerAttention, x: np.ndarray) -> np.ndarray:
    """The formulas of the paper, up to a factor of each row where `eps` refers to the largest."""
    if op.qk_norm:
        x = x / np.linalg.norm(x, axis=-1, keepdims=True)
        x = x * math.exp(0.5 * float(op.log_temperature.detach()))
    else:
        x = x / D**0.25
    projected = x @ op.projection.double().numpy().T
    if op.kernel == "relu":
        return np.maximum(projected, 0) + 1e-3
    if op.feature_map == "optimal":
        a = optimal_coefficient(D**0.5 / 2, D)
        length = np.square(op.projection.double().numpy()).sum(1)
        projected = (1 - 4 * a) ** 0.5 * projected + a * length
    if op.feature_map == "hyperbolic":
        projected = np.concatenate([projected, -projected], -1)
    half = 0.5 * np.square(x).sum(-1, keepdims=True)
    largest = projected.max(-1, keepdims=True) - half
    return np.exp(projected - half) + op.eps * np.exp(largest)


def weights_by_hand(op, query, key, allowed: np.ndarray) -> np.ndarray:
    query, key = (x.detach().double().numpy().swapaxes(1, 2) for x in (query, key))
    weights = features_by_hand(op, query) @ features_by_hand(op, key).swapaxes(-1, -2)
    weights = weights * allowed
    total = weights.sum(-1, keepdims=True)
    return weights / np.where(total > 0, total, 1.0)


def allowed_pairs(causal: bool, timed: bool, mask: Tensor | None) -> np.ndarray:
    allowed = np.ones((B, 1, L, L), dtype=bool)
    if timed:
        allowed &= TIMES.numpy()[:, None] >= TIMES.numpy()
    elif causal:
        allowed &= np.tril(np.ones((L, L), dtype=bool))
    return allowed if mask is None else allowed & ~mask.numpy()[:, None, None]


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("causal", "timed"), [(False, False), (True, False), (True, True)])
def test_against_the_formula(name, masked, causal, timed):
    op = PerformerAttention(D, causal=causal, **OPTIONS[name])
    if op.qk_norm:
        nn.init.constant_(op.log_temperature, 0.7)
    query, key, value = tokens()
    mask = padding() if masked else None
    given = {"attention_mask": mask, "time_index": TIMES if timed else None}
    out, attention = op(query, key, value, output_attention=True, **given)
    weights = weights_by_hand(op, query, key, allowed_pairs(causal, timed, mask))
    expected = weights @ value.detach().double().numpy().swapaxes(1, 2)
    np.testing.assert_allclose(attention.detach(), weights, atol=1e-5)
    np.testing.assert_allclose(out.detach().transpose(1, 2), expected, atol=1e-5)
    some = torch.from_numpy(weights.sum(-1) > 0)
    close(attention.sum(-1)[some], torch.ones(int(some.sum())), 1e-5)
    close(torch.einsum("bhls,bshe->blhe", attention, value), out, 1e-5)
    alone, nothing = op(query, key, value, **given)
    assert nothing is None
    assert torch.equal(alone, out)


def test_by_default_nothing_is_added_to_the_features():
    x, op = torch.randn(3, D), PerformerAttention(D)
    for ours, right in zip(op.features(x), optimal_features(x * D**-0.25, op.projection)):
        assert torch.equal(ours, right)


def test_directions_of_one_length_have_the_features_of_the_paper():
    with pytest.warns(UserWarning, match="bias"):
        assert PerformerAttention(D, ortho_scaling=1).feature_map == "positive"
    assert PerformerAttention(D, ortho_scaling=0).feature_map == "optimal"


@pytest.mark.parametrize("options", [{}, {"feature_map": "hyperbolic"}, {"qk_norm": True}])
@pytest.mark.parametrize(("causal", "timed"), [(False, False), (True, False), (False, True)])
def test_many_features_come_close_to_softmax(causal, timed, options):
    op = PerformerAttention(D, 8192, causal=causal, **options)
    query, key, value = (0.5 * x.detach() for x in tokens())
    mask, time = padding(), TIMES if timed else None
    y, attention = op(query, key, value, mask, True, time)
    if "qk_norm" in options:
        # Their products are cosines, times a temperature of 1, before full attention divides.
        query, key = (nn.functional.normalize(x, dim=-1) * D**0.25 for x in (query, key))
    full, right = FullAttention(causal)(query, key, value, mask, True, time)
    assert (y - full).norm() < 0.06 * full.norm()
    assert (attention - right).norm() < 0.15 * right.norm()


def test_numbers_of_queries_and_keys_may_differ():
    op = PerformerAttention(D)
    query, key, value = tokens(length=9)
    out, attention = op(query, key, value, output_attention=True)
    assert out.shape == (B, 9, H, E)
    assert attention.shape == (B, H, 9, L)
    close(op(query[:, 4:5], key, value)[0], out[:, 4:5], 1e-6)


@pytest.mark.parametrize("causal", [True, False])
def test_padding_is_as_if_it_were_not_there(causal):
    op = PerformerAttention(D, causal=causal)
    mask = torch.zeros(B, L, dtype=torch.bool)
    mask[:, 50:] = True
    given = tokens()
    hidden = [
        x.detach().masked_fill(mask[..., None, None], math.nan).requires_grad_() for x in given[1:]
    ]
    y, _ = op(given[0], *hidden, mask)
    cropped = op(*(x[:, :50] for x in given))[0]
    close(y[:, :50], cropped, 1e-6)
    grads = torch.autograd.grad(y.sin().sum(), hidden)
    assert all((grad[mask] == 0).all() for grad in grads)
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("causal", [True, False])
def test_all_hidden_gives_zero(causal, name):
    op = PerformerAttention(D, causal=causal, **OPTIONS[name])
    given = tokens()
    mask = torch.zeros(B, L, dtype=torch.bool)
    mask[0] = True
    y, attention = op(*given, mask, output_attention=True)
    assert (y[0] == 0).all()
    assert (attention[0] == 0).all()
    assert (y[1] != 0).any()
    grads = torch.autograd.grad(y.sin().sum(), given)
    assert all(grad.isfinite().all() for grad in grads)
    assert all((grad[0] == 0).all() for grad in grads)


@pytest.mark.parametrize("name", ["positive", "hyperbolic", "relu", "normed"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("autocast", [True, False])
def test_extreme_inputs_are_finite(causal, name, autocast):
    op = PerformerAttention(D, causal=causal, **OPTIONS[name])
    for scale in (0.0, 1e-20, 10.0, 30.0, 1000.0):
        given = tokens(scale)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            y, _ = op(*given)
        assert y.isfinite().all()
        grads = torch.autograd.grad((1e3 * y).sum(), given)
        assert all(grad.isfinite().all() for grad in grads)


def test_autocast_changes_nothing():
    op = PerformerAttention(D, causal=True)
    given = tokens()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = op(*given)
    assert torch.equal(y, op(*given)[0])


def test_bfloat16_is_computed_in_float32():
    op = PerformerAttention(D, causal=True)
    rounded = [x.detach().bfloat16() for x in tokens()]
    y, _ = op(*rounded)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, op(*(x.float() for x in rounded))[0].bfloat16())


def test_gradcheck():
    op = PerformerAttention(4, 6, causal=True, qk_norm=True).double()
    given = [torch.randn(2, 5, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]

    def run(temperature, *tensors):
        op.log_temperature.data = temperature
        return torch.func.functional_call(op, {"log_temperature": temperature}, tensors)[0]

    temperature = op.log_temperature.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(run, (temperature, *given), fast_mode=True)


def test_inputs_need_not_be_contiguous_and_stay_unchanged():
    op = PerformerAttention(D)
    given = [x.detach().transpose(0, 2).contiguous().transpose(0, 2) for x in tokens()]
    before, mask = [x.clone() for x in given], padding()
    y, _ = op(*given, mask)
    close(y, op(*(x.contiguous() for x in given), mask)[0], 1e-6)
    assert all(torch.equal(a, b) for a, b in zip(before, given))


# The draws of the features


class Owner(nn.Module):
    """A model that counts its passes, with its layers checkpointed if asked to."""

    def __init__(self, interval: int | None = 3, checkpointed: bool = False):
        super().__init__()
        self.layers = nn.ModuleList(
            PerformerAttention(D, causal=causal, redraw_interval=interval)
            for causal in (True, False)
        )
        self.checkpointed = checkpointed

    def forward(self, x: Tensor) -> Tensor:
        redraw_when_due(self)
        for layer in self.layers:
            if self.checkpointed:
                x = x + checkpoint(layer, x, x, x, use_reentrant=False)[0]
            else:
                x = x + layer(x, x, x)[0]
        return x

    def projections(self) -> Tensor:
        return torch.stack([layer.projection.clone() for layer in self.layers])


def heads() -> Tensor:
    return torch.randn(B, 6, H, D)


def test_a_new_draw_comes_when_the_interval_is_over():
    model, drawn = Owner(3), []
    first = model.projections()
    for _ in range(8):
        model(heads())
        drawn.append([(int(m.draws), int(m.calls_since_last_redraw)) for m in model.layers])
    assert [a for a, _ in drawn] == [
        (0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3), (2, 1), (2, 2),
    ]  # fmt: skip
    assert all(a == b for a, b in drawn)
    assert (model.projections() != first).all()
    assert not torch.equal(*model.projections())


def test_without_training_or_interval_there_is_no_new_draw():
    model = Owner(1).eval()
    first = model.projections()
    for _ in range(3):
        model(heads())
    assert torch.equal(model.projections(), first)
    assert all(int(layer.calls_since_last_redraw) == 0 for layer in model.layers)
    model = Owner(None).train()
    first = model.projections()
    for _ in range(3):
        model(heads())
    assert torch.equal(model.projections(), first)


def test_the_attention_itself_never_draws():
    op = PerformerAttention(D, redraw_interval=1).train()
    before = {name: value.clone() for name, value in op.state_dict().items()}
    for _ in range(3):
        op(*tokens(), output_attention=True)
    assert all(torch.equal(value, before[name]) for name, value in op.state_dict().items())


def test_a_new_draw_on_demand():
    model = Owner(None).eval()
    first = model.projections()
    model.layers[0].calls_since_last_redraw.fill_(2)
    redraw_projections(model)
    assert (model.projections() != first).all()
    assert all(int(m.draws) == 1 and int(m.calls_since_last_redraw) == 0 for m in model.layers)


def test_checkpointing_changes_nothing():
    plain, checkpointed = Owner(2), Owner(2, checkpointed=True)
    checkpointed.load_state_dict(plain.state_dict())
    for _ in range(5):
        x, results = heads(), []
        for model in (plain, checkpointed):
            leaf = x.clone().requires_grad_()
            y = model(leaf)
            results.append((y.detach(), *torch.autograd.grad(y.sin().sum(), leaf)))
        assert all(torch.equal(a, b) for a, b in zip(*results))
        states = [model.state_dict().values() for model in (plain, checkpointed)]
        assert all(torch.equal(a, b) for a, b in zip(*states))
    assert int(plain.layers[0].draws) == 2


def test_a_new_draw_between_a_pass_and_its_gradients():
    op, given = PerformerAttention(D), tokens()
    expected = torch.autograd.grad(op(*given)[0].sin().sum(), given)
    y, _ = op(*given)
    redraw_projections(op)
    grads = torch.autograd.grad(y.sin().sum(), given)
    assert all(torch.equal(a, b) for a, b in zip(grads, expected))


@pytest.mark.parametrize("how", ["state dict", "deepcopy", "pickle"])
def test_a_reloaded_model_goes_on_with_the_same_draws(how):
    """So do the processes of a distributed training, which start from one state dict."""
    model = Owner(2)
    for _ in range(4):
        model(heads())
    if how == "state dict":
        other = Owner(2)
        assert not torch.equal(other.projections(), model.projections())
        other.load_state_dict(model.state_dict(), strict=True)
    else:
        other = copy.deepcopy(model) if how == "deepcopy" else pickle.loads(pickle.dumps(model))
    for _ in range(4):
        x = heads()
        assert torch.equal(other(x), model(x))
        assert torch.equal(other.projections(), model.projections())
    assert int(other.layers[0].draws) == 3


def test_a_seed_decides_all_draws():
    def drawn(seed: int, generator: bool) -> list[Tensor]:
        given = torch.Generator().manual_seed(seed) if generator else None
        if not generator:
            torch.manual_seed(seed)
        op = PerformerAttention(D, generator=given)
        found = [op.projection.clone()]
        for _ in range(2):
            torch.rand(1)  # what others draw does not matter
            op.redraw_projection()
            found.append(op.projection.clone())
        return found

    for generator in (True, False):
        first, again, other = (drawn(seed, generator) for seed in (1, 1, 2))
        assert all(torch.equal(a, b) for a, b in zip(first, again))
        assert not any(torch.equal(a, b) for a, b in zip(first, other))
        assert not torch.equal(first[0], first[1])
        assert not torch.equal(first[1], first[2])


def test_drawing_does_not_move_the_generator_of_others():
    op = PerformerAttention(D)
    state = torch.get_rng_state()
    op.redraw_projection()
    assert torch.equal(torch.get_rng_state(), state)


def test_reset_parameters():
    op = PerformerAttention(D, qk_norm=True)
    before, seed = op.projection.clone(), op.seed.clone()
    op.redraw_projection()
    op.calls_since_last_redraw.fill_(5)
    nn.init.ones_(op.log_temperature)
    op.reset_parameters()
    assert (op.projection != before).all()
    assert op.seed != seed
    assert int(op.draws) == int(op.calls_since_last_redraw) == 0
    assert op.log_temperature == 0


def test_built_on_the_meta_device():
    with torch.device("meta"):
        op = PerformerAttention(D)
        redraw_projections(op)
    assert op.projection.is_meta
    op.to_empty(device="cpu").reset_parameters()
    assert torch.equal(op(*tokens())[0].isfinite(), torch.ones(B, L, H, E, dtype=torch.bool))


# Normalized queries and keys


def test_normalized_queries_and_keys():
    op = PerformerAttention(D, qk_norm=True)
    query, key, value = tokens()
    y, _ = op(query, key, value)
    close(op(100 * query, 0.01 * key, value)[0], y, 1e-5)
    y.sin().sum().backward()
    assert op.log_temperature.grad != 0
    names = [name for name, _ in op.named_parameters()]
    assert names == ["log_temperature"]
    assert [*PerformerAttention(D).parameters()] == []


# Options


@pytest.mark.parametrize(("dim", "expected"), [(1, 64), (8, 64), (32, 111), (64, 267)])
def test_default_number_of_features(dim, expected):
    op = PerformerAttention(dim)
    assert op.nb_features == expected
    assert op.projection.shape == (expected, dim)
    x = torch.randn(2, 5, 3, dim)
    assert op(x, x, x)[0].isfinite().all()


def test_directions_of_one_length():
    with pytest.warns(UserWarning, match="ortho_scaling=1 gives.*with a bias"):
        op = PerformerAttention(D, ortho_scaling=1)
    close(op.projection.norm(dim=1), torch.full((64,), D**0.5), 1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PerformerAttention(D, ortho_scaling=1, kernel="relu")
        PerformerAttention(D, ortho_scaling=1, orthogonal=False)


def test_independent_directions():
    drawn = PerformerAttention(D, orthogonal=False).projection[:D]
    gram = drawn @ drawn.T
    assert (gram - gram.diagonal().diag()).abs().max() > 0.1
    drawn = PerformerAttention(D).projection[:D]
    gram = drawn @ drawn.T
    assert (gram - gram.diagonal().diag()).abs().max() < 1e-4


def test_mask_flag_is_another_name_of_causal():
    assert PerformerAttention(D, mask_flag=True).causal
    assert PerformerAttention(D, causal=True).causal
    assert not PerformerAttention(D).causal


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "gauss"}, r"kernel='gauss' is unknown.*'softmax', 'relu'"),
        ({"feature_map": "sine"}, r"feature_map='sine' is unknown.*'optimal', 'positive'"),
        ({"ortho_scaling": 2}, r"ortho_scaling=2 is unknown.*0, 1"),
        ({"nb_features": 0}, r"at least 1, got nb_features=0"),
        ({"redraw_interval": 0}, r"at least 1, got.*redraw_interval=0"),
        ({"dim_heads": 0}, r"dim_heads must be at least 1, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        PerformerAttention(**{"dim_heads": D, **options})


def test_bad_masks():
    op = PerformerAttention(D, causal=True)
    with pytest.raises(ValueError, match=r"\[B, S\] = \[2, 70\].*got \[70, 70\].*full attention"):
        op(*tokens(), torch.zeros(L, L, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"attention_mask must be boolean, got torch\.float32"):
        op(*tokens(), torch.zeros(B, L))
    with pytest.raises(ValueError, match="as many queries as keys"):
        op(*tokens(length=9))


def test_repr():
    expected = "PerformerAttention(8, nb_features=64, kernel='softmax', causal=True)"
    assert str(PerformerAttention(8, causal=True)) == expected


# What it costs


class ExplicitSoftmax(nn.Module):
    def forward(self, query, key, value):
        weights = torch.einsum("blhd,bshd->bhls", query, key).softmax(-1)
        return torch.einsum("bhls,bshe->blhe", weights, value), None


def costs(op: nn.Module, lengths: list[int]) -> tuple[list[int], float]:
    """The operations of a training pass, and the slope of its memory."""
    flops, peaks = [], []
    for length in lengths:
        given = tokens(length=length, keys=length)
        with FlopCounterMode(display=False) as counter, StorageCounter() as memory:
            op(*given)[0].sum().backward()
        flops.append(counter.get_total_flops())
        peaks.append(memory.peak)
    return flops, np.polyfit(np.log(lengths), np.log(peaks), 1)[0]


@pytest.mark.choice
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", ["optimal", "positive", "hyperbolic", "relu"])
def test_cost_is_linear_in_the_length(causal, name):
    flops, slope = costs(PerformerAttention(D, causal=causal, **OPTIONS[name]), [1024, 2048, 4096])
    assert flops[1] == 2 * flops[0] > 0
    assert flops[2] == 2 * flops[1]
    assert slope <= 1.1


def test_cost_of_what_it_replaces_is_not():
    flops, slope = costs(ExplicitSoftmax(), [128, 256, 512])
    assert flops[2] == 4 * flops[1] == 16 * flops[0] > 0
    assert slope >= 1.8
