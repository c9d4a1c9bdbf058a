"""The names and the snippets of the spatio-temporal transformer."""

import torch

import pyg_stmamba
from pyg_stmamba import models, nn, st_transformer

PUBLIC = [
    "GlobalNorm", "LinearModel", "MovingAvg", "PerformerAttention", "RevIN", "SeriesDecomposition",
    "SpatioTemporalPerformer", "SpectralTimeEmbedding", "Time2Vec",
]  # fmt: skip


def test_names_are_the_same_objects():
    for name in st_transformer.__all__:
        home = models if name == "SpatioTemporalPerformer" else nn
        assert getattr(st_transformer, name) is getattr(home, name)
    for name in PUBLIC:
        assert getattr(pyg_stmamba, name) is getattr(st_transformer, name)


def test_the_import_list_of_the_seed():
    from pyg_stmamba.st_transformer import (  # noqa: F401
        Decoder,
        DecoderLayer,
        Embedding,
        Encoder,
        EncoderLayer,
        GlobalNorm,
        LinearModel,
        MovingAvg,
        PerformerAttention,
        RevIN,
        SeriesDecomposition,
        SpatioTemporalPerformer,
        Time2Vec,
    )


def test_the_example_of_the_seed():
    from pyg_stmamba.st_transformer import SpatioTemporalPerformer

    for time_embedding in (True, False):
        model = SpatioTemporalPerformer(
            d_y_context=49, d_y_target=49, d_x=1, d_model=128, time_embedding=time_embedding
        )
        enc_x, enc_y = torch.rand(2, 8, 1), torch.randn(2, 8, 49)
        dec_x, dec_y = torch.rand(2, 5, 1), torch.randn(2, 5, 49)
        output = model(enc_x, enc_y, dec_x, dec_y)
        assert isinstance(output, torch.Tensor)
        assert output.shape == (2, 5, 49)
        assert output.isfinite().all()
