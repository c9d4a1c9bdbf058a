import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pyg_stmamba.nn.blocks.attention_layer import AttentionLayer
from pyg_stmamba.nn.blocks.st_mamba import STMambaBlock
from pyg_stmamba.nn.temporal.factorized import TemporalFactorized
from tests import laws
from tests.nn.encoder_layer_oracle import randomized, torch_layer

C, HEADS, STEPS = 8, 2, 9
CAUSAL = {
    "learned": lambda: TemporalFactorized(C, HEADS, max_length=16),
    "sinusoidal": lambda: TemporalFactorized(C, HEADS, position="sinusoidal", mlp_ratio=2),
    "without positions": lambda: TemporalFactorized(C, heads=1, position=None),
    "with dropout": lambda: TemporalFactorized(C, HEADS, dropout=0.3),
}


def series(*leading: int) -> torch.Tensor:
    return torch.randn(*leading, STEPS, C)


def as_layer(op: TemporalFactorized) -> torch.nn.TransformerEncoderLayer:
    layer = AttentionLayer(op.attention, C, op.feed_forward.linear1.out_features / C)
    layer.norm1, layer.norm2, layer.feed_forward = op.norm1, op.norm2, op.feed_forward
    return torch_layer(layer, HEADS, norm_first=True)


@pytest.mark.parametrize("causal", [True, False])
def test_is_what_a_layer_of_torch_adds(causal):
    op = randomized(TemporalFactorized(C, HEADS, causal=causal, position=None))
    x = series(3)
    future = torch.ones(STEPS, STEPS, dtype=torch.bool).triu(1) if causal else None
    laws.close(x + op(x), as_layer(op)(x, src_mask=future), 1e-6)


def test_mask_against_torch():
    op = randomized(TemporalFactorized(C, HEADS, causal=False, position=None))
    x = series(4)
    mask = torch.rand(4, STEPS) > 0.3
    expected = as_layer(op)(x, src_key_padding_mask=~mask)
    laws.close((x + op(x, mask))[mask], expected[mask], 1e-6)


def test_a_block_has_one_residual():
    block = STMambaBlock(
        C, dropout=0.0, spatial=None, temporal=TemporalFactorized(C, position=None), norm="pre"
    )
    op = block.temporal
    with torch.no_grad():
        for parameter in (*op.attention.out_proj.parameters(), *op.feed_forward.parameters()):
            parameter.zero_()
    x = series(4)
    laws.same(block(x), x)


@pytest.mark.parametrize("name", CAUSAL)
def test_stream(name):
    op, x = CAUSAL[name]().eval(), series(3, 2)
    laws.whole_is_chunks_is_steps(op, x, 1e-5)
    laws.whole_is_chunks_is_steps(op, x, 1e-5, laws.random_mask(x))
    laws.states_are_values(op, x)
    x = x.double()
    laws.whole_is_chunks_is_steps(op.double(), x, 1e-10, laws.random_mask(x, 1))


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("training", [False, True])
def test_causality(name, training):
    op, x = CAUSAL[name]().train(training), series(3, 2)
    assert op.causal
    laws.the_future_moves_nothing(op, x)
    laws.the_future_moves_nothing(op, x, laws.random_mask(x))
    laws.the_past_moves_the_present(op, x)


def test_without_causality():
    op, x = TemporalFactorized(C, HEADS, causal=False), series(3)
    assert not op.causal
    laws.a_stream_needs_causality(op, x)
    with pytest.raises(ValueError, match=r"TemporalFactorized.*is not causal"):
        op.prefill(x)
    laws.the_past_moves_the_present(op, x)
    laws.the_past_moves_the_present(lambda x: op(x.flip(-2)).flip(-2), x)


@pytest.mark.parametrize("causal", [True, False])
def test_rows_and_masks(causal):
    op, x = TemporalFactorized(C, HEADS, causal=causal), series(3, 2)
    laws.rows_are_independent(op, series(5))
    laws.rows_are_independent(op, x, dim=1)
    laws.masked_steps_have_no_influence(op, x, laws.random_mask(x))
    laws.fully_masked_rows_give_zero(op, x)


@pytest.mark.parametrize("name", CAUSAL)
def test_modules(name):
    op, x = CAUSAL[name]().eval(), series(3)
    laws.copies_are_equal(op, lambda op: op(x))
    laws.inputs_stay_untouched(op, x, laws.random_mask(x))
    laws.layout_does_not_matter(op, x)
    before = op(x)
    op.reset_parameters()
    assert not torch.equal(op(x), before)


def test_dropout_of_what_the_attention_adds():
    """One becomes zero or two."""
    op = TemporalFactorized(C, HEADS, dropout=0.5)
    with torch.no_grad():
        op.attention.out_proj.weight.zero_()
        op.attention.out_proj.bias.fill_(1.0)
        for parameter in op.feed_forward.parameters():
            parameter.zero_()
    assert set(op(series(20)).unique().tolist()) == {0.0, 2.0}
    assert set(op.eval()(series(20)).unique().tolist()) == {1.0}
    assert op.attention.dropout == op.feed_forward.dropout.p == 0.5


def test_derivatives():
    op = randomized(TemporalFactorized(4, 2, max_length=4)).double()
    x = torch.randn(2, 4, 4, dtype=torch.double, requires_grad=True)
    mask = laws.random_mask(x)
    assert torch.autograd.gradcheck(lambda x: op(x, mask), x)


def test_autocast():
    op, x = TemporalFactorized(C, HEADS), series(3).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = op(x)
    y.float().square().sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()


def test_cost_is_that_of_a_layer():
    op, x = TemporalFactorized(C, HEADS, mlp_ratio=2, position=None), series(3)
    with FlopCounterMode(display=False) as counter:
        op(x)
    tokens = 3 * STEPS
    linear = 2 * C * (3 * C + C + 2 * 2 * C) * tokens
    assert counter.get_total_flops() == linear + 4 * C * 3 * STEPS**2


def test_bad_input():
    op = TemporalFactorized(C, HEADS, max_length=4)
    with pytest.raises(ValueError, match=r"4 learned positions.*9 steps"):
        op(series(2))
    with pytest.raises(ValueError, match=r"TemporalFactorized.*C = 8"):
        op(torch.randn(2, 3, 5))
    with pytest.raises(ValueError, match="boolean"):
        op(series(2), torch.ones(2, STEPS))
    with pytest.raises(ValueError, match=r"channels \(8\).*heads \(3\)"):
        TemporalFactorized(C, 3)
    expected = "TemporalFactorized(8, heads=2, causal=True, position='learned')"
    assert str(op) == expected
