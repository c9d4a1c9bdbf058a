import pytest
import torch
from torch import nn

from pyg_stmamba.nn.transformer import FeedForwardBlock, MixtureOfExperts
from pyg_stmamba.nn.transformer.feed_forward_resolver import FEED_FORWARD, feed_forward_resolver


@pytest.mark.parametrize("name", FEED_FORWARD)
def test_names(name):
    network = feed_forward_resolver(name, 8, 12, num_experts=3, top_k=1)
    assert isinstance(network, FeedForwardBlock)
    y, aux_loss = network(torch.randn(2, 5, 8))
    assert y.shape == (2, 5, 8)
    experts = [module for module in network.modules() if isinstance(module, MixtureOfExperts)]
    assert len(experts) == (name == "moe")
    assert (aux_loss > 0) == (name == "moe")


def test_activations_are_those_named():
    x = torch.randn(2, 5, 8)
    for name in ("gelu", "relu", "silu"):
        function = getattr(nn.functional, name)
        network = feed_forward_resolver(name, 8, 12)
        expected = network.linear2(function(network.linear1(x)))
        torch.testing.assert_close(network(x)[0], expected)


def test_instances_and_none_pass():
    own = nn.Linear(8, 8)
    assert feed_forward_resolver(own, 8, 12) is own
    assert feed_forward_resolver(None, 8, 12) is None


def test_unknown_names():
    with pytest.raises(ValueError, match=r"unknown feed-forward network 'mlp'; choose one of \["):
        feed_forward_resolver("mlp", 8, 12)
