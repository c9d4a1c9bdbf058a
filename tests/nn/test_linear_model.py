import numpy as np
import pytest
import torch

from pyg_stmamba.nn.linear_model import LinearModel
from tests import laws
from tests.laws import close, same

C = 3


def numpy_loop(model, context, horizon):
    """The recursion of the formula, a number at a time."""
    weight = model.weight.detach().double().numpy()
    bias = model.bias.detach().double().numpy()
    window = model.context_points
    flat = context.double().numpy().reshape(-1, *context.shape[-2:])
    out = np.zeros((len(flat), horizon, flat.shape[-1]))
    for row, series in enumerate(flat):
        for c in range(series.shape[-1]):
            group = 0 if model.shared_weights else c
            w, b, z = weight[group], bias[group], list(series[:, c])
            z = [z[0]] * (window - len(z)) + z
            for h in range(horizon):
                z.append(b + sum(w[j] * z[-window + j] for j in range(window)))
                out[row, h, c] = z[-1]
    return out.reshape(*context.shape[:-2], horizon, -1)


@pytest.mark.parametrize("shared_weights", [False, True])
@pytest.mark.parametrize("length", [1, 3, 5, 9])
@pytest.mark.parametrize("horizon", [1, 4, 13])
def test_equals_a_loop(horizon, length, shared_weights):
    model = LinearModel(5, shared_weights, d_yt=C)
    context = torch.randn(2, 4, length, C)
    y = model(context, horizon)
    assert y.shape == (2, 4, horizon, C)
    np.testing.assert_allclose(
        y.detach(), numpy_loop(model, context, horizon), rtol=1e-5, atol=1e-6
    )


def test_equals_powers_of_the_companion_matrix():
    """Over many steps, and with a root outside of the unit circle."""
    window, horizon = 6, 40
    model = LinearModel(window, shared_weights=True).double()
    with torch.no_grad():
        model.weight.add_(0.3)
    context = torch.randn(window, 1, dtype=torch.float64)
    companion = np.eye(window + 1, k=1)
    companion[-2] = [*model.weight[0].tolist(), model.bias.item()]
    companion[-1] = 0
    companion[-1, -1] = 1
    assert np.abs(np.linalg.eigvals(companion[:-1, :-1])).max() > 1
    state, expected = np.append(context.numpy(), 1.0), []
    for _ in range(horizon):
        state = companion @ state
        expected.append(state[-2])
    np.testing.assert_allclose(model(context, horizon).detach()[:, 0], expected, rtol=1e-10)


def test_shared_weights_take_any_number_of_variables():
    model = LinearModel(4, shared_weights=True, d_yt=C)
    x = torch.randn(2, 6, 11)
    one_by_one = [model(x[..., c : c + 1], 5) for c in range(11)]
    close(model(x, 5), torch.cat(one_by_one, -1), 1e-6)
    assert [tuple(p.shape) for p in model.parameters()] == [(1, 4), (1,)]


def test_variables_have_their_own_weights():
    model, x = LinearModel(4, d_yt=C), torch.randn(2, 6, C)
    assert [tuple(p.shape) for p in model.parameters()] == [(C, 4), (C,)]
    before = model(x, 5)
    with torch.no_grad():
        model.weight[1] += 1
    moved = (model(x, 5) != before).flatten(0, 1).any(0)
    assert moved.tolist() == [False, True, False]


def test_longer_horizons_go_on_and_short_ones_feed_back():
    model, x = LinearModel(4, d_yt=C), torch.randn(2, 6, C)
    y = model(x, 9)
    close(model(x, 3), y[:, :3], 1e-6)
    close(model(torch.cat([x, y[:, :3]], 1), 6), y[:, 3:], 1e-5)


@pytest.mark.parametrize("shared_weights", [False, True])
@pytest.mark.parametrize("length", [2, 5])
def test_gradcheck(length, shared_weights):
    """Through all steps: no forecast that is fed back is cut off."""
    model = LinearModel(3, shared_weights, d_yt=2).double()
    x = torch.randn(2, length, 2, dtype=torch.float64, requires_grad=True)

    def run(x, weight, bias):
        parameters = {"weight": weight, "bias": bias}
        return torch.func.functional_call(model, parameters, (x, 4))

    assert torch.autograd.gradcheck(run, (x, model.weight, model.bias))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtype_follows_the_input(dtype):
    model, x = LinearModel(4, d_yt=C), torch.randn(2, 6, C).to(dtype)
    y = model(x, 7)
    assert y.dtype == dtype
    close(y.double(), model(x.double(), 7), 1e-10 if dtype == torch.float64 else 1e-2)


def test_autocast_leaves_the_recursion_in_float32():
    model, x = LinearModel(4, d_yt=C), torch.randn(2, 6, C)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x, 7)
    same(y, model(x, 7))
    assert y.dtype == torch.float32


@pytest.mark.parametrize("shared_weights", [False, True])
def test_laws_of_every_module(shared_weights):
    model = LinearModel(4, shared_weights, d_yt=C)
    x = torch.randn(2, 6, C)
    laws.copies_are_equal(model, lambda copy: copy(x, 5))
    laws.inputs_stay_untouched(model, x.requires_grad_(), 5)
    laws.layout_does_not_matter(model, x.detach(), 5)
    assert model(x[:0], 5).shape == (0, 5, C)
    assert model(x[0], 5).shape == (5, C)


def test_initialization():
    model = LinearModel(100, d_yt=200)
    for parameter in model.parameters():
        assert parameter.abs().max() <= 0.1
        assert parameter.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.1)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="at least 1, got 0 and 7"):
        LinearModel(0)
    with pytest.raises(ValueError, match=r"\[\.\.\., L, 7\].* got \(2, 5, 3\)"):
        LinearModel(4)(torch.randn(2, 5, 3), 2)
    with pytest.raises(ValueError, match=r"\[\.\.\., L, C\].* got \(2, 0, 3\)"):
        LinearModel(4, shared_weights=True)(torch.randn(2, 0, 3), 2)
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        LinearModel(4)(torch.randn(2, 5, 7), 0)
    assert str(LinearModel(4)) == "LinearModel(4, shared_weights=False, d_yt=7)"
