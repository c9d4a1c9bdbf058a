import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyg_stmamba.nn.activation import SwiGLU, feed_forward_activation
from tests.laws import close, inputs_stay_untouched


def test_swiglu():
    x = 30 * torch.randn(3, 5, 8)  # nothing is clamped
    expected = x[..., :4] / (1 + (-x[..., :4]).exp()) * x[..., 4:]
    close(SwiGLU()(x), expected, 1e-5)
    inputs_stay_untouched(SwiGLU(), x.requires_grad_())


@pytest.mark.parametrize(
    ("name", "function"),
    [("gelu", F.gelu), ("relu", F.relu), ("silu", F.silu), ("swish", F.silu)],
)
def test_names(name, function):
    x = torch.randn(3, 8)
    close(feed_forward_activation(name, use_swiglu=False)(x), function(x), 0.0)


def test_swiglu_stands_for_all():
    assert isinstance(feed_forward_activation("gelu", use_swiglu=True), SwiGLU)
    with pytest.warns(UserWarning, match="'relu' has no effect with use_swiglu=True"):
        activation = feed_forward_activation("relu", use_swiglu=True)
    assert isinstance(activation, SwiGLU)
    assert isinstance(feed_forward_activation("relu", use_swiglu=False), nn.ReLU)


@pytest.mark.parametrize("use_swiglu", [False, True])
def test_unknown(use_swiglu):
    with pytest.raises(ValueError, match=r"'tanh'.*\['gelu', 'relu', 'silu', 'swish'\]"):
        feed_forward_activation("tanh", use_swiglu)
