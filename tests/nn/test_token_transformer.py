import pytest
import torch
from torch import nn

from pyg_stmamba.nn import (
    ConvBlock,
    Decoder,
    DecoderLayer,
    Embedding,
    Encoder,
    EncoderLayer,
    FullAttention,
    Normalization,
    TokenTransformer,
    create_full_attention,
)
from tests.laws import close, same

B, LC, LT, N, M, D = 2, 8, 5, 4, 2, 16
HEADS = {"d_model": D, "d_q_k": 8, "d_v": 8, "n_heads": 2}


def model(**options) -> TokenTransformer:
    made = TokenTransformer(
        N, M, 1, D, n_heads=2, n_encoder_layers=2, attention="full", target_index=[3, 1], **options
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


def given(steps: int, variables: int) -> tuple[torch.Tensor, ...]:
    x, y = torch.rand(B, steps, 1), torch.randn(B, steps, variables)
    return x, y, torch.rand(B, steps, variables) < 0.7


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("windows", [1, 2])
def test_is_what_its_parts_make_by_hand(windows, causal):
    """C21: layers put together one by one, with the parameters of the model."""
    op = model(windows=windows, downsample_convs_block=1)
    attention = [create_full_attention(**HEADS) for _ in range(12)]
    options = [{"windows": windows, "shifted": windows > 1 and layer == 1} for layer in range(2)]
    encoder = Encoder(
        [EncoderLayer(D, N, attention[i], attention[i + 2], **options[i]) for i in range(2)],
        [ConvBlock(N, D)],
        Normalization(D),
    )
    layers = [
        DecoderLayer(D, M, N, *attention[4 * i + 4 : 4 * i + 8], [3, 1], **options[i])
        for i in range(2)
    ]
    decoder = Decoder(layers, Normalization(D))
    encoder_embedding = Embedding(N, 1, D, max_seq_len=512)
    decoder_embedding = Embedding(M, 1, D, max_seq_len=512, is_encoder=False)
    for made, theirs in (
        (encoder, op.encoder),
        (decoder, op.decoder),
        (encoder_embedding, op.encoder_embedding),
        (decoder_embedding, op.decoder_embedding),
    ):
        made.load_state_dict(theirs.state_dict(), strict=True)
        made.eval()

    x, y, flags = given(LC, N)
    dx, dy, dflags = given(LT, M)
    memory = op.encode(x, y, flags)
    out, attentions = op.decode(dx, dy, dflags, memory, causal=causal)
    assert attentions is None

    tokens, space, _, _ = encoder_embedding(y, x, flags)
    expected, _, _ = encoder(tokens, space)
    same(memory.tokens, expected)
    tokens, space, _, _ = decoder_embedding(dy, dx, dflags, start_len=LT)
    h, _ = decoder(tokens, space, expected, causal=causal)
    values = (h @ op.head.weight.t() + op.head.bias).reshape(B, M, LT).transpose(1, 2)
    close(out, values, 1e-6)


def test_padding_reaches_nothing():
    op = model(downsample_convs_embedding=1)
    x, y, flags = given(LC, N)
    dx, dy, dflags = given(LT, M)
    padding = torch.zeros(B, LC, N, dtype=torch.bool)
    padding[:, 2:] = True
    memory = op.encode(x, y, flags, padding)
    assert memory.padding_mask.shape == (B, N * 4)
    assert memory.padding_mask.any()
    out, _ = op.decode(dx, dy, dflags, memory)
    other = op.encode(x, y.masked_fill(padding, 1e3), flags | padding, padding)
    same(op.decode(dx, dy, dflags, other)[0], out)


def test_reset_parameters_draws_all_anew():
    op = model()
    before = {name: value.clone() for name, value in op.named_parameters()}
    op.reset_parameters()
    for name, value in op.named_parameters():
        if value.dim() > 1:
            assert not torch.equal(value, before[name]), name
    for module in op.modules():
        if isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()


def test_options_reach_the_layers():
    op = TokenTransformer(
        N, M, 1, D, target_index=[3, 1], max_seq_len=20, d_q_k=3, d_v=5, n_heads=2,
        n_encoder_layers=2, n_decoder_layers=2, d_ff=7, time_emb_dim=5,
        downsample_convs_embedding=1, downsample_convs_block=2, data_dropout_embedding=0.1,
        dropout_embedding=0.2, dropout_attn=0.3, dropout_qkv=0.4, dropout_ff=0.5,
        redraw_interval=6, performer_attention_kernel="relu", nb_features=9, qk_norm=True,
        windows=2, activation="relu", normalization_type="rms", out_dim=3, attention="full",
        global_self_attention="performer", local_cross_attention="performer",
        global_cross_attention=False,
    )  # fmt: skip
    encoder, decoder = op.encoder_embedding, op.decoder_embedding
    assert (len(encoder.convs), len(decoder.convs)) == (1, 0)
    assert (encoder.data_dropout, decoder.data_dropout) == (0.1, None)
    assert encoder.position.max_seq_len == decoder.position.max_seq_len == 20
    assert encoder.time.embed_dim == decoder.time.embed_dim == 5
    assert encoder.given is not None
    assert len(op.encoder.conv_layers) == 2
    assert op.head.out_features == 3
    assert op.encoder.dropout.p == op.decoder.dropout.p == 0.2
    assert op.encoder.norm.method == op.decoder.norm.method == "rms"
    layers = [*op.encoder.layers, *op.decoder.layers]
    for layer in layers:
        assert layer.norm.method == "rms"
        assert layer.feed_forward.linear1.out_features == 7
        assert isinstance(layer.feed_forward.activation, nn.ReLU)
        assert layer.feed_forward.dropout.p == 0.5
    performers, full = [], []
    for layer in op.encoder.layers:
        performers.append(layer.global_attention)
        full.append(layer.local_attention)
    for layer in op.decoder.layers:
        performers += [layer.global_self, layer.local_cross]
        full.append(layer.local_self)
        assert layer.global_cross is None
        assert layer.local_cross.attention.target_index.tolist() == [3, 1]
    for phase in performers + full:
        assert phase.dropout.p == 0.3
        heads = phase.attention.attention
        assert heads.dropout.p == 0.4
        assert heads.query_projection.out_features == 2 * 3
        assert heads.value_projection.out_features == 2 * 5
    for phase in full:
        assert isinstance(phase.attention.attention.attention, FullAttention)
    for phase in performers:
        attention = phase.attention.attention.attention
        assert (attention.redraw_interval, attention.nb_features) == (6, 9)
        assert (attention.kernel, attention.qk_norm) == ("relu", True)
    for layer, shifted in zip(layers, [False, True, False, True]):
        phase = getattr(layer, "global_attention", None) or layer.global_self
        windowing = phase.attention.windowing
        assert (windowing.windows, windowing.shifted) == (2, shifted)


def test_options_that_leave_something_out():
    op = TokenTransformer(
        N, M, 1, D, n_heads=2, windows=2, use_shifted_time_window=False, indicator_embedding=False,
        position_embedding="time2vec", time_embedding=False, final_norm=False,
        global_self_attention=False, local_self_attention="full",
    )  # fmt: skip
    assert op.encoder.norm is op.decoder.norm is None
    for embedding in (op.encoder_embedding, op.decoder_embedding):
        assert embedding.given is embedding.time is None
        assert embedding.position.position_embedding == "time2vec"
    for layer in op.encoder.layers:
        assert layer.global_attention is None
        assert isinstance(layer.local_attention.attention.attention.attention, FullAttention)
    for layer in op.decoder.layers:
        assert layer.global_self is None
        assert layer.global_cross is not None
    op = TokenTransformer(N, M, 1, D, n_heads=2, windows=2, use_shifted_time_window=False)
    for layer in op.encoder.layers:
        assert not layer.global_attention.attention.windowing.shifted
    for layer in op.decoder.layers:
        assert not layer.global_self.attention.windowing.shifted


def test_encoder_and_decoder_share_one_spectral_time():
    op = TokenTransformer(N, M, 1, D, n_heads=2, time_embedding="spectral", time_emb_dim=6)
    assert op.spectral_time is op.encoder_embedding.time is op.decoder_embedding.time
    assert op.spectral_time.num_modes == 3
    op.spectral_time.fit(torch.sin(torch.arange(300.0) / 5).unsqueeze(-1))
    before = op.spectral_time.freqs.clone()
    op.reset_parameters()
    same(op.spectral_time.freqs, before)


def test_errors():
    with pytest.raises(ValueError, match=r"d_model=18 .*n_heads=4"):
        TokenTransformer(N, M, 1, 18, n_heads=4)
    assert TokenTransformer(N, M, 1, 18, n_heads=4, d_q_k=3, d_v=5).eval().spectral_time is None
    with pytest.raises(ValueError, match="time_emb_dim=1 must be at least 2"):
        TokenTransformer(N, M, 1, 16, n_heads=4, time_embedding="spectral", time_emb_dim=1)
    with pytest.raises(ValueError, match="attention 'linear' is unknown"):
        TokenTransformer(N, M, 1, 16, local_cross_attention="linear")
