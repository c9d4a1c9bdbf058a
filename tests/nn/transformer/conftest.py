import pytest
import torch
from torch import Tensor, nn

D, HEADS, INNER = 12, 3, 20


def weights_of_torch(layer: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """The weights of a layer of torch under the names of ours."""
    norms = ["self_attn_phase", "feed_forward_phase"]
    if isinstance(layer, nn.TransformerDecoderLayer):
        norms.insert(1, "cross_attn_phase")
    renamed = {}
    for name, value in layer.state_dict().items():
        if name.startswith("norm"):
            number, leaf = name.removeprefix("norm").split(".")
            name = f"{norms[int(number) - 1]}.norm.{leaf}"
        elif name.startswith("multihead_attn"):
            name = name.replace("multihead_attn", "cross_attn")
        elif name.startswith("linear"):
            name = f"feed_forward.{name}"
        renamed[prefix + name] = value
    return renamed


def randomized(module: nn.Module) -> nn.Module:
    """With parameters that no initialization gives, so that none of them is idle."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


@pytest.fixture
def causal() -> Tensor:
    return nn.Transformer.generate_square_subsequent_mask(6, dtype=torch.float64) < 0
