"""The names and the snippets of the documents on space-time transformers and on the encoder/decoder
family."""

import pytest
import torch
from torch import nn

import pyg_stmamba
from pyg_stmamba import models
from pyg_stmamba import nn as layers

PUBLIC = [
    "FactorizedEncoder", "FrequencyAttention", "JointSpaceTimeTransformer",
    "MiniSpaceTimeTransformer", "MixtureOfExperts", "MultiAttention", "SpaceTimeTransformer",
    "SpatialTransformer", "TemporalTransformer", "TransformerDecoder", "TransformerEncoder",
]  # fmt: skip
LAYERS = [
    "AdaptiveLayerNorm", "AdaptiveRMSNorm", "BaseTransformerLayer", "DividedSpaceTimeBlock",
    "FeedForwardBlock", "FourierBlock", "PatchEmbed", "PositionalEncoding", "RMSNorm",
    "TemporalPositionalEncoding", "TopKRouter", "TransformerDecoderLayer",
    "TransformerEncoderLayer", "load_balancing_loss", "reorder_incremental_state", "router_z_loss",
]  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names(name):
    home = models if name == "SpaceTimeTransformer" else layers
    assert getattr(pyg_stmamba, name) is getattr(home, name)
    assert name in pyg_stmamba.__all__


@pytest.mark.parametrize("name", LAYERS)
def test_names_of_layers(name):
    assert hasattr(layers, name)
    assert name in layers.__all__


class TemporalTransformerOfTheDocument(nn.Module):
    """Post-norm attention over the first axis, then four times as wide a network."""

    def __init__(self, dim, num_heads):
        super().__init__()
        self.attn = nn.MultiheadAttention(dim, num_heads)
        self.ffn = nn.Sequential(nn.Linear(dim, dim * 4), nn.GELU(), nn.Linear(dim * 4, dim))
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x):
        x = self.norm1(x + self.attn(x, x, x)[0])
        return self.norm2(x + self.ffn(x))


def test_temporal_transformer():
    x = torch.randn(7, 3, 8)  # [T, B, D]
    y = pyg_stmamba.TemporalTransformer(8, 2)(x)
    assert y.shape == x.shape
    assert y.shape == TemporalTransformerOfTheDocument(8, 2)(x).shape
    assert y.isfinite().all()
    torch.testing.assert_close(y.mean(-1), torch.zeros(7, 3), atol=1e-5, rtol=0)  # norms come last


def test_mini_space_time_transformer():
    x = torch.randn(2, 4, 4, 3)  # [B, T, N, D]
    y = pyg_stmamba.MiniSpaceTimeTransformer()(x)
    assert y.shape == x.shape
    assert y.isfinite().all()


def test_high_performance_time_series_model():
    encoder = pyg_stmamba.TransformerEncoder(
        input_size=7,
        d_model=512,
        nhead=8,
        num_layers=6,
        att_type="xformer",
        use_swiglu=True,
        norm_strategy="pre_norm",
        use_adaptive_ln="rms",
        use_gradient_checkpointing=True,
    )
    y = encoder(torch.randn(2, 96, 7))
    assert y.shape == (2, 96, 512)
    y.square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())


def test_large_scale_configuration():
    def build(**size):
        arguments = {"d_model": 1024, "num_layers": 12, "nhead": 16, "dim_feedforward": 4096}
        return pyg_stmamba.TransformerDecoder(
            input_size=7, output_size=1, use_gradient_checkpointing=True, **{**arguments, **size}
        )

    with torch.device("meta"):
        decoder = build()
        y = decoder(torch.randn(2, 5, 7), torch.randn(2, 9, 1024))
    assert y.shape == (2, 5, 1)
    assert len(decoder.layers) == 12
    small = build(d_model=32, num_layers=2, nhead=4, dim_feedforward=64)
    small(torch.randn(2, 5, 7), torch.randn(2, 9, 32)).square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in small.parameters())


def test_inference_optimized_setup():
    model = pyg_stmamba.TransformerDecoder(
        input_size=10,
        output_size=5,
        share_layers=True,
        use_final_norm=False,
        use_gradient_checkpointing=False,
    ).eval()
    pred_length, encoder_output = 4, torch.randn(2, 6, 512)
    inputs, outputs = torch.randn(2, pred_length, 10), []
    with torch.no_grad():
        incremental_state = {}
        for step in range(pred_length):
            current_input = inputs[:, step : step + 1]
            output, incremental_state = model.forward_one_step(
                tgt=current_input, memory=encoder_output, incremental_state=incremental_state
            )
            outputs.append(output)
        whole = model(inputs, encoder_output)
    assert output.shape == (2, 1, 5)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, atol=1e-5, rtol=1e-5)
    first = incremental_state["layers"][0]
    assert first["self_attn"]["key"].shape == (2, pred_length, 512)
    assert first["cross_attn"]["value"].shape == (2, 6, 512)
