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


def test_errors():
    with pytest.raises(ValueError, match=r"d_model=18 .*n_heads=4"):
        TokenTransformer(N, M, 1, 18, n_heads=4)
    assert TokenTransformer(N, M, 1, 18, n_heads=4, d_q_k=3, d_v=5).eval().spectral_time is None
    with pytest.raises(ValueError, match="attention 'linear' is unknown"):
        TokenTransformer(N, M, 1, 16, local_cross_attention="linear")
