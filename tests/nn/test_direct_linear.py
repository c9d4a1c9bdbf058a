from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pyg_stmamba.nn.direct_linear import DLinear, LinearOverTime, NLinear
from tests import laws
from tests.laws import close, same

L, H, C = 10, 4, 3


def torch_linear(module: LinearOverTime, x: torch.Tensor) -> torch.Tensor:
    """torch's linear layer, a feature at a time."""
    outputs = []
    for c in range(x.size(-1)):
        linear = nn.Linear(L, H)
        weight, bias = module.weight, module.bias
        if not module.shared_weights:
            weight, bias = weight[c], bias[c]
        linear.load_state_dict({"weight": weight, "bias": bias})
        outputs.append(linear(x[..., c]))
    return torch.stack(outputs, -1)


@pytest.mark.parametrize("shared_weights", [False, True])
@pytest.mark.parametrize("leading", [(), (5,), (2, 5)])
def test_linear_over_time_equals_torch(leading, shared_weights):
    module = LinearOverTime(L, H, shared_weights, C)
    x = torch.randn(*leading, L, C)
    close(module(x), torch_linear(module, x), 1e-6)


@pytest.mark.parametrize("shared_weights", [False, True])
def test_dlinear_is_two_linear_maps_of_autoformers_parts(shared_weights):
    autoformer = pytest.importorskip("transformers.models.autoformer.modeling_autoformer")
    parts = autoformer.AutoformerSeriesDecompositionLayer(SimpleNamespace(moving_average=5))
    model, x = DLinear(L, H, 5, shared_weights, C), torch.randn(2, L, C)
    seasonal, trend = parts(x)
    expected = torch_linear(model.seasonal, seasonal) + torch_linear(model.trend, trend)
    close(model(x), expected, 1e-6)
    assert DLinear(L, H).decomposition.moving_avg.kernel_size == 25


@pytest.mark.parametrize("shared_weights", [False, True])
def test_nlinear_is_a_linear_map_around_the_last_value(shared_weights):
    model, x = NLinear(L, H, shared_weights, C), torch.randn(2, L, C)
    last = x[:, -1:]
    close(model(x), torch_linear(model.linear, x - last) + last, 1e-6)
    close(model(x + 100), model(x) + 100, 1e-4)


MODELS = [
    DLinear(L, H, 4),
    DLinear(L, H, 4, shared_weights=False, num_features=C),
    NLinear(L, H),
    NLinear(L, H, shared_weights=False, num_features=C),
]


@pytest.mark.parametrize("model", MODELS)
def test_laws_of_every_module(model):
    x = torch.randn(2, 5, L, C)
    laws.copies_are_equal(model, lambda copy: copy(x))
    laws.inputs_stay_untouched(model, x.requires_grad_())
    laws.layout_does_not_matter(model, x.detach(), tolerance=1e-5)
    before = model(x)
    model.reset_parameters()
    assert not torch.equal(model(x), before)
    assert model(x[:0]).shape == (0, 5, H, C)


@pytest.mark.parametrize("model", MODELS)
def test_gradcheck_and_half_precision(model):
    x = torch.randn(2, L, C, dtype=torch.float64, requires_grad=True)
    model = model.double()
    assert torch.autograd.gradcheck(model, (x,))
    expected = model(x).float()
    model, x = model.bfloat16(), x.detach().bfloat16()
    assert model(x).dtype == torch.bfloat16
    close(model(x).float(), expected, 0.1)
    model.float()


def test_features_have_their_own_weights_exactly_when_not_shared():
    x = torch.randn(2, L, 1).expand(2, L, C)
    for build in (DLinear, NLinear):
        shared, own = build(L, H)(x), build(L, H, shared_weights=False, num_features=C)(x)
        close(shared[..., 0], shared[..., 2], 1e-6)
        assert not torch.allclose(own[..., 0], own[..., 2])
        same(build(L, H)(torch.zeros(2, L, C)).std(-1), torch.zeros(2, H))


def test_initialization():
    for own in (False, True):
        linear = LinearOverTime(100, 50, not own, 4)
        for parameter in linear.parameters():
            assert parameter.abs().max() <= 0.1
            assert parameter.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.2)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="at least 1, got 0 and 4"):
        NLinear(0, 4)
    with pytest.raises(ValueError, match="shared_weights=False needs num_features, got None"):
        DLinear(L, H, shared_weights=False)
    with pytest.raises(ValueError, match=r"\[\.\.\., 10, C\], got \(2, 9, 3\)"):
        NLinear(L, H)(torch.randn(2, 9, C))
    with pytest.raises(ValueError, match=r"\[\.\.\., 10, 4\], got \(2, 10, 3\)"):
        DLinear(L, H, shared_weights=False, num_features=4)(torch.randn(2, L, C))
    assert str(LinearOverTime(L, H)) == "LinearOverTime(10, 4, shared_weights=True)"
